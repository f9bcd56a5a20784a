"""The tuning of a recording: how far its notes lie from equal temperament at A = 440 Hz."""

import math

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import in_phase

_SECONDS = 0.35  # of a window: tells partials a few cents apart
_LOW, _HIGH = 200.0, 2000.0  # Hz: the partials that are looked at
_RANGE = math.log(100)  # peaks down to 40 dB below a segment's highest
_FEWEST = 0.3  # length of the mean direction (0 to 1) below which a recording has no tuning
_LEAST = 5.0  # cents below which a recording is in tune


class TuningMeter:
    """Tuning of a recording that comes in blocks.

    The deviations of spectral peaks from the nearest semitone, weighted by amplitude, are averaged as angles: they wrap
    at half a semitone. Glides and noise have no common deviation; they count as in tune.

    Args:
        sample_rate: of the recording, in Hz.
    """

    def __init__(self, sample_rate: int):
        self.sample_rate = sample_rate
        self._size = 1 << max(8, round(math.log2(_SECONDS * sample_rate)))
        self._rest: Tensor | None = None  # [C, n]
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, wav: Tensor) -> None:
        """Take the next block [C, n]."""
        wav = wav if self._rest is None else torch.cat([self._rest, wav], -1)
        segment = 16 * self._size  # the same segments however the recording is cut
        for start in range(0, wav.shape[-1] - segment + 1, segment):
            self._sums += self._listen(wav[:, start : start + segment])
        self._rest = wav[:, wav.shape[-1] // segment * segment :].clone()

    @property
    def cents(self) -> float:
        """-50 to 50, of what came so far; 0 within 5 cents, and where there is no tuning."""
        sine, cosine, weight = (self._sums + self._listen(self._rest)).tolist()
        cents = round(math.atan2(sine, cosine) / (2 * math.pi) * 100)
        return (
            float(cents)
            if math.hypot(sine, cosine) > _FEWEST * weight and abs(cents) > _LEAST
            else 0.0
        )

    def _listen(self, wav: Tensor | None) -> Tensor:
        """[C, n] -> sums over its peaks of weight times sine and cosine of the deviation, and of the weights."""
        if wav is None or wav.shape[-1] < self._size or not wav.any():
            return torch.zeros(3, dtype=torch.float64)
        wav = in_phase(wav).mean(0)
        window = torch.hann_window(self._size)
        spectrum = torch.stft(
            wav, self._size, self._size // 8, window=window, center=False, return_complex=True
        )
        power = spectrum.abs().clamp(min=1e-9).log()
        left, peak, right = power[:-2], power[1:-1], power[2:]
        # The vertex of a parabola through three bins.
        bins = torch.arange(1, len(power) - 1)[:, None] + 0.5 * (left - right) / (
            left - 2 * peak + right
        )
        hertz = bins * self.sample_rate / self._size
        found = (
            (peak > left)
            & (peak >= right)
            & (peak > peak.max() - _RANGE)
            & (hertz > _LOW)
            & (hertz < _HIGH)
        )
        angle = 2 * math.pi * 12 * torch.log2(hertz[found].double() / 440)
        weight = peak[found].double().exp()
        return torch.stack(
            [(weight * angle.sin()).sum(), (weight * angle.cos()).sum(), weight.sum()]
        )
