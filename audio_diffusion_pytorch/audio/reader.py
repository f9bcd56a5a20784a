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
    """A recording, read in blocks from its start as often as needed; a context manager.

    Its content decides how it is read, not its name. The length is what there is, whatever a header says. What is wrong
    with a file and does no harm (a size that is too large, an end that is cut off) is warned of once in a process.

    Args:
        path: wav, flac, ogg, mp3, m4a, opus, aiff, caf, webm, the sound of a film ...

    Raises:
        NotAudio: the file holds no sound (an `InputError`, too).
        InputError: the file is missing, empty or damaged; on reading: it changes meanwhile, ends early, or holds
            NaN or infinite samples.
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
        """What is wrong with the file and does no harm, each a sentence without the file's name."""
        return self._source.problems

    @property
    def tags(self) -> dict[str, str]:
        """What the file says of title, artist, album ..."""
        return {key: value for key, value in self._source.tags().items() if value.strip()}

    def read(self, start: int = 0, frames: int = -1) -> Tensor:
        """`frames` frames from `start` (-1: to the end) -> wav [C, T] float32, to the bit that part of the whole."""
        frames = self.info.frames - start if frames < 0 else frames
        try:
            data = self._source.read(start, frames)
        except InputError as error:
            raise InputError(f"cannot read {self.path} as audio: {error}") from error
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(data) != frames:
            raise InputError(
                f"cannot read {self.path} as audio: it is truncated ({len(data)} of {frames} frames from {start})"
            )
        if not np.isfinite(data).all():
            raise InputError(f"cannot use {self.path}: it holds NaN or infinite samples")
        return torch.from_numpy(np.ascontiguousarray(data.T))

    def blocks(self) -> Iterator[Tensor]:
        """The whole recording as blocks [C, n] float32, from its start."""
        size = max(1, BLOCK // self.info.channels)
        for start in range(0, self.info.frames, size):
            yield self.read(start, min(size, self.info.frames - start))
        if (
            self.path.exists() and state_of(self.path)[:2] != self._state[:2]
        ):  # gone is no harm: it was open and is read
            raise InputError(
                f"cannot use {self.path}: it changed while it was being read; wait until it is complete"
            )

    @property
    def polarity(self) -> Tensor:
        """[C, 1], -1 for channels that oppose the loudest one, else 1. The whole recording decides, read once."""
        if self.info.channels == 1:
            return torch.ones(1, 1)
        key = str(self.path.absolute())
        state, signs = _POLARITIES.get(key, (None, None))
        if state != self._state:
            meter = Polarity(self.info.channels)
            with suppress(InputError):  # damage further on: what came before decides
                for block in self.blocks():
                    meter.update(block)
            signs = meter.signs
            if len(_POLARITIES) >= _MOST:
                _POLARITIES.clear()
            _POLARITIES[key] = self._state, signs
        return signs

    def read_mono(self, start: int = 0, frames: int = -1) -> Tensor:
        """As `read`, the channels' average [1, T], those turned over before that oppose the loudest one."""
        return to_mono(self.read(start, frames) * self.polarity)

    def mono_blocks(self) -> Iterator[Tensor]:
        """As `blocks`, averaged as in `read_mono`."""
        signs = self.polarity
        return (to_mono(block * signs) for block in self.blocks())


def info(path: str | Path) -> AudioInfo:
    """Exact length, rate and channels.

    Raises:
        InputError: the file is missing, empty or holds no sound.
    """
    with AudioReader(path) as file:
        return file.info


def read(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """Read `frames` frames from `start` (-1: to the end) -> wav [C, T] float32, and the sample rate in Hz.

    Raises:
        InputError: the file is missing, holds no sound, ends early, or holds NaN or infinite samples.
    """
    with AudioReader(path) as file:
        return file.read(start, frames), file.info.sample_rate


def read_mono(path: str | Path, start: int = 0, frames: int = -1) -> tuple[Tensor, int]:
    """As `read`, the channels' average [1, T]; channels that oppose the loudest one are turned over before.

    What opposes is decided over the whole recording, so that all its parts are averaged alike.
    """
    with AudioReader(path) as file:
        return file.read_mono(start, frames), file.info.sample_rate
