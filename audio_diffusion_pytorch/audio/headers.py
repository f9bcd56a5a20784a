"""Files whose header does not know their length, or not rightly: what libsndfile is given instead.

Recorders that lose power, pipes and segmenting encoders leave placeholders for the sizes; others count wrongly. The
sound goes on to the end of the file all the same. A mended header is put before it in memory; the file stays as it is.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_MOST_CHUNKS = 10000
_LARGE = 0xFFFFFFFF - 4096


@dataclass(frozen=True)
class Mended:
    """How to read a file: `head`, then its bytes from `offset` to `end`.

    Args:
        head: bytes that come first.
        offset, end: the part of the file that follows them.
        problem: what is wrong with it, without the file's name; empty where it is usual.
    """

    head: bytes
    offset: int
    end: int
    problem: str = ""


class Spliced(io.RawIOBase):
    """A mended file, to be read like any other."""

    def __init__(self, path: str | Path, mended: Mended):
        self._file, self._mended, self._position = open(path, "rb"), mended, 0  # noqa: SIM115
        self._size = len(mended.head) + mended.end - mended.offset

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer) -> int:
        view, head = memoryview(buffer).cast("B"), self._mended.head
        count = min(len(view), max(0, self._size - self._position))
        if count == 0:
            return 0
        if self._position < len(head):
            count = min(count, len(head) - self._position)
            view[:count] = head[self._position : self._position + count]
        else:
            self._file.seek(self._mended.offset + self._position - len(head))
            count = self._file.readinto(view[:count])
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def mend(path: str | Path) -> Mended | None:
    """How to read a file whose header is not in order; None: as it is.

    The problem is told even where libsndfile copes with the header itself.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _wav(file, head, size)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(file, size)
        if head[:4] in (b".snd", b"dns."):
            return _au(head, size)
        if head[:16] == bytes.fromhex("726966662e91cf11a5d628db04c10000"):
            return _w64(file, size)
        if head[:4] == b"caff":
            return _caf(file, size)
    return None


def _is_placeholder(told: int) -> bool:
    """Whether a size is what stands there as long as the true one is not known: none, or about the largest."""
    return told == 0 or any(
        0 <= largest - told <= 1 << 16 for largest in (1 << 31, 1 << 32, 1 << 63, 1 << 64)
    )


def _is_name(data: bytes) -> bool:
    """Whether four bytes can be the name of a chunk."""
    return len(data) == 4 and all(32 <= byte < 127 for byte in data) and not data.startswith(b" ")


def _short(told: int, there: int) -> str:
    return f"its header tells {told} bytes of sound, {there} are there; these are read"


