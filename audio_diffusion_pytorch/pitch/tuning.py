"""Tuning of a recording: deviation of its notes from equal temperament at A = 440 Hz."""

import math

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import in_phase

_SECONDS = 0.35  # of a window: resolves partials a few cents apart
_LOW = 200.0  # lowest partial in Hz
_HIGH = 2000.0  # highest partial in Hz
_RANGE = math.log(100)  # use peaks down to 40 dB below the highest peak of a segment
_MIN_DIRECTION = 0.3  # length of the mean direction (0 to 1) below which the tuning is undefined
_MIN_CENTS = 5.0  # deviation below which a recording is in tune


class TuningMeter:
    """Measure the tuning of a recording block by block.

    Deviations of spectral peaks from the nearest semitone, weighted by amplitude, are averaged as
    angles, because they wrap at half a semitone. Glides and noise lack a common deviation and count
    as in tune.

    Args:
        sample_rate: sample rate of the recording in Hz.
    """

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate
        self._size = 1 << max(8, round(math.log2(_SECONDS * sample_rate)))
        self._rest: Tensor | None = None  # [C, n]
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, wav: Tensor) -> None:
        """Add the next block [C, n]."""
        wav = wav if self._rest is None else torch.cat([self._rest, wav], -1)
        segment = (
            16 * self._size
        )  # fixed segments: the result must not depend on the size of the blocks
        for start in range(0, wav.shape[-1] - segment + 1, segment):
            self._sums += self._measure(wav[:, start : start + segment])
        self._rest = wav[:, wav.shape[-1] // segment * segment :].clone()

    @property
    def cents(self) -> float:
        """Deviation of all blocks so far in cents, -50 to 50; 0 if undefined or within 5 cents."""
        sine, cosine, weight = (self._sums + self._measure(self._rest)).tolist()
        cents = round(math.atan2(sine, cosine) / (2 * math.pi) * 100)
        is_defined = math.hypot(sine, cosine) > _MIN_DIRECTION * weight
        return float(cents) if is_defined and abs(cents) > _MIN_CENTS else 0.0

    def _measure(self, wav: Tensor | None) -> Tensor:
        """Sum weight * sine and weight * cosine of the deviation, and weight, over peaks."""
        if wav is None or wav.shape[-1] < self._size or not wav.any():
            return torch.zeros(3, dtype=torch.float64)
        wav = in_phase(wav).mean(0)
        window = torch.hann_window(self._size)
        spectrum = torch.stft(
            wav, self._size, self._size // 8, window=window, center=False, return_complex=True
        )
        power = spectrum.abs().clamp(min=1e-9).log()
        left, peak, right = power[:-2], power[1:-1], power[2:]
        # Vertex of the parabola through three bins.
        vertex = 0.5 * (left - right) / (left - 2 * peak + right)
        bins = torch.arange(1, len(power) - 1)[:, None] + vertex
        hertz = bins * self.sample_rate / self._size
        is_peak = (peak > left) & (peak >= right) & (peak > peak.max() - _RANGE)
        found = is_peak & (hertz > _LOW) & (hertz < _HIGH)
        angle = 2 * math.pi * 12 * torch.log2(hertz[found].double() / 440)
        weight = peak[found].double().exp()
        return torch.stack(
            [(weight * angle.sin()).sum(), (weight * angle.cos()).sum(), weight.sum()]
        )
