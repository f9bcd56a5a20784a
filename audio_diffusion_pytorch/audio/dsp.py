"""Convert, resample, fade and measure waveforms [C, T] float32."""

import math
from array import array

import numpy as np
import torch
import torchaudio
from torch import Tensor

NOISE_DB = -26.0  # relative to the level: louder sound counts as played, however steady
SILENT_DB = -66.0  # relative to the level: softer sound counts as silence


def to_mono(wav: Tensor) -> Tensor:
    """Average the channels: [C, T] -> [1, T]."""
    return wav.mean(0, keepdim=True)


def in_phase(wav: Tensor) -> Tensor:
    """Invert channels of wav [C, T] that oppose the loudest one: averaging then cancels nothing."""
    loudest = wav[wav.square().sum(-1).argmax()]
    return torch.where((wav * loudest).sum(-1, keepdim=True) < 0, -wav, wav)


class Polarity:
    """Find the channels of a recording, given in blocks, that oppose its loudest channel.

    Args:
        channels: channels of every block.
    """

    def __init__(self, channels: int):
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def update(self, wav: Tensor) -> None:
        """Add the next block [C, n]."""
        self._products += (wav @ wav.T).double()

    @property
    def signs(self) -> Tensor:
        """[C, 1] -1 for channels to invert, else 1."""
        loudest = int(self._products.diagonal().argmax())
        return torch.where(self._products[loudest] < 0, -1.0, 1.0)[:, None]


def resample(wav: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """Resample wav [..., T] to [..., ceil(T * new_rate / orig_rate)]; rates are in Hz."""
    if orig_rate == new_rate:
        return wav
    divisor = math.gcd(orig_rate, new_rate)
    # An odd ratio such as 44099:24000 needs a kernel of gigabytes.
    if max(orig_rate, new_rate) // divisor > 2000:
        return _fft_resample(wav, math.ceil(wav.shape[-1] * new_rate / orig_rate))
    # The parameters known as "kaiser best": the default window leaks at -9 dB.
    return torchaudio.functional.resample(
        wav,
        orig_rate,
        new_rate,
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        resampling_method="sinc_interp_kaiser",
        beta=14.769656459379492,
    )


def _fft_resample(wav: Tensor, length: int) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(wav), n=length) * (length / wav.shape[-1])


def to_db(amplitude: float) -> float:
    """Convert an amplitude to dB of full scale."""
    return 20 * math.log10(max(amplitude, 1e-10))


