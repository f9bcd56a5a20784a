"""MP3 (and MP2): the frames that are there, not what a header says of them, make the length.

The file is walked from frame header to frame header, without decoding. Tags and damage between frames are stepped over.
An encoder's header frame (Xing, Info, VBRI) is no sound, and the silence that it tells of, which the encoder put around
the sound, is taken off; files that were joined have several.
"""

from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from audio_diffusion_pytorch.errors import InputError

_DECODER_DELAY = 529  # samples
_KIND = 0b0001_1110_0000_1100  # bits of version, layer and rate in the second and third byte of a header
_CHUNK = 1 << 20
_CHAIN = 3  # frames in a row without which nothing counts as a frame
_SEARCH = 1 << 16  # bytes after the tags in which the first frame lies
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[2, 1] = _KBITS[2, 2]


@lru_cache(maxsize=1)
def frame_sizes() -> list[int]:
    """Size in bytes of a frame by the second and third byte of its header; 0: no header."""
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
            sizes[word] = (
                72000 if layer == 1 and version != 3 else 144000
            ) * kbits // hertz + padding
    return sizes


def _kind(word: int) -> int:
    """What all frames of a stream share: version, layer and rate."""
    return word & _KIND


def frame_samples(word: int) -> int:
    version, layer = word >> 11 & 3, word >> 9 & 3
    return {3: 384, 2: 1152, 1: 1152 if version == 3 else 576}[layer]


def frame_rate(word: int) -> int:
    return _RATES[word >> 11 & 3][word >> 2 & 3]


@dataclass
class Segment:
    """Frames `first` to `last` of the file that one encoder wrote; samples to leave out at both ends."""

    first: int
    last: int = 0
    skip: int = 0
    drop: int = 0
    frames: int | None = None  # that its header tells


@dataclass
class Walk:
    """What is in a file: where its frames begin, which are of one piece, and its end."""

    word: int = 0  # of the first frame's header
    offsets: array = field(default_factory=lambda: array("Q"))
    segments: list[Segment] = field(default_factory=list)
    end: int = 0
    stereo: bool = False
    cut: bool = False  # in the middle of the last frame


class _Window:
    """Bytes of a file at any place, read in large pieces."""

    def __init__(self, file: BinaryIO, size: int, chunk: int = _CHUNK):
        self.file, self.size, self.chunk, self.start, self.data = file, size, chunk, 0, b""

    def at(self, position: int, length: int) -> tuple[bytes, int]:
        """A piece and where in it `position` lies; it holds `length` bytes from there unless the file ends."""
        if not self.start <= position <= position + length <= self.start + len(self.data):
            self.file.seek(position)
            self.start, self.data = position, self.file.read(max(self.chunk, length))
        return self.data, position - self.start

    def bytes(self, position: int, length: int) -> bytes:
        data, index = self.at(position, length)
        return data[index : index + length]


def end_of_tags(file: BinaryIO, size: int) -> int:
    """Where the tags at the file's beginning end."""
    return _skip_tags(_Window(file, size, 4096), 0, size)


def starts_as_mpeg(file: BinaryIO, size: int) -> bool:
    """Whether MPEG audio frames begin right behind the file's tags."""
    window = _Window(file, size, 1 << 14)
    return _find_chain(window, _skip_tags(window, 0, size), size, limit=4096) is not None


def _skip_tags(window: _Window, position: int, end: int) -> int:
    """Where tags that begin at `position` end."""
    while position < end:
        head = window.bytes(position, 32)
        if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
            length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            position += length + (20 if head[5] & 0x10 else 10)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            # A header counts what comes behind it, a footer what came before.
            position += 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
        elif head[:3] == b"TAG" and position + 128 <= end:
            position += 128
        else:
            break
    return min(position, end)


def _without_tags(window: _Window, end: int) -> int:
    """Where the tags at the file's end begin."""
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
    """(second and third byte, size) of the frame at `position`; size 0: there is none."""
    head = window.bytes(position, 4)
    if len(head) < 4 or head[0] != 255:
        return 0, 0
    word = head[1] << 8 | head[2]
    return word, frame_sizes()[word]


