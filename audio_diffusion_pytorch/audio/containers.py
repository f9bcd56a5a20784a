"""Decode containers with FFmpeg's libraries (PyAV): m4a, Opus, WMA, WebM, the sound of videos ...

`index_of` lists the packets of a file once. For codecs of known packet length, the list gives the
length of the sound; for other codecs, `index_of` decodes the whole file. The encoder's delay and
padding are cut if the container declares them.
"""

import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import AudioInfo
from audio_diffusion_pytorch.audio.packets import EVEN, KNOWN, Container, decoded, read_tags
from audio_diffusion_pytorch.audio.sections import Sections, fitted
from audio_diffusion_pytorch.errors import InputError

_SECTION_SECONDS = 6.0
# Decoded before each section, so that the decoder reaches its state; SBR sends data intermittently.
_LEAD_SECONDS = 0.6
_SLACK = 0.25  # seconds by which the length in an MP4 index may exceed the sound
_PROBED = 4  # first packets, decoded to measure the rate, the channels and the packet length


@dataclass(frozen=True)
class Part:
    """Section of a recording.

    Args:
        lead: first packet to decode; packets before `first` only prepare the decoder.
        first: first packet of the section.
        last: end of the section, exclusive.
        skip: frames to cut from the start.
        frames: length of the section after this cut.
        mark: decoding time and checksum of packet `lead`, for seeking; None: not seekable.
    """

    lead: int
    first: int
    last: int
    skip: int
    frames: int
    mark: tuple[int, int] | None


@dataclass(frozen=True)
class Index:
    """Packets and sections of a file, as `index_of` finds them.

    Args:
        info: exact length, rate and channels.
        counts: frames of each packet.
        parts: sections.
        problems: harmless damage, in sentences without the name of the file.
    """

    info: AudioInfo
    counts: tuple[int, ...]
    parts: tuple[Part, ...]
    problems: tuple[str, ...]


def _mark(packet: Any) -> tuple[int | None, int]:
    return packet.dts, zlib.crc32(packet)


def _opus_frames(data: bytes) -> int:
    """Return the frames at 48 kHz of an Opus packet (RFC 6716, section 3.1)."""
    config, code = data[0] >> 3, data[0] & 3
    if config < 12:
        size = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        size = (480, 960)[config & 1]
    else:
        size = (120, 240, 480, 960)[config & 3]
    if code < 3:
        return size * (1, 2, 2)[code]
    return size * (data[1] & 63) if len(data) > 1 else 0


def index_of(file: BinaryIO) -> Index | None:
    """Find the packets of a file.

    Args:
        file: open file.

    Returns:
        The index; None for an MP3 file.

    Raises:
        NotAudio: the file holds no sound.
        InputError: FFmpeg cannot read the file, or the sample rate changes within the file.
    """
    container = Container(file)
    try:
        if container.container.format.name == "mp3":
            return None
        return _Scan(container).index()
    finally:
        container.close()


class _Scan:
    """Read the packets of a sound track once."""

    def __init__(self, container: Container):
        self.container = container
        self.decoder = container.decoder()
        self.name = container.stream.codec_context.codec.name
        self.counts: list[int] = []
        self.marks: list[tuple[int | None, int]] = []
        self.size = self.rate = self.channels = 0
        self.skip = self.drop = self.discarded = 0

    def index(self) -> Index:
        last = None
        for number, packet in enumerate(self.container.packets()):
            measured = None
            if number < _PROBED or not self._known():
                measured = self._measure(packet)
            self.counts.append(self._count(packet, measured))
            self.marks.append(_mark(packet))
            self._ends(packet, number)
            last = packet
        if not self._known():
            self.counts.append(len(decoded(self.decoder, None)[0]))
            self.marks.append((None, 0))
        if not self.rate or not self.counts:
            raise InputError("its sound cannot be decoded (damaged, or of an unsupported codec)")
        if self.name in EVEN:
            self._even_out(last)
        parts = self._parts()
        frames = sum(part.frames for part in parts)
        info = AudioInfo(frames, self.rate, self.channels, self._subtype())
        problems = [*self._tracks(), *self._cut(info.seconds)]
        return Index(info, tuple(self.counts), tuple(parts), tuple(problems))

    def _even_out(self, last: Any) -> None:
        """Set all packets to one length; the duration of the last packet gives the padding."""
        self.counts = [self.size] * len(self.counts)
        self.skip = max(self.skip, self.discarded * self.size)
        frames = float((last.duration or 0) * last.time_base * self.rate)
        whole = round(frames)
        if 0 < whole < self.size and abs(frames - whole) < 1e-3 and not self.drop:
            self.drop = self.size - whole

    def _subtype(self) -> str:
        bits = getattr(self.container.stream.codec_context.format, "bits", 16)
        subtype = self.name.removesuffix("float").upper()
        if subtype in ("ALAC", "FLAC") or subtype.startswith("PCM"):
            return "PCM_24" if bits > 16 else "PCM_16"
        return subtype

    def _tracks(self) -> Iterator[str]:
        if self.container.several > 1:
            yield f"it holds {self.container.several} sound tracks: the main one is read"

    def _cut(self, seconds: float) -> Iterator[str]:
        """Check whether the index of an MP4 file, which is exact, declares more sound."""
        stream = self.container.stream
        if "mp4" not in self.container.container.format.name or not stream.duration:
            return
        declared = float(stream.duration * stream.time_base)
        if declared >= seconds + _SLACK:
            yield f"it was cut off: it holds {seconds:.1f} s of {declared:.1f} s; these are read"

    def _known(self) -> bool:
        """Check whether the length of a packet follows without decoding."""
        return self.name in KNOWN and self.size > 0

    def _measure(self, packet: Any) -> int:
        wav, rate = decoded(self.decoder, packet)
        if rate and self.rate and rate != self.rate and not self._known():
            raise _rate_changes(self.rate, rate)
        if rate:
            self.rate, self.size = rate, max(self.size, len(wav))
            self.channels = max(self.channels, wav.shape[1])
        return len(wav)

    def _count(self, packet: Any, measured: int | None) -> int:
        if self.name == "opus":
            return _opus_frames(bytes(packet))
        return self.size if measured is None else measured

    def _ends(self, packet: Any, number: int) -> None:
        """Store the delay and the padding that the container declares."""
        if self.name in KNOWN and packet.has_sidedata("skip_samples"):
            data = bytes(packet.get_sidedata("skip_samples"))
            skip, drop = (int.from_bytes(data[place : place + 4], "little") for place in (0, 4))
            self.skip += skip if number < 8 else 0
            self.drop = drop
        self.discarded += bool(packet.is_discard and self.discarded == number)

    def _parts(self) -> list[Part]:
        """Divide the packets into sections of a few seconds."""
        starts = [0, *accumulate(self.counts)]
        end = max(self.skip, starts[-1] - self.drop)
        times = [time for time, _ in self.marks if time is not None]
        ordered = all(a < b for a, b in pairwise(times))
        firsts, parts = [0], []
        for number, start in enumerate(starts[:-1]):
            if start - starts[firsts[-1]] >= _SECTION_SECONDS * self.rate:
                firsts.append(number)
        for first, last in zip(firsts, [*firsts[1:], len(self.counts)], strict=True):
            lead = max(0, bisect_right(starts, starts[first] - _LEAD_SECONDS * self.rate) - 1)
            begin = max(starts[first], self.skip)
            frames = max(0, min(starts[last], end) - begin)
            time, checksum = self.marks[lead]
            mark = (time, checksum) if ordered and time is not None else None
            parts.append(Part(lead, first, last, begin - starts[first], frames, mark))
        return parts


