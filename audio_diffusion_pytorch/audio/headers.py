"""Repair headers with missing or wrong sizes, so that libsndfile reads all of the sound.

Recorders that lose power, pipes and segmenting encoders leave placeholders for sizes; other
programs count wrongly. The sound still extends to the end of the file. A repaired header precedes
the sound in memory; the file itself is unchanged.
"""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

_MOST_CHUNKS = 10000
_LARGE = 0xFFFFFFFF - 4096  # bytes of sound above which a WAV file becomes RF64
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_PLACEHOLDERS = (1 << 31, 1 << 32, 1 << 63, 1 << 64)


@dataclass(frozen=True)
class Mended:
    """Repaired file: `head`, then the bytes from `offset` to `end` of the file.

    Args:
        head: first bytes of the repaired file.
        offset: position in the file of the first byte after `head`.
        end: position in the file of the end.
        problem: sentence about the damage, without the name of the file; empty for placeholders.
    """

    head: bytes
    offset: int
    end: int
    problem: str = ""


class Spliced(io.RawIOBase):
    """Open a repaired file for reading.

    Args:
        path: file.
        mended: repaired header, and the part of the file that follows the header.
    """

    def __init__(self, path: str | Path, mended: Mended):
        self._file = open(path, "rb")  # noqa: SIM115
        self._mended = mended
        self._position = 0
        self._size = len(mended.head) + mended.end - mended.offset

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position, and return the new position in bytes."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def readinto(self, buffer) -> int:
        """Fill the start of `buffer`, and return the number of bytes read; 0 at the end."""
        view = memoryview(buffer).cast("B")
        head = self._mended.head
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
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


