"""Write audio files, complete or not at all. Waveforms are [C, T] float32 in [-1, 1]."""

import errno
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio.dsp import Resampler
from audio_diffusion_pytorch.audio.formats import BLOCK, check_format, written_rate
from audio_diffusion_pytorch.audio.native import native_name
from audio_diffusion_pytorch.audio.reader import info
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

_LARGEST_WAV = 4_000_000_000  # bytes of sound; the header of a WAV file has 32-bit sizes
_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}  # per sample; other formats: 4
_LOSSY = {".ogg": "VORBIS", ".mp3": "MPEG_LAYER_III"}
# About 230 kbit/s for a full stereo mix.
_MP3_QUALITY = {"bitrate_mode": "VARIABLE", "compression_level": 0.1}
# Codec, container, samples per frame, bit/s per channel. Opus is here because libsndfile loses the
# last 6 ms of some Opus files.
_CODECS = {".m4a": ("aac", "ipod", 1024, 160_000), ".opus": ("libopus", "ogg", 960, 96_000)}
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_LONGEST_TAG = 10_000  # characters; libsndfile writes unreadable files for long texts and pictures


class _Encoder(Protocol):
    def tag(self, key: str, value: str) -> bool:
        """Set a text of the file; return False if the format cannot hold it."""
        ...

    def write(self, data: np.ndarray) -> None:
        """Encode frames [n, C] float32."""
        ...

    def close(self) -> None: ...


class _Native:
    """Encoder of the formats that libsndfile writes."""

    def __init__(
        self, path: Path, sample_rate: int, channels: int, subtype: str | None, frames: int
    ):
        extension = path.suffix.lower()
        file_format = extension[1:].upper()
        subtype = _subtype(extension, subtype)
        if file_format == "WAV" and frames * channels * _BYTES.get(subtype, 4) > _LARGEST_WAV:
            file_format = "RF64"
        options = _MP3_QUALITY if extension == ".mp3" else {}
        self._file = soundfile.SoundFile(
            native_name(path),
            "w",
            sample_rate,
            channels,
            subtype=subtype,
            format=file_format,
            **options,
        )

    def tag(self, key: str, value: str) -> bool:
        try:
            setattr(self._file, key, value)
            return True
        except (soundfile.LibsndfileError, RuntimeError, AttributeError, ValueError):
            return False

    def write(self, data: np.ndarray) -> None:
        try:
            self._file.write(data)
        except AssertionError as error:  # soundfile wrote fewer frames
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error

    def close(self) -> None:
        self._file.close()


class _Encoded:
    """Encoder of AAC in m4a and of Opus in Ogg, with FFmpeg's libraries."""

    def __init__(self, path: Path, sample_rate: int, channels: int):
        import av

        codec, file_format, self._size, rate = _CODECS[path.suffix.lower()]
        self._file = open(path, "wb")  # noqa: SIM115
        # The sound starts after the encoder's delay; m4a rounds the delay to milliseconds unless
        # the timescale is the sample rate.
        options = {"movie_timescale": str(sample_rate)} if file_format == "ipod" else {}
        self._container = av.open(self._file, "w", format=file_format, options=options)
        self._layout = _LAYOUTS[channels]
        self._sample_rate = sample_rate
        self._taken = 0
        self._stream = self._container.add_stream(codec, rate=sample_rate, layout=self._layout)
        # An AAC frame of 1024 samples holds at most 6144 bits per channel.
        self._stream.bit_rate = min(rate, 5 * sample_rate) * channels
        self._stream.codec_context.thread_count = 1
        self._fifo = av.AudioFifo()

    def tag(self, key: str, value: str) -> bool:
        for place in (self._container, self._stream):
            track = key == "tracknumber" and place is self._container
            place.metadata["track" if track else key] = value
        return True

    def write(self, data: np.ndarray) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(data.reshape(1, -1)), format="flt", layout=self._layout
        )
        frame.sample_rate = self._sample_rate
        frame.pts = self._taken  # with a time, the container declares the encoder's delay
        frame.time_base = Fraction(1, self._sample_rate)
        self._taken += len(data)
        self._fifo.write(frame)
        for piece in self._fifo.read_many(self._size):
            self._encode(piece)

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        try:
            rest = self._fifo.read(0, partial=True) if self._taken else None
            if rest is not None:
                self._encode(rest)
            self._encode(None)
            self._container.close()
        finally:
            self._file.close()