class Resampler:
    """Resample a stream block by block (soxr, very high quality); block borders are inaudible.

    Args:
        orig_rate: rate of the input in Hz, fractions included.
        new_rate: rate of the output in Hz, fractions included.
        channels: channels of every block.
    """

    def __init__(self, orig_rate: float, new_rate: float, channels: int):
        self.orig_rate, self.new_rate = orig_rate, new_rate
        self._stream = None
        self._taken = self._given = 0
        if orig_rate != new_rate:
            import soxr

            self._stream = soxr.ResampleStream(
                orig_rate, new_rate, channels, dtype="float32", quality="VHQ"
            )

    def __call__(self, wav: Tensor, last: bool = False) -> Tensor:
        """Resample the next block.

        Args:
            wav: [C, n].
            last: no block follows.

        Returns:
            [C, m]; ceil(T * new_rate / orig_rate) samples in total.
        """
        if self._stream is None:
            return wav
        data = self._stream.resample_chunk(np.ascontiguousarray(wav.T.numpy()), last=last)
        out = torch.from_numpy(np.ascontiguousarray(data.T))
        self._taken += wav.shape[-1]
        if last:  # soxr rounds to nearest
            length = int(-(-self._taken * self.new_rate // self.orig_rate))
            missing = length - self._given - out.shape[-1]
            out = torch.nn.functional.pad(out, (0, missing)) if missing > 0 else out
        self._given += out.shape[-1]
        return out


def fade_ends(wav: Tensor, samples: int, begin: bool = True, end: bool = True) -> Tensor:
    """Fade the ends of a waveform with half periods of a cosine.

    Args:
        wav: [C, T].
        samples: length of a fade, at most T / 2.
        begin: whether to fade in.
        end: whether to fade out.

    Returns:
        [C, T].
    """
    samples = min(samples, wav.shape[-1] // 2)
    wav = wav.clone()
    ramp = torch.linspace(0, math.pi, samples + 2, device=wav.device)[1:-1].cos().mul(-0.5).add(0.5)
    if begin:
        wav[:, :samples] *= ramp
    if end:
        wav[:, wav.shape[-1] - samples :] *= ramp.flip(0)
    return wav


class LevelMeter:
    """Measure a recording in blocks: RMS of its active parts, noise in its pauses, and peak.

    A 50 ms block is active if it lies within 30 dB of the loudest block. DC offset is ignored.

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int):
        self.peak = 0.0
        self._block = max(1, sample_rate // 20)
        self._rest: Tensor | None = None
        # One array: small tensors between large ones fragment the memory of a long run.
        self._powers = array("d")

    def update(self, wav: Tensor) -> None:
        """Add the next block [C, n]."""
        if wav.shape[-1] == 0:
            return
        self.peak = max(self.peak, float(wav.abs().max()))
        if self._rest is not None:
            wav = torch.cat([self._rest, wav], -1)
        whole = wav.shape[-1] // self._block * self._block
        self._powers.extend(self._power(wav[:, :whole], self._block).tolist())
        self._rest = wav[:, whole:].clone()

    @property
    def rms(self) -> float:
        """RMS of the active parts so far over all channels; 0 before the first block."""
        power = torch.tensor(self._powers, dtype=torch.float64)
        if self._rest is not None and self._rest.shape[-1]:  # padded with silence
            length = self._rest.shape[-1]
            rest = self._power(self._rest, length) * (length / self._block)
            power = torch.cat([power, rest])
        return active_level(power)

    @property
    def noise(self) -> float:
        """RMS of the room, hiss or hum in the pauses; 0 without a steady sound below `NOISE_DB`."""
        return pause_noise(torch.tensor(self._powers, dtype=torch.float64), self.rms)

    def _power(self, wav: Tensor, block: int) -> Tensor:
        wav = wav.unflatten(-1, (-1, block)).double()
        return (wav.square().mean(-1) - wav.mean(-1).square()).clamp_min(0).mean(0)


def active_level(power: Tensor) -> float:
    """Return the RMS of the blocks within 30 dB of the loudest one.

    Args:
        power: mean square of each block [N], float64.

    Returns:
        The RMS; 0 without blocks.
    """
    return float(power[power >= power.max() * 1e-3].mean().sqrt()) if len(power) else 0.0


def pause_noise(power: Tensor, level: float) -> float:
    """Return the RMS of the room, hiss or hum in the pauses.

    Args:
        power: mean square of each block [N], float64.
        level: RMS of the active blocks.

    Returns:
        The RMS; 0 without a steady sound below `NOISE_DB`.
    """
    beside = power / max(level**2, 1e-20)
    between = (beside < 10 ** (NOISE_DB / 10)) & (beside > 10 ** (SILENT_DB / 10))
    quiet = power[between].log10() * 10
    if len(quiet) < 4:
        return 0.0
    lowest = quiet.sort().values[len(quiet) // 5]
    # Noise stays near one level; decays spread over all levels.
    steady = ((quiet - lowest).abs() < 3).double().mean() > 0.4
    return 10 ** (float(lowest) / 20) if steady else 0.0


def active_rms(wav: Tensor, sample_rate: int) -> float:
    """Return the RMS of the active parts of wav [C, T], see `LevelMeter`."""
    meter = LevelMeter(sample_rate)
    meter.update(wav)
    return meter.rms
