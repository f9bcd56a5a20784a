"""Audio files: read (whole or part), resample, to mono, write. Waveforms are [C, T] float32 in [-1, 1]."""

import errno
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
_LARGEST_WAV = 4_000_000_000  # bytes of sound: a WAV header counts no more
_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}  # a sample; 4 in others
_BLOCK = 1 << 18  # frames a block: libsndfile's Vorbis encoder overflows its stack on long writes


@dataclass(frozen=True)
class AudioInfo:
    """Length in frames, rate in Hz, channels, and libsndfile's name of the sample format (`PCM_24`, `VORBIS` ...)."""

    frames: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


class _Sequential(soundfile.SoundFile):
    """Reads on without seeking. `soundfile` seeks after each read, and MP3 decodes wrongly after a seek."""

    def seekable(self) -> bool:
        return False


class AudioReader:
    """A recording, read in blocks from its start as often as needed; a context manager.

    Args:
        path: .wav, .flac, .ogg, .mp3.

    Raises:
        InputError: the file is missing, empty, truncated or no audio; on reading: it changes meanwhile, ends early, or
            holds NaN or infinite samples.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._state = _state(self.path)
        try:
            self._file, self._position = _Sequential(os.fsencode(path)), 0
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"cannot read {path} as audio: {_reason(error, path)}") from error
        file = self._file
        self.info = AudioInfo(file.frames, file.samplerate, file.channels, file.subtype)
        problem = "it holds no samples" if file.frames <= 0 else None
        if _TRUNCATED.search(file.extra_info):
            problem = "it is truncated (shorter than its header says)"
        if problem:
            file.close()
            raise InputError(f"cannot read {path} as audio: {problem}")

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    @property
    def tags(self) -> dict[str, str]:
        """What the file says of title, artist, album ..."""
        return self._file.copy_metadata()

    def read(self, start: int = 0, frames: int = -1) -> Tensor:
        """`frames` frames from `start` (-1: to the end) -> wav [C, T] float32."""
        frames = self.info.frames - start if frames < 0 else frames
        # What an MP3 decodes to right after a jump is wrong.
        before = min(start, self.info.sample_rate // 2) if self._file.format in ("MP3", "MPEG") else 0
        self._seek(start - before)
        return self._next(before + frames)[:, before:]

    def blocks(self) -> Iterator[Tensor]:
        """The whole recording as blocks [C, n] float32, from its start."""
        size = max(1, _BLOCK // self.info.channels)
        self._seek(0)
        for start in range(0, self.info.frames, size):
            yield self._next(min(size, self.info.frames - start))
        if self.path.exists() and _state(self.path) != self._state:  # gone is no harm: it was open and is read
            raise InputError(f"cannot use {self.path}: it changed while it was being read; wait until it is complete")

    def _seek(self, start: int) -> None:
        if self._position == start:
            return
        try:
            self._position = self._file.seek(start)
        except (soundfile.LibsndfileError, RuntimeError) as error:  # a FLAC file that was cut off
            raise InputError(f"cannot read {self.path} as audio: {_reason(error, self.path)}") from error

    def _next(self, expected: int) -> Tensor:
        start = self._position
        try:
            data = self._file.read(expected, dtype="float32", always_2d=True)
            self._position += len(data)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"cannot read {self.path} as audio: {_reason(error, self.path)}") from error
        if len(data) != expected:
            raise InputError(
                f"cannot read {self.path} as audio: it is truncated ({len(data)} of {expected} frames from {start})"
            )
        if not np.isfinite(data).all():
            raise InputError(f"cannot use {self.path}: it holds NaN or infinite samples")
        return torch.from_numpy(np.ascontiguousarray(data.T))


def info(path: str | Path) -> AudioInfo:
    """Length, rate and channels from the header.

    Raises:
        InputError: the file is missing, empty, truncated or no audio.
    """
    with AudioReader(path) as file:
        return file.info


def read(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Read `frames` frames from `start` (-1: to the end) -> wav [C, T] float32, and the sample rate in Hz.

    Raises:
        InputError: the file is missing, no audio, ends early, or holds NaN or infinite samples.
    """
    with AudioReader(path) as file:
        return file.read(start, frames), file.info.sample_rate


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file."""
    if not path.is_file():
        raise InputError(f"{path} is a folder, give one audio file" if path.is_dir() else f"no such audio file: {path}")
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _reason(error: Exception, path: str | Path) -> str:
    try:
        if Path(path).stat().st_size == 0:
            return "the file is empty"
    except OSError:
        return "it disappeared"
    return str(getattr(error, "error_string", error)).rstrip(".") + " (damaged, or not wav/flac/ogg/mp3?)"


def to_mono(wav: Tensor) -> Tensor:
    """[C, T] -> [1, T], the channels' average."""
    return wav.mean(0, keepdim=True)