def _find_chain(window: _Window, position: int, end: int, limit: int = _SEARCH) -> int | None:
    """The next place from which frames of one kind follow each other; None: none within `limit` bytes."""
    last = min(end, position + limit)
    while position < last:
        data, index = window.at(position, min(_CHUNK, last - position))
        found = data.find(b"\xff", index, index + last - position)
        if found < 0:
            return None
        position += found - index
        word, size = _header(window, position)
        place = position
        for number in range(_CHAIN):
            other, length = _header(window, place)
            if not length or _kind(other) != _kind(word):
                # The file may end before the chain does, but not with a single frame in a file of several.
                if not (number and place >= end):
                    size = 0
                break
            place += length
        if size:
            return position
        position += 1
    return None


def walk(file: BinaryIO, size: int) -> Walk | None:
    """Find a file's frames; None: there are none.

    Raises:
        InputError: the sample rate changes on the way.
    """
    window, sizes = _Window(file, size), frame_sizes()
    end = _without_tags(window, size)
    position = _find_chain(window, _skip_tags(window, 0, size), end)
    if position is None:
        return None
    found = Walk(word=_header(window, position)[0], segments=[Segment(0)])
    kind, offsets, stereo = _kind(found.word), found.offsets, False
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
        mark = (
            index + (21 if mono else 36)
            if word & 0x1800 == 0x1800
            else index + (13 if mono else 21)
        )
        if data[mark : mark + 4] in (b"Xing", b"Info") or data[index + 36 : index + 40] == b"VBRI":
            _close(found, len(offsets))
            found.segments.append(
                _encoder_header(window.bytes(position, length)[mark - index :], len(offsets))
            )
        else:
            stereo = stereo or not mono
            offsets.append(position)
        position += length
    _close(found, len(offsets))
    found.segments = [segment for segment in found.segments if segment.last > segment.first]
    found.end, found.stereo = position, stereo
    return found if offsets else None


def _resume(window: _Window, position: int, end: int, found: Walk) -> int:
    """Where frames go on after tags or damage; the end where they do not."""
    behind = _skip_tags(window, position, end)
    place = _find_chain(window, behind if behind > position else position + 1, end, limit=end)
    if place is None:
        return end
    word = _header(window, place)[0]
    if _kind(word) != _kind(found.word):
        seconds = len(found.offsets) * frame_samples(found.word) / frame_rate(found.word)
        raise InputError(
            f"after {seconds:.1f} s its format changes ({frame_rate(found.word)} Hz to {frame_rate(word)} Hz): "
            "recordings of different kinds were joined; split it"
        )
    return place


def _encoder_header(data: bytes, first: int) -> Segment:
    """What an encoder's header frame, from its mark on, tells of the frames behind it."""
    segment = Segment(first)
    if data[:4] == b"VBRI" or len(data) < 8:
        return segment
    flags, place = int.from_bytes(data[4:8], "big"), 8
    if flags & 1:
        segment.frames = int.from_bytes(data[8:12], "big")
    place += sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    lame = data[place : place + 24]
    if len(lame) == 24 and lame[:4] in (b"LAME", b"Lavf", b"Lavc", b"L3.9"):
        delay, padding = (
            int.from_bytes(lame[21:24], "big") >> 12,
            int.from_bytes(lame[21:24], "big") & 4095,
        )
        segment.skip, segment.drop = delay + _DECODER_DELAY, max(0, padding - _DECODER_DELAY)
    return segment


def _close(found: Walk, count: int) -> None:
    """End the last segment at frame `count`; where frames are missing, so is the silence at their end."""
    segment = found.segments[-1]
    segment.last = count
    if segment.frames not in (None, count - segment.first):
        segment.drop = 0
    samples = (count - segment.first) * frame_samples(found.word)
    segment.skip = min(segment.skip, samples)
    segment.drop = min(segment.drop, samples - segment.skip)
