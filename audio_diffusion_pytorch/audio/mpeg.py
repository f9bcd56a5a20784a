"""Decode MP3 and MP2 files frame by frame."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import AudioInfo
from audio_diffusion_pytorch.audio.mpeg_frames import (
    Segment,
    frame_rate,
    frame_samples,
    frame_sizes,
    walk,
)
from audio_diffusion_pytorch.audio.sections import Sections, fitted

_SECTION = 128  # frames per section: 3.3 s at 44.1 kHz
_RESERVOIR = 511  # most bytes of a frame's data that earlier frames hold
_SIDE = 42  # bytes of a frame without data: header, checksum, side information
_OVERLAP = 2  # earlier frames that overlap with a frame's sound
_CUT = "it was cut off in the middle; the sound before the cut is read"
_LAYERS = {1: "III", 2: "II", 3: "I"}
_DECODERS = {1: "mp3float", 2: "mp2float", 3: "mp1float"}


@dataclass(frozen=True)
class Part:
    """Section of a recording.

    Args:
        lead: first frame to decode; frames before `first` only prepare the decoder.
        first: first frame of the section.
        last: end of the section, exclusive.
        skip: samples to cut from the start.
        drop: samples to cut from the end.
    """

    lead: int
    first: int
    last: int
    skip: int
    drop: int


@dataclass(frozen=True)
class Index:
    """Frames and sections of a file, as `index_of` finds them.

    Args:
        info: exact length, rate and channels.
        word: second and third byte of the first frame's header.
        offsets: position in bytes of each frame.
        end: position of the end of the last frame.
        parts: sections.
        lengths: samples of each section.
        problems: harmless damage, in sentences without the name of the file.
    """

    info: AudioInfo
    word: int
    offsets: array
    end: int
    parts: tuple[Part, ...]
    lengths: tuple[int, ...]
    problems: tuple[str, ...]


def index_of(file: BinaryIO, size: int) -> Index | None:
    """Find the frames of a file.

    Args:
        file: open MPEG audio file.
        size: length of the file in bytes.

    Returns:
        The index; None for a file without frames.

    Raises:
        InputError: the sample rate changes within the file.
    """
    found = walk(file, size)
    if found is None:
        return None
    samples = frame_samples(found.word)
    parts = [part for segment in found.segments for part in _parts(found.offsets, segment, samples)]
    lengths = [(part.last - part.first) * samples - part.skip - part.drop for part in parts]
    channels = 2 if found.stereo else 1
    subtype = f"MPEG_LAYER_{_LAYERS[_layer(found.word)]}"
    info = AudioInfo(sum(lengths), frame_rate(found.word), channels, subtype)
    problems = (_CUT,) if found.cut else ()
    return Index(info, found.word, found.offsets, found.end, tuple(parts), tuple(lengths), problems)


def _layer(word: int) -> int:
    return word >> 9 & 3


def _parts(offsets: array, segment: Segment, samples: int) -> Iterator[Part]:
    """Divide a segment into sections; `samples` is the length of a frame."""
    end = (segment.last - segment.first) * samples - segment.drop
    for first in range(segment.first, segment.last, _SECTION):
        last = min(first + _SECTION, segment.last)
        start, stop = (first - segment.first) * samples, (last - segment.first) * samples
        skip = min(max(0, segment.skip - start), stop - start)
        drop = max(0, stop - max(end, start + skip))
        yield Part(_lead(offsets, segment.first, first), first, last, skip, drop)


def _lead(offsets: array, begin: int, first: int) -> int:
    """Return the first frame that the decoder needs to decode frame `first`.

    The sound of a frame overlaps with two earlier frames, whose data earlier frames may hold.

    Args:
        offsets: position in bytes of each frame.
        begin: first frame of the segment.
        first: frame.
    """
    lead = max(begin, first - _OVERLAP)
    missing = _RESERVOIR
    while lead > begin and missing > 0:
        missing -= offsets[lead] - offsets[lead - 1] - _SIDE
        lead -= 1
    return lead


class MpegSource(Sections):
    """Decode an MPEG audio file.

    Args:
        path: file.
        index: index of the file.
    """

    def __init__(self, path: str | Path, index: Index):
        super().__init__(list(index.lengths))
        self.path, self.index = Path(path), index
        self.info, self.problems = index.info, index.problems
        self._file = open(path, "rb")  # noqa: SIM115

    def decode(self, number: int) -> np.ndarray:
        """Return the frames [n, C] float32 of a section."""
        import av

        part, word = self.index.parts[number], self.index.word
        decoder = av.CodecContext.create(_DECODERS[_layer(word)], "r")
        decoder.thread_count = 1
        pieces = []
        for frame, data in self._frames(part):
            wav = _decoded(decoder, data)
            if frame >= part.first:
                pieces.append(fitted(wav, frame_samples(word), self.info.channels))
        out = np.concatenate(pieces)
        return out[part.skip : len(out) - part.drop]

    def _frames(self, part: Part) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers and the bytes of the frames of a section."""
        offsets = self.index.offsets
        start = offsets[part.lead]
        stop = offsets[part.last] if part.last < len(offsets) else self.index.end
        self._file.seek(start)
        data = self._file.read(stop - start)
        for frame in range(part.lead, part.last):
            # The header gives the size: tags and damage may lie between frames.
            place = offsets[frame] - start
            header = data[place : place + 3]
            size = frame_sizes()[header[1] << 8 | header[2]] if len(header) == 3 else 0
            yield frame, data[place : place + size]

    def tags(self) -> dict[str, str]:
        """Return title, artist, album and other texts."""
        from audio_diffusion_pytorch.audio.packets import tags_of

        return tags_of(self.path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _decoded(decoder, data: bytes) -> np.ndarray:
    """Decode one frame [n, C]; return [0, 1] for a damaged frame."""
    import av

    try:
        frames = decoder.decode(av.Packet(data)) if data else []
    except av.FFmpegError:
        frames = []
    if not frames:
        return np.zeros((0, 1), np.float32)
    return np.concatenate([frame.to_ndarray().T for frame in frames])
