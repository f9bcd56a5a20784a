"""A file that FFmpeg's libraries (PyAV) open: its sound track, packets, decoders and tags."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import NotAudio
from audio_diffusion_pytorch.errors import InputError

# Codecs of which a new decoder needs no more than these; others are reset instead.
_RENEWED = ("aac", "alac", "opus", "vorbis", "flac", "amrnb", "amrwb", "mp3float", "mp3")
EVEN = ("aac", "alac", "amrnb", "amrwb")  # whose packets are of one length, but for the last
KNOWN = (*EVEN, "opus")  # of which the length of a packet is known without decoding it
_MOST_PLANES = 8  # from so many on PyAV reads beyond the end of a frame's list of channels (its versions 16 to 18)
_TAGS = (
    "title",
    "artist",
    "album",
    "date",
    "comment",
    "copyright",
    "genre",
    "tracknumber",
    "software",
    "license",
)
_OTHER_NAMES = {"track": "tracknumber", "year": "date", "description": "comment"}


class Container:
    """An open file and its sound track.

    Raises:
        NotAudio: there is none.
        InputError: FFmpeg does not read the file.
    """

    def __init__(self, file: BinaryIO):
        import av

        # No protocol: a playlist or a film that points elsewhere must not make anything be opened.
        options = {"protocol_whitelist": "none"}
        self.file = file
        file.seek(0)
        try:
            self.container = av.open(file, options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise _refusal(file) from error
        tracks = self.container.streams.audio
        if not tracks:
            kinds = {stream.type for stream in self.container.streams}
            self.close()
            raise NotAudio(
                "it holds a picture or film without sound"
                if "video" in kinds
                else "it holds no sound"
            )
        readable = [track for track in tracks if track.codec_context is not None]
        if not readable:
            self.close()
            raise InputError("its sound is in a codec that is not read")
        best = self.container.streams.best("audio")
        self.stream = best if best in readable else readable[0]
        self.several = len(tracks)

    def packets(self) -> Iterator[Any]:
        """The sound track's packets from where the file stands."""
        import av

        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:  # a file that was cut off
            return

    def decoder(self) -> Any:
        """A decoder in its first state."""
        import av
        from av.codec.context import Flags2

        given = self.stream.codec_context
        decoder = given
        if given.codec.name in _RENEWED:
            decoder = av.CodecContext.create(given.codec, "r")
            decoder.extradata = given.extradata
            if given.sample_rate:
                decoder.sample_rate = given.sample_rate
            if given.layout.nb_channels:
                decoder.layout = given.layout
        elif given.is_open:
            given.flush_buffers()
        if not decoder.is_open:
            decoder.thread_count = 1
            if given.codec.name in KNOWN:  # what is left out at the ends is counted here
                decoder.flags2 |= Flags2.skip_manual
        return decoder

    def close(self) -> None:
        self.container.close()


def _refusal(file: BinaryIO) -> InputError:
    """Why FFmpeg does not read a file."""
    file.seek(0)
    head = file.read(4096)
    if head[4:8] == b"ftyp":
        return InputError("it is an MP4 file without its index, as of a copy that was cut off")
    if b"\0" not in head and not head.startswith((b"OggS", b"ID3", b"\xff")):
        with suppress(UnicodeDecodeError):
            head[:-4].decode()  # the end may lie inside a letter
            return NotAudio("it is a text, no audio")
    return InputError("it is no audio, or damaged")


def decoded(decoder: Any, packet: Any) -> tuple[np.ndarray, int]:
    """The sound of a packet (None: what the decoder still holds), [n, C] float32, and its rate; none where damaged."""
    import av

    try:
        frames = decoder.decode(packet)
    except (av.FFmpegError, EOFError, MemoryError):
        frames = []
    pieces = [samples_of(frame) for frame in frames]
    return (np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)), frames[
        0
    ].sample_rate if frames else 0


def samples_of(frame: Any) -> np.ndarray:
    """A decoded frame's sound [n, C] float32."""
    if frame.format.is_planar and frame.layout.nb_channels >= _MOST_PLANES:
        import av

        (frame,) = av.AudioResampler(format="flt").resample(frame)
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype.kind == "f":
        return data.astype(np.float32, copy=False)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    return (data / float(1 << (8 * data.itemsize - 1))).astype(np.float32)


def tags_of(path: Any) -> dict[str, str]:
    """Title, artist ... of a file that FFmpeg reads; nothing where it does not."""
    with open(path, "rb") as file:
        try:
            container = Container(file)
        except InputError:
            return {}
        try:
            return read_tags(container)
        finally:
            container.close()


def read_tags(container: Container) -> dict[str, str]:
    found = {}
    for source in (container.stream.metadata, container.container.metadata):
        for key, value in source.items():
            name = key.lower().replace(" ", "")
            name = _OTHER_NAMES.get(name, name)
            if name in _TAGS and value:
                found[name] = value
    return found
