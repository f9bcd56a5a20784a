"""Find the streams of an Ogg file; a file may hold several recordings, one after the other."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

_MOST_JUNK = 1 << 16
_CODECS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac"}


@dataclass(frozen=True)
class Link:
    """Part of an Ogg file that holds one recording.

    Args:
        start: position of the first byte in the file.
        end: position of the end.
        codec: `vorbis`, `opus`, `flac`; empty for codecs that libsndfile cannot read.
        beside: number of parallel streams, such as the picture of a film.
        tail: frame at which the last two pages begin.
    """

    start: int
    end: int
    codec: str
    beside: int
    tail: int


@dataclass
class _OpenLink:
    """Link whose pages are being read; `granules` are the positions in frames of its last pages."""

    start: int
    codec: str
    beside: int = 0
    granules: deque[int] = field(default_factory=lambda: deque(maxlen=3))

    def closed(self, end: int) -> Link:
        tail = self.granules[0] if len(self.granules) == 3 else 0
        return Link(self.start, end, self.codec, self.beside, tail)


def links_of(file: BinaryIO, size: int) -> list[Link]:
    """Return the recordings of an Ogg file in their order.

    Args:
        file: open Ogg file.
        size: length of the file in bytes.
    """
    found: list[_OpenLink] = []
    position = 0
    begins = False
    while position < size:
        file.seek(position)
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            place = _next_page(file, position, size)
            if place is None:
                break
            position = place
            continue
        table = file.read(head[26])
        if head[5] & 2:  # the first page of a stream
            codec = _codec(file.read(16))
            if begins and found:
                found[-1].beside += 1
                found[-1].codec = found[-1].codec or codec
            else:
                found.append(_OpenLink(position, codec))
            begins = True
        elif found:
            begins = False
            granule = int.from_bytes(head[6:14], "little", signed=True)
            if granule >= 0:  # negative on a page without the end of a packet
                found[-1].granules.append(granule)
        position += 27 + len(table) + sum(table)
    ends = [other.start for _, other in pairwise(found)]
    return [link.closed(end) for link, end in zip(found, [*ends, size], strict=False)]


def _codec(data: bytes) -> str:
    for mark, name in _CODECS.items():
        if data.startswith(mark):
            return name
    return ""


def _next_page(file: BinaryIO, position: int, size: int) -> int | None:
    """Return the position of the next page after damage; None at the end."""
    while position < size:
        file.seek(position)
        data = file.read(_MOST_JUNK)
        found = data.find(b"OggS", 1)
        if found > 0:
            return position + found
        if len(data) < _MOST_JUNK:
            return None
        position += len(data) - 4
    return None
