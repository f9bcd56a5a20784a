"""Waveforms [C, T] float32: to mono, resample, fade, measure."""

import math
from array import array

import numpy as np
import torch
import torchaudio
from torch import Tensor

NOISE_DB = -26.0  # beside the level: what is louder counts as played, however steady it is
SILENT_DB = -66.0  # beside the level: what is softer counts as silence


def to_mono(wav: Tensor) -> Tensor:
    """[C, T] -> [1, T], the channels' average."""
    return wav.mean(0, keepdim=True)


def in_phase(wav: Tensor) -> Tensor:
    """wav [C, T] with those channels turned over that oppose the loudest one, so that an average cancels nothing."""
    loudest = wav[wav.square().sum(-1).argmax()]
    return torch.where((wav * loudest).sum(-1, keepdim=True) < 0, -wav, wav)


class Polarity:
    """Which channels of a recording that comes in blocks oppose its loudest one.

    Args:
        channels: of every block.
    """

    def __init__(self, channels: int):
        self._products = torch.zeros(channels, channels, dtype=torch.float64)

    def update(self, wav: Tensor) -> None:
        """Take the next block [C, n]."""
        self._products += (wav @ wav.T).double()

    @property
    def signs(self) -> Tensor:
        """[C, 1], -1 for the channels to be turned over, else 1."""
        loudest = int(self._products.diagonal().argmax())
        return torch.where(self._products[loudest] < 0, -1.0, 1.0)[:, None]


def resample(wav: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """[..., T] at `orig_rate` Hz -> [..., ceil(T * new_rate / orig_rate)] at `new_rate` Hz."""
    if orig_rate == new_rate:
        return wav
    divisor = math.gcd(orig_rate, new_rate)
    if (
        max(orig_rate, new_rate) // divisor > 2000
    ):  # an odd ratio such as 44099:24000 would need a kernel of gigabytes
        return _fft_resample(wav, math.ceil(wav.shape[-1] * new_rate / orig_rate))
    # The parameters known as "kaiser best"; the default window leaks at -9 dB.
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
    """Amplitude -> dB of full scale."""
    return 20 * math.log10(max(amplitude, 1e-10))


class Resampler:
    """Resamples a stream block by block (soxr, very high quality); the blocks' borders leave no trace.

    Args:
        orig_rate, new_rate: in Hz, also fractions.
        channels: of every block.
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
        """Take a block [C, n], give what is ready, [C, m]; in all ceil(T * new_rate / orig_rate) samples."""
        if self._stream is None:
            return wav
        data = self._stream.resample_chunk(np.ascontiguousarray(wav.T.numpy()), last=last)
        out = torch.from_numpy(np.ascontiguousarray(data.T))
        self._taken += wav.shape[-1]
        if last:  # soxr rounds to nearest
            missing = (
                int(-(-self._taken * self.new_rate // self.orig_rate)) - self._given - out.shape[-1]
            )
            out = torch.nn.functional.pad(out, (0, missing)) if missing > 0 else out
        self._given += out.shape[-1]
        return out


def fade_ends(wav: Tensor, samples: int, begin: bool = True, end: bool = True) -> Tensor:
    """wav [C, T] that rises and falls over `samples` at its ends, half of it at most: half periods of a cosine."""
    samples, wav = min(samples, wav.shape[-1] // 2), wav.clone()
    ramp = torch.linspace(0, math.pi, samples + 2, device=wav.device)[1:-1].cos().mul(-0.5).add(0.5)
    if begin:
        wav[:, :samples] *= ramp
    if end:
        wav[:, wav.shape[-1] - samples :] *= ramp.flip(0)
    return wav


class LevelMeter:
    """Level of a recording that comes in blocks: RMS of its sounding parts, and its peak.

    Sounding are the 50 ms blocks within 30 dB of the loudest one. A constant offset is no sound.
    """

    def __init__(self, sample_rate: int):
        self.peak = 0.0
        self._block = max(1, sample_rate // 20)
        self._rest: Tensor | None = None
        self._powers = array(
            "d"
        )  # in one piece: small tensors among large ones fragment the memory of a long run

    def update(self, wav: Tensor) -> None:
        """Take the next block [C, n]."""
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
        """RMS of the sounding parts of what came so far, all channels together; 0 before anything came."""
        power = torch.tensor(self._powers, dtype=torch.float64)
        if self._rest is not None and self._rest.shape[-1]:  # silence follows
            rest = self._power(self._rest, self._rest.shape[-1]) * (
                self._rest.shape[-1] / self._block
            )
            power = torch.cat([power, rest])
        return float(power[power >= power.max() * 1e-3].mean().sqrt()) if len(power) else 0.0

    @property
    def noise(self) -> float:
        """RMS of what fills the pauses: a room, hiss, hum. 0: nothing steady, or nothing below `NOISE_DB`."""
        power = torch.tensor(self._powers, dtype=torch.float64)
        beside = power / max(self.rms**2, 1e-20)
        quiet = (
            power[(beside < 10 ** (NOISE_DB / 10)) & (beside > 10 ** (SILENT_DB / 10))].log10() * 10
        )
        if len(quiet) < 4:
            return 0.0
        level = quiet.sort().values[len(quiet) // 5]
        steady = (
            (quiet - level).abs() < 3
        ).double().mean() > 0.4  # decays are spread over all levels
        return 10 ** (float(level) / 20) if steady else 0.0

    def _power(self, wav: Tensor, block: int) -> Tensor:
        wav = wav.unflatten(-1, (-1, block)).double()
        return (wav.square().mean(-1) - wav.mean(-1).square()).clamp_min(0).mean(0)


def active_rms(wav: Tensor, sample_rate: int) -> float:
    """RMS of the sounding parts of wav [C, T]: of the 50 ms blocks within 30 dB of the loudest one."""
    meter = LevelMeter(sample_rate)
    meter.update(wav)
    return meter.rms
