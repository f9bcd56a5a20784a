"""Find the frames of MP3 and MP2 files: the number of frames gives the length, not a header.

`walk` steps from frame header to frame header without decoding, over tags and damage. The header
frame of an encoder (Xing, Info, VBRI) holds no sound, but the length of the silence that the
encoder added around the sound; this silence is cut. Joined files have several header frames.
"""

from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from audio_diffusion_pytorch.errors import InputError

_DECODER_DELAY = 529  # samples
_KIND = 0b0001_1110_0000_1100  # bits of version, layer and rate in bytes 2 and 3 of a header
_CHUNK = 1 << 20
_CHAIN = 3  # consecutive frames that confirm the first of them
_SEARCH = 1 << 16  # bytes after the tags that are searched for the first frame
_ENCODERS = (b"LAME", b"Lavf", b"Lavc", b"L3.9")
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # by version and layer
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[2, 1] = _KBITS[2, 2]


@lru_cache(maxsize=1)
def frame_sizes() -> list[int]:
    """Return the size in bytes of a frame for bytes 2 and 3 of its header; 0: not a header."""
    sizes = [0] * 65536
    for word in range(0xE000, 0x10000):
        version, layer = word >> 11 & 3, word >> 9 & 3
        bits, rate, padding = word >> 4 & 15, word >> 2 & 3, word >> 1 & 1
        if version == 1 or layer == 0 or bits in (0, 15) or rate == 3:
            continue
        kbits = _KBITS[3 if version == 3 else 2, layer][bits - 1]
        hertz = _RATES[version][rate]
        if layer == 3:
            sizes[word] = (12000 * kbits // hertz + padding) * 4
        else:
            scale = 72000 if layer == 1 and version != 3 else 144000
            sizes[word] = scale * kbits // hertz + padding
    return sizes


def _kind(word: int) -> int:
    """Return the bits that all frames of a stream share: version, layer and rate."""
    return word & _KIND


def frame_samples(word: int) -> int:
    """Return the samples of a frame for bytes 2 and 3 of its header."""
    version, layer = word >> 11 & 3, word >> 9 & 3
    return {3: 384, 2: 1152, 1: 1152 if version == 3 else 576}[layer]


def frame_rate(word: int) -> int:
    """Return the sample rate in Hz for bytes 2 and 3 of a frame's header."""
    return _RATES[word >> 11 & 3][word >> 2 & 3]


@dataclass
class Segment:
    """Frames of one encoder.

    Args:
        first: first frame.
        last: end, exclusive.
        skip: samples to cut from the start.
        drop: samples to cut from the end.
        frames: number of frames that the encoder declares; None: not declared.
    """

    first: int
    last: int = 0
    skip: int = 0
    drop: int = 0
    frames: int | None = None


@dataclass
class Walk:
    """Frames of a file.

    Args:
        word: bytes 2 and 3 of the first frame's header.
        offsets: position in bytes of each frame.
        segments: frames by encoder.
        end: position of the end of the last frame.
        stereo: whether a frame has two channels.
        cut: whether the file ends within a frame.
    """

    word: int = 0
    offsets: array = field(default_factory=lambda: array("Q"))
    segments: list[Segment] = field(default_factory=list)
    end: int = 0
    stereo: bool = False
    cut: bool = False


class _Window:
    """Read bytes of a file at any position, buffered in large pieces."""

    def __init__(self, file: BinaryIO, size: int, chunk: int = _CHUNK):
        self.file, self.size, self.chunk = file, size, chunk
        self.start, self.data = 0, b""

    def at(self, position: int, length: int) -> tuple[bytes, int]:
        """Return a piece of the file and the index of `position` in the piece.

        The piece holds `length` bytes from `position`; fewer at the end of the file.
        """
        if not self.start <= position <= position + length <= self.start + len(self.data):
            self.file.seek(position)
            self.start, self.data = position, self.file.read(max(self.chunk, length))
        return self.data, position - self.start

    def bytes(self, position: int, length: int) -> bytes:
        data, index = self.at(position, length)
        return data[index : index + length]


def end_of_tags(file: BinaryIO, size: int) -> int:
    """Return the position of the end of the tags at the start of a file of `size` bytes."""
    return _skip_tags(_Window(file, size, 4096), 0, size)


def starts_as_mpeg(file: BinaryIO, size: int) -> bool:
    """Check whether MPEG audio frames follow the tags at the start of a file of `size` bytes."""
    window = _Window(file, size, 1 << 14)
    return _find_chain(window, _skip_tags(window, 0, size), size, limit=4096) is not None


def _skip_tags(window: _Window, position: int, end: int) -> int:
    """Return the position of the end of the tags that start at `position`."""
    while position < end:
        head = window.bytes(position, 32)
        if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
            length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            position += length + (20 if head[5] & 0x10 else 10)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            # A header counts the bytes after it, a footer the bytes before it.
            position += 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
        elif head[:3] == b"TAG" and position + 128 <= end:
            position += 128
        else:
            break
    return min(position, end)


def _without_tags(window: _Window, end: int) -> int:
    """Return the position of the start of the tags at the end of the file."""
    while True:
        if end >= 128 and window.bytes(end - 128, 3) == b"TAG":
            end -= 128
            continue
        foot = window.bytes(end - 32, 32) if end >= 32 else b""
        if foot[:8] != b"APETAGEX":
            return end
        size = int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
        if not 32 <= size <= end:
            return end
        end -= size


def _header(window: _Window, position: int) -> tuple[int, int]:
    """Return bytes 2 and 3 and the size of the frame at `position`; size 0: not a frame."""
    head = window.bytes(position, 4)
    if len(head) < 4 or head[0] != 255:
        return 0, 0
    word = head[1] << 8 | head[2]
    return word, frame_sizes()[word]


def _find_chain(window: _Window, position: int, end: int, limit: int = _SEARCH) -> int | None:
    """Return the next position of consecutive frames of one kind; None: none in `limit` bytes."""
    last = min(end, position + limit)
    while position < last:
        data, index = window.at(position, min(_CHUNK, last - position))
        found = data.find(b"\xff", index, index + last - position)
        if found < 0:
            return None
        position += found - index
        if _is_chain(window, position, end):
            return position
        position += 1
    return None


def _is_chain(window: _Window, position: int, end: int) -> bool:
    """Check whether frames of one kind start at `position`; `end` may interrupt the chain."""
    word, _ = _header(window, position)
    place = position
    for number in range(_CHAIN):
        other, length = _header(window, place)
        if not length or _kind(other) != _kind(word):
            return number > 0 and place >= end
        place += length
    return True


def walk(file: BinaryIO, size: int) -> Walk | None:
    """Find the frames of a file.

    Args:
        file: open MPEG audio file.
        size: length of the file in bytes.

    Returns:
        The frames; None for a file without frames.

    Raises:
        InputError: the sample rate changes within the file.
    """
    window = _Window(file, size)
    sizes = frame_sizes()
    end = _without_tags(window, size)
    position = _find_chain(window, _skip_tags(window, 0, size), end)
    if position is None:
        return None
    found = Walk(word=_header(window, position)[0], segments=[Segment(0)])
    kind = _kind(found.word)
    offsets = found.offsets
    while position + 4 <= end:
        data, index = window.at(position, 64)
        word = data[index + 1] << 8 | data[index + 2] if data[index] == 255 else 0
        length = sizes[word]
        if not length or word & _KIND != kind:
            position = _resume(window, position, end, found)
            continue
        if position + length > end:
            found.cut = True
            break
        mono = data[index + 3] >> 6 == 3
        mark = _mark(word, mono)
        name = data[index + mark : index + mark + 4]
        if name in (b"Xing", b"Info") or data[index + 36 : index + 40] == b"VBRI":
            _close(found, len(offsets))
            header = window.bytes(position, length)[mark:]
            found.segments.append(_encoder_header(header, len(offsets)))
        else:
            found.stereo = found.stereo or not mono
            offsets.append(position)
        position += length
    _close(found, len(offsets))
    found.segments = [segment for segment in found.segments if segment.last > segment.first]
    found.end = position
    return found if offsets else None


def _mark(word: int, mono: bool) -> int:
    """Return the position of an encoder's mark in its header frame: after the side information."""
    if word & 0x1800 == 0x1800:  # MPEG 1
        return 21 if mono else 36
    return 13 if mono else 21


def _resume(window: _Window, position: int, end: int, found: Walk) -> int:
    """Return the position of the next frame after tags or damage; `end` if no frame follows."""
    behind = _skip_tags(window, position, end)
    place = _find_chain(window, behind if behind > position else position + 1, end, limit=end)
    if place is None:
        return end
    word = _header(window, place)[0]
    if _kind(word) != _kind(found.word):
        before = frame_rate(found.word)
        seconds = len(found.offsets) * frame_samples(found.word) / before
        raise InputError(
            f"after {seconds:.1f} s its format changes ({before} Hz to {frame_rate(word)} Hz): "
            "it joins recordings of different formats; split it"
        )
    return place


def _encoder_header(data: bytes, first: int) -> Segment:
    """Parse the header frame of an encoder.

    Args:
        data: frame, from the encoder's mark.
        first: number of the next frame.
    """
    segment = Segment(first)
    if data[:4] == b"VBRI" or len(data) < 8:
        return segment
    flags = int.from_bytes(data[4:8], "big")
    place = 8
    if flags & 1:
        segment.frames = int.from_bytes(data[8:12], "big")
    place += sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    lame = data[place : place + 24]
    if len(lame) == 24 and lame[:4] in _ENCODERS:
        delays = int.from_bytes(lame[21:24], "big")
        delay, padding = delays >> 12, delays & 4095
        segment.skip = delay + _DECODER_DELAY
        segment.drop = max(0, padding - _DECODER_DELAY)
    return segment


def _close(found: Walk, count: int) -> None:
    """End the last segment at frame `count`; a truncated segment lacks the silence at its end."""
    segment = found.segments[-1]
    segment.last = count
    if segment.frames not in (None, count - segment.first):
        segment.drop = 0
    samples = (count - segment.first) * frame_samples(found.word)
    segment.skip = min(segment.skip, samples)
    segment.drop = min(segment.drop, samples - segment.skip)
