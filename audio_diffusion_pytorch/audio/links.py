"""Ogg: a file may hold several streams one after the other, of which each is a recording of its own."""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

_MOST_JUNK = 1 << 16


@dataclass(frozen=True)
class Link:
    """One stream.

    Args:
        start, end: its bytes in the file.
        codec: empty where libsndfile does not read it.
        beside: how many streams lie beside it (a film's picture).
        tail: frame at which its last two pages begin.
    """

    start: int
    end: int
    codec: str
    beside: int
    tail: int


def links_of(file: BinaryIO, size: int) -> list[Link]:
    """The streams of an Ogg file in their order."""
    found: list[list] = []
    position, begins = 0, False
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
        body = sum(table)
        if head[5] & 2:  # the first page of a stream
            codec = _codec(file.read(16))
            if begins and found:
                found[-1][3] += 1
                found[-1][2] = found[-1][2] or codec
            else:
                found.append([position, size, codec, 0, deque(maxlen=3)])
            begins = True
        elif found:
            begins = False
            granule = int.from_bytes(head[6:14], "little", signed=True)
            if granule >= 0:  # a page on which no packet ends has none
                found[-1][4].append(granule)
        position += 27 + len(table) + body
    for one, other in pairwise(found):
        one[1] = other[0]
    return [Link(*entry, marks[0] if len(marks) == 3 else 0) for *entry, marks in found]


def _codec(data: bytes) -> str:
    for mark, name in ((b"\x01vorbis", "vorbis"), (b"OpusHead", "opus"), (b"\x7fFLAC", "flac")):
        if data.startswith(mark):
            return name
    return ""


def _next_page(file: BinaryIO, position: int, size: int) -> int | None:
    """Where the next page begins behind damage."""
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