def _rate_changes(before: int, after: int) -> InputError:
    return InputError(
        f"its sample rate changes ({before} Hz to {after} Hz): split it, or convert it to one rate"
    )


class ContainerSource(Sections):
    """Decode the main sound track of a file.

    Args:
        file: open file; `close` closes it.
        index: index of the file.
    """

    def __init__(self, file: BinaryIO, index: Index):
        super().__init__([part.frames for part in index.parts])
        self.file, self.index = file, index
        self.info, self.problems = index.info, index.problems
        self.container = Container(file)
        self._restart()

    def decode(self, number: int) -> np.ndarray:
        """Return the frames [n, C] float32 of a section.

        Raises:
            InputError: the sample rate changes within the section.
        """
        part, counts, channels = self.index.parts[number], self.index.counts, self.info.channels
        decoder = self.container.decoder()
        pieces = [np.zeros((0, channels), np.float32)]
        for place, packet in self._packets(part):
            wav, rate = decoded(decoder, packet)
            if place < part.first:
                continue
            if rate not in (0, self.info.sample_rate):
                if place >= _PROBED:
                    raise _rate_changes(self.info.sample_rate, rate)
                wav = wav[:0]  # some decoders start at a wrong rate
            pieces.append(fitted(wav, counts[place], channels))
        if number == len(self.index.parts) - 1:  # unreadable packets become silence
            pieces.append(fitted(decoded(decoder, None)[0], part.skip + part.frames, channels))
        return fitted(np.concatenate(pieces)[part.skip :], part.frames, channels)

    def _packets(self, part: Part) -> Iterator[tuple[int, Any]]:
        """Yield packets `lead` to `last` with their numbers; consecutive sections share packets."""
        if not self._recent or not self._recent[0][0] <= part.lead <= self._next:
            self._seek(part)
        kept = [entry for entry in self._recent if part.lead <= entry[0] < part.last]
        yield from kept
        for packet in self._stream:
            self._recent.append((self._next, packet))
            self._next += 1
            if self._next > part.lead:
                yield self._recent[-1]
            if self._next >= part.last:
                break

    def _seek(self, part: Part) -> None:
        """Move to packet `lead`, or to an earlier packet."""
        import av

        if part.lead and part.mark is not None:
            self._forget()
            try:
                self.container.container.seek(part.mark[0], stream=self.container.stream)
            except av.FFmpegError:
                self._restart()
                return
            self._stream = self.container.packets()
            for packet in self._stream:
                if packet.dts is None or packet.dts > part.mark[0]:
                    break  # packet `lead` is missing
                if _mark(packet) == part.mark:
                    self._recent.append((part.lead, packet))
                    self._next = part.lead + 1
                    return
        self._restart()

    def _forget(self) -> None:
        # Enough packets to prepare the decoder of the next section.
        size = 1 + max(part.first - part.lead for part in self.index.parts)
        self._recent: deque[tuple[int, Any]] = deque(maxlen=size)

    def _restart(self) -> None:
        self.container.close()
        self.container = Container(self.file)
        self._forget()
        self._next = 0
        self._stream = self.container.packets()

    def tags(self) -> dict[str, str]:
        """Return title, artist, album and other texts."""
        return read_tags(self.container)

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        self.file.close()
