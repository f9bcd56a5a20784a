"""Reads MP3 (and MP2) files by the frames that are in them."""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import AudioInfo
from audio_diffusion_pytorch.audio.mpeg_frames import frame_rate, frame_samples, frame_sizes, walk
from audio_diffusion_pytorch.audio.sections import Sections, fitted

_SECTION = 128  # frames that are decoded as one: 3.3 s at 44.1 kHz
_RESERVOIR = 511  # bytes at most that lie before a frame and belong to it
_SIDE = 42  # bytes of a frame that are no such: header, checksum, side information
_OVERLAP = 2


@dataclass(frozen=True)
class Part:
    """A section: frames `lead` to `first` only prepare the decoder, `first` to `last` are its sound."""

    lead: int
    first: int
    last: int
    skip: int
    drop: int


@dataclass(frozen=True)
class Index:
    """What reading needs to know of a file; kept, so that it is walked once."""

    info: AudioInfo
    word: int
    offsets: array
    end: int
    parts: tuple[Part, ...]
    lengths: tuple[int, ...]
    problems: tuple[str, ...]


def index_of(file: BinaryIO, size: int) -> Index | None:
    """
    Raises:
        InputError: the sample rate changes on the way.
    """
    found = walk(file, size)
    if found is None:
        return None
    samples, parts, lengths = frame_samples(found.word), [], []
    for segment in found.segments:
        for first in range(segment.first, segment.last, _SECTION):
            last = min(first + _SECTION, segment.last)
            begin, whole = (
                (first - segment.first) * samples,
                (segment.last - segment.first) * samples,
            )
            skip = min(max(0, segment.skip - begin), (last - first) * samples)
            drop = max(
                0, (last - segment.first) * samples - max(whole - segment.drop, begin + skip)
            )
            parts.append(Part(_lead(found.offsets, segment.first, first), first, last, skip, drop))
            lengths.append((last - first) * samples - skip - drop)
    layer = {1: "III", 2: "II", 3: "I"}[found.word >> 9 & 3]
    info = AudioInfo(
        sum(lengths), frame_rate(found.word), 2 if found.stereo else 1, f"MPEG_LAYER_{layer}"
    )
    problems = ("it was cut off in the middle; what is there is read",) if found.cut else ()
    return Index(info, found.word, found.offsets, found.end, tuple(parts), tuple(lengths), problems)


def _lead(offsets: array, begin: int, first: int) -> int:
    """The first of the frames that the decoder needs before frame `first`.

    Its sound overlaps with that of two frames before it, bits of which lie in the frames before those.
    """
    lead, missing = max(begin, first - _OVERLAP), _RESERVOIR
    while lead > begin and missing > 0:
        missing -= offsets[lead] - offsets[lead - 1] - _SIDE
        lead -= 1
    return lead


class MpegSource(Sections):
    """Reads the frames of an index.

    Args:
        path: of the file.
        index: of it.
    """

    def __init__(self, path: str | Path, index: Index):
        super().__init__(list(index.lengths))
        self.path, self.index, self.info, self.problems = (
            Path(path),
            index,
            index.info,
            index.problems,
        )
        self._file = open(path, "rb")  # noqa: SIM115

    def decode(self, number: int) -> np.ndarray:
        import av

        index, part = self.index, self.index.parts[number]
        decoder = av.CodecContext.create(
            {1: "mp3float", 2: "mp2float", 3: "mp1float"}[index.word >> 9 & 3], "r"
        )
        decoder.thread_count = 1
        start = index.offsets[part.lead]
        self._file.seek(start)
        # The last frame is read by its header's size; what lies between frames is left out likewise.
        stop = index.offsets[part.last] if part.last < len(index.offsets) else index.end
        data = self._file.read(stop - start)
        samples, channels = frame_samples(index.word), self.info.channels
        pieces = []
        for frame in range(part.lead, part.last):
            place = index.offsets[frame] - start
            size = (
                frame_sizes()[data[place + 1] << 8 | data[place + 2]]
                if place + 2 < len(data)
                else 0
            )
            wav = _decoded(decoder, data[place : place + size])
            if frame >= part.first:
                pieces.append(fitted(wav, samples, channels))
        out = np.concatenate(pieces)
        return out[part.skip : len(out) - part.drop]

    def tags(self) -> dict[str, str]:
        from audio_diffusion_pytorch.audio.packets import tags_of

        return tags_of(self.path)

    def close(self) -> None:
        self._file.close()


def _decoded(decoder, data: bytes) -> np.ndarray:
    """The sound of one frame [n, C]; none where it is damaged."""
    import av

    try:
        frames = decoder.decode(av.Packet(data)) if data else []
    except av.FFmpegError:
        frames = []
    return (
        np.concatenate([frame.to_ndarray().T for frame in frames])
        if frames
        else np.zeros((0, 1), np.float32)
    )
