"""Decode formats of exact length with libsndfile: wav, flac, ogg vorbis, aiff, caf, w64, au ..."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from audio_diffusion_pytorch.audio.formats import BLOCK, AudioInfo
from audio_diffusion_pytorch.audio.headers import Mended, Spliced
from audio_diffusion_pytorch.errors import InputError

# Most frames per byte: a FLAC frame holds up to 65,535 in at least 10 bytes. Files of unknown
# length declare more.
_MOST_FRAMES = 6554
_CUT_OGG = re.compile(r"lacks an end-of-stream bit", re.MULTILINE)
_FLAC_HEAD = 42  # bytes of the mark and of the first block with its head
_SHORT_BLOCK = 256  # frames
_CUT = "it was cut off in the middle; the sound before the cut is read"


class _Sequential(soundfile.SoundFile):
    """File that reads without seeking; `soundfile` seeks after each read of a seekable file."""

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Index:
    """Properties of a file, as `index_of` finds them.

    Args:
        info: exact length, rate and channels.
        mended: repaired header; None for a valid one.
        problems: harmless damage, in sentences without the name of the file.
        tail: first frame that libsndfile cannot seek to; the reader seeks before this frame and
            reads on.
    """

    info: AudioInfo
    mended: Mended | None
    problems: tuple[str, ...]
    tail: int | None = None


def index_of(path: Path, mended: Mended | None, tail: int | None = None) -> Index:
    """Return the properties of a file.

    Args:
        path: file.
        mended: repaired header; None for a valid one.
        tail: first frame that libsndfile cannot seek to, see `Index`.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read the file.
        RuntimeError: libsndfile cannot read the file.
    """
    with _open(path, mended) as file:
        info = AudioInfo(file.frames, file.samplerate, file.channels, file.subtype)
        cut = bool(_CUT_OGG.search(file.extra_info))
        if file.frames > _MOST_FRAMES * path.stat().st_size:
            frames = _count(file)
        elif file.format == "FLAC":
            frames = _complete(path, mended, file.frames)
            cut = cut or frames < file.frames
        else:
            frames = file.frames
        if frames != file.frames:
            info = AudioInfo(frames, file.samplerate, file.channels, file.subtype)
            mended = _with_length(path, mended, frames)
    problems: tuple[str, ...] = (mended.problem,) if mended and mended.problem else ()
    if cut:
        problems += (_CUT,)
    return Index(info, mended, problems, tail)


@contextmanager
def _open(path: Path, mended: Mended | None) -> Iterator[soundfile.SoundFile]:
    if mended is None:
        with _Sequential(native_name(path)) as file:
            yield file
    else:
        with Spliced(path, mended) as spliced, _Sequential(spliced) as file:
            yield file


def native_name(path: Path) -> str | bytes:
    """Return a name that soundfile accepts: text on Windows; elsewhere bytes, UTF-8 or not."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _count(file: soundfile.SoundFile) -> int:
    """Count the frames of a file whose header lacks the length."""
    total = 0
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        total += len(block)
    return total


def _complete(path: Path, mended: Mended | None, frames: int) -> int:
    """Return the frames of a FLAC file up to the point where it was truncated."""
    with _open(path, mended) as file:
        try:
            file.seek(max(0, frames - 1))
            if len(file.read(1)) == min(1, frames):
                return frames
        except (soundfile.LibsndfileError, RuntimeError):
            pass
    complete = 0
    for step in (BLOCK, _SHORT_BLOCK):  # a block that fails is read again in short ones
        with _open(path, mended) as file:
            try:
                file.seek(complete)
                while count := len(file.read(step, dtype="float32", always_2d=True)):
                    complete += count
            except (soundfile.LibsndfileError, RuntimeError):
                continue
    if complete == 0:
        raise RuntimeError("the file ends before the first sound")
    return complete


def _with_length(path: Path, mended: Mended | None, frames: int) -> Mended | None:
    """Write the length into the header of a FLAC file; seeking requires the length."""
    if mended is not None:
        return mended
    with open(path, "rb") as file:
        head = bytearray(file.read(_FLAC_HEAD))
    if head[:4] != b"fLaC":
        return None
    head[21] = head[21] & 0xF0 | frames >> 32 & 0x0F
    head[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return Mended(bytes(head), _FLAC_HEAD, path.stat().st_size)


class NativeSource:
    """Decode a file with libsndfile.

    Args:
        path: file.
        index: properties of the file.
    """

    def __init__(self, path: Path, index: Index):
        self.info, self.problems = index.info, index.problems
        self._open = ExitStack()
        self._file = self._open.enter_context(_open(path, index.mended))
        self._position = 0
        self._tail = index.tail

    def read(self, start: int, frames: int) -> np.ndarray:
        """Return `frames` frames from `start`, see `Source`.

        Raises:
            InputError: the file is damaged.
        """
        try:
            if self._position != start:
                self._seek(start)
            data = self._file.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:  # a truncated FLAC file
            raise InputError(f"{reason(error)} (damaged or truncated?)") from error
        self._position += len(data)
        return data

    def _seek(self, start: int) -> None:
        before = 0
        if self._tail is not None and start >= self._tail:
            before = start - max(0, self._tail - 1)
        self._position = self._file.seek(start - before)
        while before > 0 and (count := len(self._file.read(min(before, BLOCK), dtype="float32"))):
            before -= count
            self._position += count

    def tags(self) -> dict[str, str]:
        """Return title, artist, album and other texts."""
        return self._file.copy_metadata()

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def reason(error: Exception) -> str:
    """Return the message of an error of libsndfile."""
    return str(getattr(error, "error_string", error)).rstrip(".")
