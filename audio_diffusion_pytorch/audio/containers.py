"""What FFmpeg's libraries (PyAV) read: AAC and ALAC in m4a, Opus, WMA, WebM, the sound of videos ...

The packets are listed once without decoding them where a codec makes them equally long; else everything is decoded once
to learn the length. The encoder's delay and padding, where the container tells them, are left out.
"""

import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import AudioInfo
from audio_diffusion_pytorch.audio.packets import EVEN, KNOWN, Container, decoded, read_tags
from audio_diffusion_pytorch.audio.sections import Sections, fitted
from audio_diffusion_pytorch.errors import InputError

_SECTION_SECONDS = 6.0  # decoded as one
_LEAD_SECONDS = 0.6  # decoded before each section: decoders find their state, also what comes only now and then (SBR)
_SLACK = 0.25  # s by which an index may differ from the sound
_PROBED = 4  # packets that tell rate, channels and length of a packet


@dataclass(frozen=True)
class Part:
    """A section: packets `lead` to `first` prepare the decoder, `first` to `last` are its sound."""

    lead: int
    first: int
    last: int
    skip: int
    frames: int
    mark: (
        tuple[int, int] | None
    )  # decoding time and checksum of packet `lead`, where it can be looked for by them


@dataclass(frozen=True)
class Index:
    """What reading needs to know of a file; kept, so that its packets are listed once."""

    info: AudioInfo
    counts: tuple[
        int, ...
    ]  # frames of each packet where they are known without decoding; else empty
    parts: tuple[Part, ...]
    problems: tuple[str, ...]


def _mark(packet: Any) -> tuple[int | None, int]:
    return packet.dts, zlib.crc32(packet)


def _opus_frames(data: bytes) -> int:
    """Frames at 48 kHz of an Opus packet (RFC 6716, section 3.1)."""
    config, code = data[0] >> 3, data[0] & 3
    if config < 12:
        size = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        size = (480, 960)[config & 1]
    else:
        size = (120, 240, 480, 960)[config & 3]
    return size * ((1, 2, 2)[code] if code < 3 else (data[1] & 63 if len(data) > 1 else 0))


def index_of(file: BinaryIO) -> Index | None:
    """What is in a file; None: it is an MP3.

    Raises:
        NotAudio: there is no sound in it.
        InputError: it cannot be read, or its sample rate changes on the way.
    """
    container = Container(file)
    try:
        if container.container.format.name == "mp3":
            return None
        return _Scan(container).index()
    finally:
        container.close()


