"""Audio files: read (whole or part), resample, to mono, write. Waveforms are [C, T] float32 in [-1, 1]."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError, replacing

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
OUTPUT_EXTENSIONS = (".wav", ".flac", ".ogg")
# What libsndfile's log says of a file shorter than its header; 0xFFFFFFFF is what a stream of unknown length writes.
_TRUNCATED = re.compile(r"^data : (?!4294967295)\d+ \(should be|lacks an end-of-stream bit", re.MULTILINE)
_BLOCK = 1 << 18  # frames a block: libsndfile's Vorbis encoder overflows its stack on long writes


@dataclass(frozen=True)
class AudioInfo:
    frames: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def info(path: str | Path) -> AudioInfo:
    """Length, rate and channels from the header.

    Raises:
        InputError: the file is missing, empty, truncated or no audio.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is a folder, give one audio file" if path.is_dir() else f"no such audio file: {path}")
    try:
        header = soundfile.info(str(path), verbose=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"cannot read {path} as audio: {_reason(error, path)}") from error
    if header.frames <= 0:
        raise InputError(f"cannot read {path} as audio: it holds no samples")
    if _TRUNCATED.search(header.extra_info):
        raise InputError(f"cannot read {path} as audio: it is truncated (shorter than its header says)")
    return AudioInfo(header.frames, header.samplerate, header.channels, header.subtype)


def read(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Read `frames` frames from `start` (-1: to the end) -> wav [C, T] float32, and the sample rate in Hz.

    Raises:
        InputError: the file is missing, no audio, ends early, or holds NaN or infinite samples.
    """
    header = info(path)
    expected = header.frames - start if frames < 0 else frames
    try:
        data, sample_rate = soundfile.read(str(path), expected, start, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"cannot read {path} as audio: {_reason(error, path)}") from error
    if len(data) != expected:
        raise InputError(
            f"cannot read {path} as audio: it is truncated ({len(data)} of {expected} frames from {start})"
        )
    if not np.isfinite(data).all():
        raise InputError(f"cannot use {path}: it holds NaN or infinite samples")
    return torch.from_numpy(np.ascontiguousarray(data.T)), sample_rate


def _reason(error: Exception, path: str | Path) -> str:
    if Path(path).stat().st_size == 0:
        return "the file is empty"
    return str(getattr(error, "error_string", error)).rstrip(".") + " (damaged, or not wav/flac/ogg/mp3?)"


def to_mono(wav: Tensor) -> Tensor:
    """[C, T] -> [1, T], the channels' average."""
    return wav.mean(0, keepdim=True)


def resample(wav: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """[..., T] at `orig_rate` Hz -> [..., ceil(T * new_rate / orig_rate)] at `new_rate` Hz."""
    if orig_rate == new_rate:
        return wav
    divisor = math.gcd(orig_rate, new_rate)
    if max(orig_rate, new_rate) // divisor > 2000:  # an odd ratio such as 44099:24000 would need a kernel of gigabytes
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


def active_rms(wav: Tensor, sample_rate: int) -> float:
    """RMS of the sounding parts of wav [C, T]: of the 50 ms blocks within 30 dB of the loudest one."""
    block = max(1, sample_rate // 20)
    blocks = torch.nn.functional.pad(wav, (0, -wav.shape[-1] % block)).unflatten(-1, (-1, block))
    power = blocks.double().square().mean((0, 2))
    return float(power[power >= power.max() * 1e-3].mean().sqrt())


def write(path: str | Path, wav: Tensor, sample_rate: int, subtype: str | None = None) -> None:
    """Write wav [C, T] as .wav, .flac or .ogg; the file appears under its name only when it is complete.

    Args:
        subtype: libsndfile's name of the sample format (`PCM_24`, `FLOAT` ...); the format's default if unusable.

    Raises:
        InputError: another extension, or the folder cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(f"cannot write {path}: the output must end in {', '.join(OUTPUT_EXTENSIONS)}")
    file_format = path.suffix[1:].upper()
    lossless = (subtype or "").startswith(("PCM_", "FLOAT", "DOUBLE"))  # an MP3's format would fit into a WAV, too
    if not lossless or not soundfile.check_format(file_format, subtype):
        subtype = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS"}[file_format]
    data = wav.detach().cpu().T.contiguous().numpy()
    with replacing(path) as temporary:
        try:
            with soundfile.SoundFile(
                str(temporary), "w", sample_rate, data.shape[1], subtype=subtype, format=file_format
            ) as file:
                for start in range(0, len(data), _BLOCK):
                    file.write(data[start : start + _BLOCK])
        except soundfile.LibsndfileError as error:
            raise InputError(f"cannot write {path}: {error.error_string}") from error