def mend(path: str | Path) -> Mended | None:
    """Repair the header of a file.

    Args:
        path: file of any content.

    Returns:
        The repaired file; None for a valid header, an unknown format and damage beyond repair.
        Damage that libsndfile tolerates is repaired too, so that the result names it.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(24)
        repair = _repair_of(head)
        return None if repair is None else repair(file, size)


def _repair_of(head: bytes) -> Callable[[BinaryIO, int], Mended | None] | None:
    """Return the repair function of the format that starts with `head`."""
    mark, kind = head[:4], head[8:12]
    if mark in (b"RIFF", b"RF64", b"BW64") and kind == b"WAVE":
        return _wav
    if mark == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return _aiff
    if mark in (b".snd", b"dns."):
        return _au
    if head[:16] == _W64:
        return _w64
    return _caf if mark == b"caff" else None


def _is_placeholder(size: int) -> bool:
    """Check whether writers use a size for unfinished files: 0, or just below a power of two."""
    return size == 0 or any(0 <= largest - size <= 1 << 16 for largest in _PLACEHOLDERS)


def _is_name(data: bytes) -> bool:
    """Check whether four bytes can be the name of a chunk."""
    return len(data) == 4 and all(32 <= byte < 127 for byte in data) and not data.startswith(b" ")


def _wrong_size(declared: int, present: int) -> str:
    return (
        f"its header declares {declared} bytes of sound, but the file holds {present}; "
        "these are read"
    )


def _read_at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


@dataclass(frozen=True)
class _Layout:
    """Chunk layout of a file format.

    Args:
        first: position of the first chunk.
        head: bytes of the head of a chunk, which ends with the size field.
        width: bytes of the size field.
        order: byte order of the size field.
        pad: chunks are padded to a multiple of this number of bytes.
        sound: name of the chunk that holds the sound.
        prefix: bytes of this chunk before the sound.
        signed: whether the size field is signed.
        counts_head: whether the size of a chunk includes the head.
    """

    first: int
    head: int
    width: int
    order: Literal["big", "little"]
    pad: int
    sound: bytes
    prefix: int = 0
    signed: bool = False
    counts_head: bool = False


_WAV_LAYOUT = _Layout(12, 8, 4, "little", pad=2, sound=b"data")
_AIFF_LAYOUT = _Layout(12, 8, 4, "big", pad=2, sound=b"SSND", prefix=8)
_W64_LAYOUT = _Layout(40, 24, 8, "little", pad=8, sound=b"data", counts_head=True)
_CAF_LAYOUT = _Layout(8, 12, 8, "big", pad=1, sound=b"data", prefix=4, signed=True)


@dataclass(frozen=True)
class _Chunk:
    """Chunk of a file: name, position, position of the content, declared length of the content."""

    name: bytes
    position: int
    content: int
    length: int


def _chunks(file: BinaryIO, size: int, layout: _Layout) -> Iterator[_Chunk]:
    """Yield the chunks up to the chunk of the sound; end early if the file has no such chunk."""
    position = layout.first
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            return
        head = _read_at(file, position, layout.head)
        if len(head) < layout.head:
            return
        length = int.from_bytes(head[-layout.width :], layout.order, signed=layout.signed)
        length -= layout.head if layout.counts_head else 0
        chunk = _Chunk(head[:4], position, position + layout.head, length)
        yield chunk
        if chunk.name == layout.sound:
            return
        position = chunk.content + max(0, length)
        if length % layout.pad and not (layout is _WAV_LAYOUT and _lacks_pad(file, position)):
            position += -length % layout.pad


def _lacks_pad(file: BinaryIO, position: int) -> bool:
    """Check whether the next chunk follows an odd chunk at once: some writers forget the pad."""
    around = _read_at(file, position, 5)
    return _is_name(around[:4]) and not _is_name(around[1:])


def _wav(file: BinaryIO, size: int) -> Mended | None:
    chunk = None
    form, large = b"", 0
    padded = True
    for chunk in _chunks(file, size, _WAV_LAYOUT):
        padded = padded and chunk.position % 2 == 0
        if chunk.name == b"ds64":  # 64-bit sizes of the file and the sound
            large = int.from_bytes(_read_at(file, chunk.content + 8, 8), "little")
        elif chunk.name == b"fmt ":
            form = _read_at(file, chunk.position, 8 + min(chunk.length, 1 << 16))
    if chunk is None or chunk.name != b"data" or not form:
        return None
    start, declared = chunk.content, chunk.length
    present = size - start
    if declared == 0xFFFFFFFF and large not in (0, 0xFFFFFFFFFFFFFFFF):
        declared = large
    if present <= 0:
        return None
    if _is_placeholder(declared) and (declared > present or _is_open_end(file, chunk, size)):
        problem = ""
    elif declared > present:
        problem = _wrong_size(declared, present)
    elif padded:
        return None
    else:
        problem = ""
        present = declared
    frame = max(1, int.from_bytes(form[20:22], "little"))
    if int.from_bytes(form[8:10], "little") in (1, 3, 0xFFFE):  # PCM, float, extensible
        present -= present % frame
    return Mended(_wav_head(form, present, frame), start, start + present, problem)


def _is_open_end(file: BinaryIO, chunk: _Chunk, size: int) -> bool:
    """Check whether sound follows the head of a chunk of size 0, instead of another chunk."""
    if chunk.length != 0:
        return False
    head = _read_at(file, chunk.content, 8)
    length = int.from_bytes(head[4:], "little")
    return not (_is_name(head[:4]) and chunk.content + 8 + length <= size)


def _wav_head(form: bytes, length: int, frame: int) -> bytes:
    """Return the header of a WAV file, RF64 for long sounds.

    Args:
        form: `fmt ` chunk with its head.
        length: bytes of the sound.
        frame: bytes of a frame.
    """
    form += b"\0" * (len(form) % 2)
    if length <= _LARGE:
        total = 4 + len(form) + 8 + length + length % 2
        sizes = total.to_bytes(4, "little"), length.to_bytes(4, "little")
        return b"RIFF" + sizes[0] + b"WAVE" + form + b"data" + sizes[1]
    numbers = (length + len(form) + 64, length, length // frame)
    content = b"".join(number.to_bytes(8, "little") for number in numbers) + bytes(4)
    sizes64 = b"ds64" + len(content).to_bytes(4, "little") + content
    return b"RF64" + b"\xff" * 4 + b"WAVE" + sizes64 + form + b"data" + b"\xff" * 4


def _aiff(file: BinaryIO, size: int) -> Mended | None:
    chunk, common = None, None
    for chunk in _chunks(file, size, _AIFF_LAYOUT):
        if chunk.name == b"COMM":
            common = chunk.content
    if chunk is None or chunk.name != b"SSND" or common is None:
        return None
    start = chunk.content + _AIFF_LAYOUT.prefix
    declared, present = chunk.length - _AIFF_LAYOUT.prefix, size - start
    head = bytearray(_read_at(file, 0, start))
    channels = int.from_bytes(head[common : common + 2], "big")
    frames = int.from_bytes(head[common + 2 : common + 6], "big")
    bits = int.from_bytes(head[common + 6 : common + 8], "big")
    frame = channels * -(-bits // 8)
    if present <= 0 or frame <= 0:
        return None
    unknown = declared < 0 or (declared > present and _is_placeholder(chunk.length))
    if not unknown and declared <= present and (frames or declared < frame):
        return None
    problem = "" if unknown or declared <= present else _wrong_size(declared, present)
    present = present if unknown else min(present, declared)
    present -= present % frame
    head[common + 2 : common + 6] = (present // frame).to_bytes(4, "big")
    head[chunk.content - 4 : chunk.content] = (present + 8).to_bytes(4, "big")
    head[4:8] = min(len(head) + present - 8, 0xFFFFFFFF).to_bytes(4, "big")
    return Mended(bytes(head), start, start + present, problem)


def _au(file: BinaryIO, size: int) -> Mended | None:
    head = _read_at(file, 0, 24)
    order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
    start = int.from_bytes(head[4:8], order)
    declared, present = int.from_bytes(head[8:12], order), size - start
    if present <= 0 or 0 < declared <= present or start < 24:
        return None
    problem = "" if _is_placeholder(declared) else _wrong_size(declared, present)
    repaired = head[:8] + present.to_bytes(4, order) + head[12:] + bytes(start - 24)
    return Mended(repaired, start, size, problem)


def _w64(file: BinaryIO, size: int) -> Mended | None:
    return _to_the_end(file, size, _W64_LAYOUT)


def _caf(file: BinaryIO, size: int) -> Mended | None:
    return _to_the_end(file, size, _CAF_LAYOUT)


def _to_the_end(file: BinaryIO, size: int, layout: _Layout) -> Mended | None:
    """Extend the sound to the end of a W64 or CAF file."""
    chunks = list(_chunks(file, size, layout))
    if not chunks or chunks[-1].name != layout.sound:
        return None
    chunk = chunks[-1]
    start = chunk.content + layout.prefix
    declared, present = chunk.length - layout.prefix, size - start
    if present <= 0 or 0 < declared <= present:
        return None
    head = bytearray(_read_at(file, 0, start))
    counted = layout.prefix + present
    if layout.counts_head:  # W64, whose header also holds the size of the file
        counted += layout.head
        head[16:24] = size.to_bytes(8, "little")
    head[chunk.content - layout.width : chunk.content] = counted.to_bytes(
        layout.width, layout.order
    )
    unknown = declared <= 0 or _is_placeholder(chunk.length)
    problem = "" if unknown else _wrong_size(declared, present)
    return Mended(bytes(head), start, size, problem)
