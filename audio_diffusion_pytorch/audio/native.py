"""What libsndfile reads exactly: wav, flac, ogg vorbis, aiff, caf, w64, rf64, au ..."""

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

_MOST_FRAMES = 6554  # for each byte: FLAC frames hold 65,535 at most, in 10 bytes or more; unknown lengths are beyond
_CUT_OGG = re.compile(r"lacks an end-of-stream bit", re.MULTILINE)
_FLAC_HEAD = 42  # bytes: the mark, and the first block with its head


class _Sequential(soundfile.SoundFile):
    """Reads on without seeking; `soundfile` seeks after each read."""

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Index:
    """What reading needs to know of a file.

    Args:
        info: exact.
        mended: how to read it where its header is not in order.
        problems: told once.
        tail: frame from which on libsndfile seeks wrongly, and is to read on from before.
    """

    info: AudioInfo
    mended: Mended | None
    problems: tuple[str, ...]
    tail: int | None = None


def index_of(path: Path, mended: Mended | None, tail: int | None = None) -> Index:
    """
    Raises:
        soundfile.LibsndfileError, RuntimeError: libsndfile does not read it.
    """
    with _open(path, mended) as file:
        info = AudioInfo(file.frames, file.samplerate, file.channels, file.subtype)
        cut = _CUT_OGG.search(file.extra_info)
        if file.frames > _MOST_FRAMES * path.stat().st_size:
            frames = _count(file)
            info = AudioInfo(frames, file.samplerate, file.channels, file.subtype)
            mended = _with_length(path, mended, frames)
    problems: tuple[str, ...] = (mended.problem,) if mended and mended.problem else ()
    if cut:
        problems += ("it was cut off in the middle; what is there is read",)
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
    """A name as soundfile takes it: text for UTF-8, which it need not be, but on Windows text it must be."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _count(file: soundfile.SoundFile) -> int:
    """Frames of a file whose header does not say."""
    total = 0
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        total += len(block)
    return total


def _with_length(path: Path, mended: Mended | None, frames: int) -> Mended | None:
    """A FLAC file with its length in its header, which seeking needs."""
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
    """Reads the file of an index with libsndfile."""

    def __init__(self, path: Path, index: Index):
        self.info, self.problems = index.info, index.problems
        self._open = ExitStack()
        self._file = self._open.enter_context(_open(path, index.mended))
        self._position, self._tail = 0, index.tail

    def read(self, start: int, frames: int) -> np.ndarray:
        try:
            if self._position != start:
                self._seek(start)
            data = self._file.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:  # a FLAC file that was cut off
            raise InputError(f"{reason(error)} (damaged, or cut off?)") from error
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
        return self._file.copy_metadata()

    def close(self) -> None:
        self._open.close()


def reason(error: Exception) -> str:
    """What libsndfile says."""
    return str(getattr(error, "error_string", error)).rstrip(".")