def _wav(file, head: bytes, size: int) -> Mended | None:
    large, position, form, sane = 0, 12, b"", True
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            return None
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"ds64":
            large = int.from_bytes(file.read(16)[8:16], "little")
        if name == b"fmt ":
            form = chunk + file.read(min(length, 1 << 16))
        if name == b"data":
            break
        position += 8 + length
        if length % 2 and position < size:  # a pad byte follows, where it was not forgotten
            file.seek(position)
            around = file.read(5)
            if _is_name(around[:4]) and not _is_name(around[1:]):
                sane = False
            else:
                position += 1
    else:
        return None
    start, told = position + 8, length
    if told == 0xFFFFFFFF and large not in (0, 0xFFFFFFFFFFFFFFFF):
        told = large
    there = size - start
    if not form or there <= 0:
        return None
    unknown = _is_placeholder(told) and (
        told > there or (told == 0 and _goes_on(file, start, size))
    )
    if not unknown and told <= there:
        if sane:
            return None
        there = told
    problem = "" if unknown or told <= there else _short(told, there)
    align = max(1, int.from_bytes(form[20:22], "little"))
    if int.from_bytes(form[8:10], "little") in (1, 3, 0xFFFE):
        there -= there % align
    form += b"\0" * (len(form) % 2)
    if there > _LARGE:
        sizes = (there + len(form) + 64).to_bytes(8, "little") + there.to_bytes(8, "little")
        ds64 = (
            b"ds64"
            + (28).to_bytes(4, "little")
            + sizes
            + (there // align).to_bytes(8, "little")
            + bytes(4)
        )
        new = b"RF64" + b"\xff" * 4 + b"WAVE" + ds64 + form + b"data" + b"\xff" * 4
    else:
        total = 4 + len(form) + 8 + there + there % 2
        new = (
            b"RIFF"
            + total.to_bytes(4, "little")
            + b"WAVE"
            + form
            + b"data"
            + there.to_bytes(4, "little")
        )
    return Mended(new, start, start + there, problem)


def _goes_on(file, start: int, size: int) -> bool:
    """Whether sound, and no further chunk, follows a chunk of sound whose size is 0."""
    file.seek(start)
    head = file.read(8)
    length = int.from_bytes(head[4:], "little")
    return not (_is_name(head[:4]) and start + 8 + length <= size)


def _aiff(file, size: int) -> Mended | None:
    position, common = 12, None
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            return None
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, length = chunk[:4], int.from_bytes(chunk[4:], "big")
        if name == b"COMM":
            common = position + 8
        if name == b"SSND":
            break
        position += 8 + length + length % 2
    else:
        return None
    if common is None:
        return None
    start, told = position + 16, length - 8
    there = size - start
    unknown = length < 8 or (_is_placeholder(length) and told > there)
    file.seek(0)
    head = bytearray(file.read(start))
    channels, bits = (int.from_bytes(head[common + at : common + at + 2], "big") for at in (0, 6))
    frame = channels * -(-bits // 8)
    frames = int.from_bytes(head[common + 2 : common + 6], "big")
    if there <= 0 or frame <= 0 or (not unknown and told <= there and (frames or told < frame)):
        return None
    problem = "" if unknown or told <= there else _short(told, there)
    there = min(there, told) if not unknown else there
    there -= there % frame
    head[common + 2 : common + 6] = (there // frame).to_bytes(4, "big")
    head[position + 4 : position + 8] = (there + 8).to_bytes(4, "big")
    head[4:8] = min(len(head) + there - 8, 0xFFFFFFFF).to_bytes(4, "big")
    return Mended(bytes(head), start, start + there, problem)


def _au(head: bytes, size: int) -> Mended | None:
    order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
    start, told = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))
    there = size - start
    if there <= 0 or (told <= there and told != 0) or start < 24:
        return None
    problem = "" if _is_placeholder(told) else _short(told, there)
    return Mended(
        head[:8] + there.to_bytes(4, order) + head[12:24] + bytes(start - 24), start, size, problem
    )


def _w64(file, size: int) -> Mended | None:
    position = 40
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            return None
        file.seek(position)
        chunk = file.read(24)
        if len(chunk) < 24:
            return None
        length = int.from_bytes(chunk[16:], "little")
        if chunk[:4] == b"data":
            break
        position += max(24, length + -length % 8)
    else:
        return None
    start, there = position + 24, size - position - 24
    if there <= 0 or 24 < length <= there + 24:
        return None
    file.seek(0)
    head = bytearray(file.read(start))
    head[16:24] = size.to_bytes(8, "little")
    head[position + 16 : position + 24] = (there + 24).to_bytes(8, "little")
    unknown = length <= 24 or _is_placeholder(length)
    return Mended(bytes(head), start, size, "" if unknown else _short(length - 24, there))


def _caf(file, size: int) -> Mended | None:
    position = 8
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            return None
        file.seek(position)
        chunk = file.read(12)
        if len(chunk) < 12:
            return None
        length = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data":
            break
        position += 12 + max(0, length)
    else:
        return None
    start, there = position + 12, size - position - 12
    if there <= 4 or 4 < length <= there:
        return None
    file.seek(0)
    head = bytearray(file.read(start))
    head[position + 4 : position + 12] = there.to_bytes(8, "big")
    unknown = length <= 4 or _is_placeholder(length)
    return Mended(bytes(head), start, size, "" if unknown else _short(length - 4, there - 4))
