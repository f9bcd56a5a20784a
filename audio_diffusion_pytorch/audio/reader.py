"""Read audio files, whole or in part. Waveforms are [C, T] float32 in [-1, 1]."""

import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio.dsp import Polarity, to_mono
from audio_diffusion_pytorch.audio.formats import BLOCK, AudioInfo
from audio_diffusion_pytorch.audio.sources import open_source, state_of
from audio_diffusion_pytorch.errors import InputError

_MOST = 50_000  # files whose polarity is remembered
_POLARITIES: dict[str, tuple[tuple[int, ...], Tensor]] = {}


class AudioReader:
    """Read a recording, whole or in blocks, any number of times; a context manager.

    The content of the file decides the format, not its name. The length is that of the actual
    sound, even if a header differs. Harmless damage (a wrong size in a header, a truncated end)
    causes one warning per process.

    Args:
        path: wav, flac, ogg, mp3, m4a, opus, aiff, caf, webm, the sound of a film ...

    Raises:
        NotAudio: the file holds no sound; `NotAudio` is an `InputError`.
        InputError: the file is missing, empty or damaged; while reading: the file changes, ends
            early, or holds NaN or infinite samples.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._state = state_of(self.path)
        self._source, new = open_source(self.path, self._state)
        self.info: AudioInfo = self._source.info
        if self.info.frames <= 0:
            self._source.close()
            raise InputError(f"cannot read {path} as audio: it holds no samples")
        if new:
            for problem in self._source.problems:
                warnings.warn(f"{path}: {problem}", stacklevel=2)

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *_) -> None:
        self._source.close()

    @property
    def problems(self) -> tuple[str, ...]:
        """Harmless damage of the file, in sentences without its name."""
        return self._source.problems

    @property
    def tags(self) -> dict[str, str]:
        """Title, artist, album and other texts of the file."""
        return {key: value for key, value in self._source.tags().items() if value.strip()}

    def read(self, start: int = 0, frames: int = -1) -> Tensor:
        """Read a part, equal to the last bit to that part of the whole recording.

        Args:
            start: first frame.
            frames: number of frames; -1: to the end.

        Returns:
            wav [C, T] float32.

        Raises:
            InputError: the file cannot be read, ends early, or holds NaN or infinite samples.
        """
        frames = self.info.frames - start if frames < 0 else frames
        try:
            data = self._source.read(start, frames)
        except InputError as error:
            raise InputError(f"cannot read {self.path} as audio: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(data) != frames:
            raise InputError(
                f"cannot read {self.path} as audio: it is truncated "
                f"({len(data)} of {frames} frames from {start})"
            )
        if not np.isfinite(data).all():
            raise InputError(f"cannot use {self.path}: it holds NaN or infinite samples")
        return torch.from_numpy(np.ascontiguousarray(data.T))

    def blocks(self) -> Iterator[Tensor]:
        """Yield the whole recording as blocks [C, n] float32.

        Raises:
            InputError: see `read`; or the file changes meanwhile.
        """
        size = max(1, BLOCK // self.info.channels)
        for start in range(0, self.info.frames, size):
            yield self.read(start, min(size, self.info.frames - start))
        # A deleted file is harmless: it was open, and all of it was read.
        if self.path.exists() and state_of(self.path)[:2] != self._state[:2]:
            raise InputError(
                f"cannot use {self.path}: it changed while it was being read; "
                "wait until it is complete"
            )

    @property
    def polarity(self) -> Tensor:
        """[C, 1] -1 for channels that oppose the loudest one over the whole recording, else 1."""
        if self.info.channels == 1:
            return torch.ones(1, 1)
        key = str(self.path.absolute())
        known = _POLARITIES.get(key)
        if known is not None and known[0] == self._state:
            return known[1]
        meter = Polarity(self.info.channels)
        with suppress(InputError):  # damaged: the sound before the damage decides
            for block in self.blocks():
                meter.update(block)
        if len(_POLARITIES) >= _MOST:
            _POLARITIES.clear()
        _POLARITIES[key] = self._state, meter.signs
        return meter.signs

    def read_mono(self, start: int = 0, frames: int = -1) -> Tensor:
        """Read a part as `read` does and average its channels, opposing ones inverted: [1, T]."""
        return to_mono(self.read(start, frames) * self.polarity)

    def mono_blocks(self) -> Iterator[Tensor]:
        """Return the blocks of `blocks`, averaged as in `read_mono`: [1, n]."""
        signs = self.polarity
        return (to_mono(block * signs) for block in self.blocks())


def info(path: str | Path) -> AudioInfo:
    """Return exact length, rate and channels of a file.

    Args:
        path: audio file.

    Raises:
        InputError: the file is missing, empty or holds no sound.
    """
    with AudioReader(path) as file:
        return file.info


def read(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Read a file or a part of it.

    Args:
        path: audio file.
        start: first frame.
        frames: number of frames; -1: to the end.

    Returns:
        wav [C, T] float32, and the sample rate in Hz.

    Raises:
        InputError: the file is missing, holds no sound, ends early, or holds NaN or infinite
            samples.
    """
    with AudioReader(path) as file:
        return file.read(start, frames), file.info.sample_rate


def read_mono(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Read a file or a part of it as `read` does, and average its channels: [1, T].

    Channels that oppose the loudest one over the whole recording are inverted first, in every part.

    Args:
        path: audio file.
        start: first frame.
        frames: number of frames; -1: to the end.
    """
    with AudioReader(path) as file:
        return file.read_mono(start, frames), file.info.sample_rate
