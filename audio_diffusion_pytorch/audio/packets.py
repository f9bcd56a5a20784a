"""Read sound tracks with FFmpeg's libraries (PyAV): packets, decoders and tags."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio.formats import NotAudio
from audio_diffusion_pytorch.errors import InputError

# Codecs whose decoder can be created anew for each section; decoders of other codecs are reset.
_RENEWED = ("aac", "alac", "opus", "vorbis", "flac", "amrnb", "amrwb", "mp3float", "mp3")
EVEN = ("aac", "alac", "amrnb", "amrwb")  # all packets but the last have one length
KNOWN = (*EVEN, "opus")  # the length of a packet follows without decoding
_MOST_PLANES = 8  # from 8 channels on, PyAV 16 to 18 reads past the end of a frame's channel list
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
    """Open file and its main sound track.

    Args:
        file: binary file, which stays open.

    Raises:
        NotAudio: the file holds no sound.
        InputError: FFmpeg cannot read the file.
    """

    def __init__(self, file: BinaryIO):
        import av

        # No protocol: FFmpeg must not open other files or addresses that a playlist or film names.
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
            video = "video" in kinds
            raise NotAudio(
                "it holds a picture or film without sound" if video else "it holds no sound"
            )
        readable = [track for track in tracks if track.codec_context is not None]
        if not readable:
            self.close()
            raise InputError("the codec of its sound is not supported")
        best = self.container.streams.best("audio")
        self.stream = best if best in readable else readable[0]
        self.several = len(tracks)

    def packets(self) -> Iterator[Any]:
        """Yield the packets of the sound track from the current position."""
        import av

        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:  # a truncated file
            return

    def decoder(self) -> Any:
        """Return a decoder in its initial state."""
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
            if given.codec.name in KNOWN:  # `Index` counts the encoder's delay and padding
                decoder.flags2 |= Flags2.skip_manual
        return decoder

    def close(self) -> None:
        """Close the container; the file stays open."""
        self.container.close()


def _refusal(file: BinaryIO) -> InputError:
    """Return an error that says why FFmpeg cannot read a file."""
    file.seek(0)
    head = file.read(4096)
    if head[4:8] == b"ftyp":
        return InputError("it is an MP4 file without its index; is it a truncated copy?")
    if b"\0" not in head and not head.startswith((b"OggS", b"ID3", b"\xff")):
        with suppress(UnicodeDecodeError):
            head[:-4].decode()  # the block may end within a letter
            return NotAudio("it is a text, not audio")
    return InputError("it is not audio, or damaged")


def decoded(decoder: Any, packet: Any) -> tuple[np.ndarray, int]:
    """Decode a packet.

    Args:
        decoder: decoder of the sound track.
        packet: packet; None flushes the decoder.

    Returns:
        The sound [n, C] float32 and its rate in Hz; [0, 1] and 0 for a damaged packet.
    """
    import av

    try:
        frames = decoder.decode(packet)
    except (av.FFmpegError, EOFError, MemoryError):
        frames = []
    if not frames:
        return np.zeros((0, 1), np.float32), 0
    return np.concatenate([samples_of(frame) for frame in frames]), frames[0].sample_rate


def samples_of(frame: Any) -> np.ndarray:
    """Return the sound [n, C] float32 of a decoded frame."""
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
    """Return title, artist, album and other texts of a file; {} if FFmpeg cannot read the file."""
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
    """Return title, artist, album and other texts of an open file."""
    found = {}
    for source in (container.stream.metadata, container.container.metadata):
        for key, value in source.items():
            name = key.lower().replace(" ", "")
            name = _OTHER_NAMES.get(name, name)
            if name in _TAGS and value:
                found[name] = value
    return found