@contextmanager
def writing(
    path: str | Path,
    sample_rate: int,
    channels: int,
    subtype: str | None = None,
    tags: Mapping[str, str] | None = None,
    frames: int = 0,
    complete: Callable[[Path], None] | None = None,
) -> Iterator[Callable[[Tensor], None]]:
    """Write an audio file in blocks; the complete file appears under its name at the end.

    Args:
        path: file that ends in .wav, .flac, .ogg, .mp3, .m4a or .opus. Opus is resampled to 48 kHz.
        sample_rate: in Hz.
        channels: number of channels.
        subtype: name of the input's sample format (`PCM_24` ...), kept as far as the ending allows.
        tags: title, artist and other texts, see `AudioReader.tags`; unsupported ones are omitted
            with a warning.
        frames: expected number of frames, 0 if unknown: a .wav file above 4 GB is written as RF64.
        complete: callback with the complete file before it is renamed to `path`.

    Yields:
        A function that writes the next block [C, n].

    Raises:
        InputError: the ending is unknown or its format cannot hold the rate or the channels; the
            folder is not writable, or the disk is full.
    """
    path = Path(path)
    extension = path.suffix.lower()
    try:
        check_format(extension, sample_rate, channels)
    except InputError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    rate = written_rate(extension, sample_rate)
    if rate != sample_rate:
        warnings.warn(
            f"{extension} supports only {rate} Hz: {sample_rate} Hz are resampled", stacklevel=3
        )
    resample = Resampler(sample_rate, rate, channels)
    written = 0

    def write_block(wav: Tensor, last: bool = False) -> None:
        nonlocal written
        data = resample(wav.detach().cpu(), last).T.contiguous().numpy()
        for start in range(0, len(data), BLOCK):
            encoder.write(data[start : start + BLOCK])
        written += len(data)

    try:
        with atomic_write(path) as temporary:
            if extension in _CODECS:
                encoder: _Encoder = _Encoded(temporary, rate, channels)
            else:
                encoder = _Native(temporary, rate, channels, subtype, frames)
            try:
                _write_tags(encoder, path, tags or {})
                yield write_block
                if rate != sample_rate:
                    write_block(torch.zeros(channels, 0), last=True)
            finally:
                encoder.close()
            _check_length(temporary, written)
            if complete is not None:
                complete(temporary)
    except soundfile.LibsndfileError as error:  # not a full disk, which `atomic_write` reports
        raise InputError(f"cannot write {path}: {error.error_string}") from error


def write(path: str | Path, wav: Tensor, sample_rate: int, subtype: str | None = None) -> None:
    """Write wav [C, T] as an audio file, with the arguments and errors of `writing`."""
    with writing(path, sample_rate, wav.shape[0], subtype) as write_block:
        write_block(wav)


def _check_length(path: Path, frames: int) -> None:
    """Check the length of a complete file: a full disk at its end raises no error in the encoder.

    Raises:
        OSError: the file is shorter or longer.
    """
    extension = path.suffix.lower()
    tolerance = _CODECS[extension][2] if extension in _CODECS else 0
    if frames and abs(info(path).frames - frames) > tolerance:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_tags(encoder: _Encoder, path: Path, tags: Mapping[str, str]) -> None:
    left = []
    for key, value in tags.items():
        value = value.replace("\0", " ").strip()
        if not value:
            continue
        encodable = value.encode(errors="ignore").decode() == value
        if not encodable or len(value) > _LONGEST_TAG or not encoder.tag(key, value):
            left.append(key)
    if left:
        warnings.warn(f"{path}: cannot hold the input's {', '.join(left)}; omitted", stacklevel=4)


def _subtype(extension: str, wanted: str | None) -> str:
    """Return the sample format nearest to the wanted one."""
    if extension in _LOSSY:
        return _LOSSY[extension]
    wanted = (wanted or "").replace("ALAC_20", "PCM_24").replace("ALAC", "PCM")
    # A WAV file can hold an MP3's format too, so a check of the format alone is not enough.
    if not wanted.startswith(("PCM_", "FLOAT", "DOUBLE")):
        return "PCM_16"
    if soundfile.check_format(extension[1:], wanted):
        return wanted
    fine = wanted in ("PCM_32", "FLOAT", "DOUBLE")
    return "PCM_24" if extension == ".flac" and fine else "PCM_16"
