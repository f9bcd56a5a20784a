"""Read audio files, whole or in part. Waveforms are [C, T] float32 in [-1, 1]."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio.formats import BLOCK, AudioInfo
from audio_diffusion_pytorch.errors import InputError

# What libsndfile's log says of a file shorter than its header; 0xFFFFFFFF is what a stream of unknown length writes.
_TRUNCATED = re.compile(r"^data : (?!4294967295)\d+ \(should be|lacks an end-of-stream bit", re.MULTILINE)


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
        size = max(1, BLOCK // self.info.channels)
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