def in_phase(wav: Tensor) -> Tensor:
    """wav [C, T] with those channels turned over that oppose the loudest one, so that an average cancels nothing."""
    loudest = wav[wav.square().sum(-1).argmax()]
    return torch.where((wav * loudest).sum(-1, keepdim=True) < 0, -wav, wav)


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

            self._stream = soxr.ResampleStream(orig_rate, new_rate, channels, dtype="float32", quality="VHQ")

    def __call__(self, wav: Tensor, last: bool = False) -> Tensor:
        """Take a block [C, n], give what is ready, [C, m]; in all ceil(T * new_rate / orig_rate) samples."""
        if self._stream is None:
            return wav
        data = self._stream.resample_chunk(np.ascontiguousarray(wav.T.numpy()), last=last)
        out = torch.from_numpy(np.ascontiguousarray(data.T))
        self._taken += wav.shape[-1]
        if last:  # soxr rounds to nearest
            missing = int(-(-self._taken * self.new_rate // self.orig_rate)) - self._given - out.shape[-1]
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
        self._powers = array("d")  # in one piece: small tensors among large ones fragment the memory of a long run

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
            rest = self._power(self._rest, self._rest.shape[-1]) * (self._rest.shape[-1] / self._block)
            power = torch.cat([power, rest])
        return float(power[power >= power.max() * 1e-3].mean().sqrt()) if len(power) else 0.0

    def _power(self, wav: Tensor, block: int) -> Tensor:
        wav = wav.unflatten(-1, (-1, block)).double()
        return (wav.square().mean(-1) - wav.mean(-1).square()).clamp_min(0).mean(0)


def active_rms(wav: Tensor, sample_rate: int) -> float:
    """RMS of the sounding parts of wav [C, T]: of the 50 ms blocks within 30 dB of the loudest one."""
    meter = LevelMeter(sample_rate)
    meter.update(wav)
    return meter.rms


@contextmanager
def writing(
    path: str | Path,
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
    frames: int = 0,
    complete: Callable[[Path], None] | None = None,
) -> Iterator[Callable[[Tensor], None]]:
    """Write a .wav, .flac or .ogg file in blocks; it appears under its name when the block ends, complete.

    Args:
        subtype: libsndfile's name of the input's sample format (`PCM_24` ...), kept as far as the ending allows.
        tags: title, artist ..., as `AudioReader.tags` gives them.
        frames: how many will come, where known: above 4 GB a .wav file is written as RF64.
        complete: called with the complete file before it takes its name.

    Yields:
        A function that writes the next block [C, n].

    Raises:
        InputError: another extension, a folder that cannot be written to, or a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(f"cannot write {path}: the output must end in {', '.join(OUTPUT_EXTENSIONS)}")
    file_format = path.suffix[1:].upper()
    subtype = _subtype(file_format, subtype)
    if file_format == "WAV" and frames * channels * _BYTES.get(subtype, 4) > _LARGEST_WAV:
        file_format = "RF64"
    written = 0

    def write_block(wav: Tensor) -> None:
        nonlocal written
        data = wav.detach().cpu().T.contiguous().numpy()
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            try:
                file.write(block)
            except AssertionError as error:  # what soundfile raises where fewer frames could be written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        written += len(data)

    try:
        with replacing(path) as temporary:
            name = os.fsencode(temporary)  # soundfile takes text for UTF-8, which a name need not be
            with soundfile.SoundFile(name, "w", sample_rate, channels, subtype=subtype, format=file_format) as file:
                for key, value in (tags or {}).items():
                    setattr(file, key, value)
                yield write_block
            if soundfile.info(name).frames != written:  # a disk that gets full at the very end raises nothing
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if complete is not None:
                complete(temporary)
    except soundfile.LibsndfileError as error:  # no disk that is full, which `replacing` finds out
        raise InputError(f"cannot write {path}: {error.error_string}") from error


def write(path: str | Path, wav: Tensor, sample_rate: int, subtype: str | None = None) -> None:
    """Write wav [C, T] as .wav, .flac or .ogg; arguments and errors as `writing`."""
    with writing(path, sample_rate, wav.shape[0], subtype) as write_block:
        write_block(wav)


def _subtype(file_format: str, wanted: str | None) -> str:
    """The sample format that keeps most of the wanted one."""
    default = "VORBIS" if file_format == "OGG" else "PCM_16"
    if not (wanted or "").startswith(("PCM_", "FLOAT", "DOUBLE")):  # an MP3's format would fit into a WAV, too
        return default
    if soundfile.check_format(file_format, wanted):
        return wanted
    return "PCM_24" if file_format == "FLAC" and wanted in ("PCM_32", "FLOAT", "DOUBLE") else default