class _Scan:
    """Lists the packets of a sound track."""

    def __init__(self, container: Container):
        self.container, self.decoder = container, container.decoder()
        self.name = container.stream.codec_context.codec.name
        self.counts: list[int] = []
        self.marks: list[tuple[int | None, int]] = []
        self.size = self.rate = self.channels = self.skip = self.drop = self.discarded = 0
        self.format = ""

    def index(self) -> Index:
        duration, time_base = 0, 0
        for number, packet in enumerate(self.container.packets()):
            measured = None
            if number < _PROBED or not self._known():
                measured = self._measure(packet)
            self.counts.append(self._count(packet, measured))
            self.marks.append(_mark(packet))
            self._ends(packet, number)
            duration, time_base = packet.duration or 0, packet.time_base
        if not self._known():
            self.counts.append(len(decoded(self.decoder, None)[0]))
            self.marks.append((None, 0))
        if not self.rate or not self.counts:
            raise InputError("its sound cannot be decoded (damaged, or a codec that is not read)")
        if self.name in EVEN:
            self.counts = [self.size] * len(self.counts)
            last = float(duration * time_base * self.rate)
            if 0 < round(last) < self.size and abs(last - round(last)) < 1e-3 and not self.drop:
                self.drop = self.size - round(last)  # what the container tells of the last packet
        skip = max(self.skip, self.discarded * self.size if self.name in EVEN else 0)
        several = self.container.several
        problems: tuple[str, ...] = (
            (f"it holds {several} sound tracks: the main one is read",) if several > 1 else ()
        )
        parts = self._parts(skip)
        problems += self._cut(sum(part.frames for part in parts) / self.rate)
        bits = getattr(self.container.stream.codec_context.format, "bits", 16)
        subtype = self.name.removesuffix("float").upper()
        if subtype in ("ALAC", "FLAC") or subtype.startswith("PCM"):
            subtype = "PCM_24" if bits > 16 else "PCM_16"
        info = AudioInfo(sum(part.frames for part in parts), self.rate, self.channels, subtype)
        return Index(info, tuple(self.counts), tuple(parts), problems)

    def _cut(self, seconds: float) -> tuple[str, ...]:
        """Whether an MP4 file's index, which is exact, tells of more than there is."""
        stream = self.container.stream
        if "mp4" not in self.container.container.format.name or not stream.duration:
            return ()
        told = float(stream.duration * stream.time_base)
        if told < seconds + _SLACK:
            return ()
        return (f"it was cut off: {seconds:.1f} s of {told:.1f} s are there; these are read",)

    def _known(self) -> bool:
        """Whether the length of a packet is known without decoding it."""
        return self.name in KNOWN and self.size > 0

    def _measure(self, packet: Any) -> int:
        wav, rate = decoded(self.decoder, packet)
        if rate and self.rate and rate != self.rate and not self._known():
            raise InputError(
                f"its sample rate changes on the way ({self.rate} Hz to {rate} Hz): split it, or convert it to one rate"
            )
        if rate:
            self.rate, self.size = rate, max(self.size, len(wav))
            self.channels = max(self.channels, wav.shape[1])
        return len(wav)

    def _count(self, packet: Any, measured: int | None) -> int:
        if self.name == "opus":
            return _opus_frames(bytes(packet))
        return self.size if measured is None else measured

    def _ends(self, packet: Any, number: int) -> None:
        """Note what the container says is to be left out at both ends."""
        if self.name in KNOWN and packet.has_sidedata("skip_samples"):
            data = bytes(packet.get_sidedata("skip_samples"))
            skip, drop = (int.from_bytes(data[place : place + 4], "little") for place in (0, 4))
            self.skip += skip if number < 8 else 0
            self.drop = drop
        self.discarded += bool(packet.is_discard and self.discarded == number)

    def _parts(self, skip: int) -> list[Part]:
        """Sections that begin every few seconds."""
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        whole = max(skip, int(starts[-1]) - self.drop)
        times = [time for time, _ in self.marks if time is not None]
        ordered = all(a < b for a, b in pairwise(times))
        firsts, parts = [0], []
        for number, start in enumerate(starts[:-1]):
            if start - starts[firsts[-1]] >= _SECTION_SECONDS * self.rate:
                firsts.append(number)
        for first, last in zip(firsts, [*firsts[1:], len(self.counts)], strict=True):
            begin, end = max(int(starts[first]), skip), min(int(starts[last]), whole)
            lead = max(0, bisect_right(starts, starts[first] - _LEAD_SECONDS * self.rate) - 1)
            mark = self.marks[lead] if ordered and self.marks[lead][0] is not None else None
            parts.append(
                Part(lead, first, last, begin - int(starts[first]), max(0, end - begin), mark)
            )
        return parts


class ContainerSource(Sections):
    """Reads the sound track that an index describes.

    Args:
        file: open; closed with the source.
        index: of it.
    """

    def __init__(self, file: BinaryIO, index: Index):
        super().__init__([part.frames for part in index.parts])
        self.file, self.index, self.info, self.problems = file, index, index.info, index.problems
        self.container = Container(file)
        self._restart()

    def decode(self, number: int) -> np.ndarray:
        part, index = self.index.parts[number], self.index
        decoder, pieces = self.container.decoder(), []
        for place, packet in self._packets(part):
            wav, rate = decoded(decoder, packet)
            if place >= part.first:
                if rate not in (0, self.info.sample_rate):
                    if place >= _PROBED:
                        raise InputError(
                            f"its sample rate changes ({self.info.sample_rate} Hz to {rate} Hz): split it"
                        )
                    wav = wav[:0]  # a decoder that has not found out yet
                pieces.append(fitted(wav, index.counts[place], self.info.channels))
        if number == len(index.parts) - 1:  # a packet that cannot be read any more is silence
            pieces.append(
                fitted(decoded(decoder, None)[0], part.skip + part.frames, self.info.channels)
            )
        out = np.concatenate(pieces) if pieces else np.zeros((0, self.info.channels), np.float32)
        return fitted(out[part.skip :], part.frames, self.info.channels)

    def _packets(self, part: Part) -> Iterator[tuple[int, Any]]:
        """Packets `lead` to `last` with their numbers, some of them from memory where the reading goes on."""
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
        """Stand before packet `lead` or one before it."""
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
                    break  # past it
                if _mark(packet) == part.mark:
                    self._recent.append((part.lead, packet))
                    self._next = part.lead + 1
                    return
        self._restart()

    def _forget(self) -> None:
        # The packets that prepare the next section's decoder, and more.
        self._recent: deque[tuple[int, Any]] = deque(
            maxlen=1 + max(p.first - p.lead for p in self.index.parts)
        )

    def _restart(self) -> None:
        self.container.close()
        self.container = Container(self.file)
        self._forget()
        self._next, self._stream = 0, self.container.packets()

    def tags(self) -> dict[str, str]:
        return read_tags(self.container)

    def close(self) -> None:
        self.container.close()
        self.file.close()
