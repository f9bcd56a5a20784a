"""Common interface of decoders, and recordings that are decoded section by section."""

from bisect import bisect_right
from itertools import accumulate
from typing import Protocol

import numpy as np

from audio_diffusion_pytorch.audio.formats import AudioInfo


class Source(Protocol):
    """Decoder of a recording, as a reader needs it.

    Attributes:
        info: exact length, rate, channels.
        problems: harmless damage, in sentences without the file's name.
    """

    info: AudioInfo
    problems: tuple[str, ...]

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return `frames` frames from `start`, [n, C] float32; fewer at the end of the file."""
        ...

    def tags(self) -> dict[str, str]:
        """Return title, artist, album and other texts."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Sections:
    """Read a recording in sections that decode independently, so parts equal those of the whole.

    Subclasses provide `info` and `decode`.

    Args:
        lengths: frames of each section.
    """

    info: AudioInfo
    problems: tuple[str, ...] = ()

    def __init__(self, lengths: list[int]):
        self.starts = [0, *accumulate(lengths)]
        self._number = -1
        self._section = np.zeros((0, 1), np.float32)

    def decode(self, number: int) -> np.ndarray:
        """Return the frames [n, C] float32 of a section."""
        raise NotImplementedError

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return `frames` frames from `start`, see `Source`."""
        end = min(start + frames, self.starts[-1])
        number = bisect_right(self.starts, start) - 1
        parts = []
        while start < end:
            section = self._decoded(number)
            first = start - self.starts[number]
            parts.append(section[first : first + end - start])
            number += 1
            start = self.starts[number]
        return np.concatenate(parts) if parts else np.zeros((0, self.info.channels), np.float32)

    def _decoded(self, number: int) -> np.ndarray:
        if number != self._number:
            self._section = self.decode(number)
            self._number = number
        return self._section


class Joined:
    """Join several recordings, one after the other.

    Args:
        sources: recordings of one rate and number of channels.
    """

    def __init__(self, sources: list[Source]):
        self.sources = sources
        first = sources[0].info
        self.starts = [0, *accumulate(source.info.frames for source in sources)]
        self.info = AudioInfo(self.starts[-1], first.sample_rate, first.channels, first.subtype)
        self.problems = tuple(
            dict.fromkeys(problem for source in sources for problem in source.problems)
        )

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return `frames` frames from `start`, see `Source`."""
        end = min(start + frames, self.starts[-1])
        parts = []
        while start < end:
            number = bisect_right(self.starts, start) - 1
            stop = min(end, self.starts[number + 1])
            parts.append(self.sources[number].read(start - self.starts[number], stop - start))
            start = stop
        return np.concatenate(parts) if parts else np.zeros((0, self.info.channels), np.float32)

    def tags(self) -> dict[str, str]:
        """Return the texts of the first recording."""
        return self.sources[0].tags()

    def close(self) -> None:
        """Close all recordings."""
        for source in self.sources:
            source.close()


def fitted(data: np.ndarray, frames: int, channels: int) -> np.ndarray:
    """Fit data [n, c] to [frames, channels] float32: cut, pad with silence, copy one channel."""
    data = data[:frames].astype(np.float32, copy=False)
    if data.shape[1] < channels:
        data = np.repeat(data[:, :1], channels, 1)
    data = data[:, :channels]
    return np.pad(data, ((0, frames - len(data)), (0, 0))) if len(data) < frames else data
