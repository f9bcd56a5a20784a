"""Which way a file is read: its content decides, not its name."""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from audio_diffusion_pytorch.audio import containers, headers, links, mpeg, mpeg_frames, native
from audio_diffusion_pytorch.audio.headers import Mended, Spliced
from audio_diffusion_pytorch.audio.sections import Joined, Source
from audio_diffusion_pytorch.errors import InputError

State = tuple[int, ...]
_MOST = 50_000  # files that are remembered
# What libsndfile is given; the rest is MPEG audio, or goes to FFmpeg's libraries.
_NATIVE = (
    b"RIFF",
    b"RIFX",
    b"RF64",
    b"BW64",
    b"FORM",
    b"fLaC",
    b"caff",
    b".snd",
    b"dns.",
    b"riff\x2e\x91\xcf\x11",
)
# What was learnt of files, by path and state, so that no file is examined twice in one process.
_INDICES: dict[str, tuple[State, "Opener"]] = {}


@dataclass(frozen=True)
class Opener:
    """A file that was examined: opens it without examining it again.

    Args:
        index: what one of the modules learnt; a list of several for recordings one after the other.
        mended: the part of the file that FFmpeg is given; None: all.
    """

    index: Any
    mended: Mended | None = None

    def open(self, path: Path) -> Source:
        """The recording in the file."""
        if isinstance(self.index, list):
            return Joined([opener.open(path) for opener in self.index])
        if isinstance(self.index, native.Index):
            return native.NativeSource(path, self.index)
        if isinstance(self.index, mpeg.Index):
            return mpeg.MpegSource(path, self.index)
        file = Spliced(path, self.mended or Mended(b"", 0, path.stat().st_size))
        return containers.ContainerSource(file, self.index)


def state_of(path: Path) -> State:
    """What changes with a file's content: size, times, place on the disk.

    Raises:
        InputError: it is no file, or is not there.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"no such audio file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, give one audio file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe or device, not a file: write the sound to a file first")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def open_source(path: Path, state: State) -> tuple[Source, bool]:
    """The recording in a file, and whether the file was examined only now.

    Raises:
        NotAudio: it holds no sound.
        InputError: the file cannot be read.
    """
    key = os.path.abspath(path)
    known = _INDICES.get(key)
    new = known is None or known[0] != state
    try:
        if new:
            if len(_INDICES) >= _MOST:
                _INDICES.clear()
            opener = _examine(path, state[0])
            _INDICES[key] = state, opener
        else:
            opener = known[1]
        return opener.open(path), new
    except soundfile.LibsndfileError as error:  # it changed since
        raise InputError(f"cannot read {path} as audio: {native.reason(error)}") from error
    except OSError as error:
        reason = (
            "you may not read it"
            if error.errno in (errno.EACCES, errno.EPERM)
            else error.strerror or error
        )
        raise InputError(f"cannot read {path}: {reason}") from error
    except InputError as error:
        raise type(error)(f"cannot read {path} as audio: {error}") from error


def _examine(path: Path, size: int) -> Opener:
    """How to open the recording in a file."""
    if size == 0:
        raise InputError("the file is empty")
    with open(path, "rb") as file:
        base = mpeg_frames.end_of_tags(file, size)
        file.seek(base)
        head = file.read(16)
        if head[:4] == b"OggS":
            return _ogg(path, links.links_of(file, size), size)
        known = any(head.startswith(mark) for mark in _NATIVE) and not (
            head[:4] == b"FORM" and head[8:11] != b"AIF"
        )
        if not known and (base or head[0] in (0, 255)) and mpeg_frames.starts_as_mpeg(file, size):
            return _mpeg(mpeg.index_of(file, size))
    if not known or head[8:12] == b"AVI ":
        return _container(path)
    try:
        index = native.index_of(path, Mended(b"", base, size) if base else headers.mend(path))
        # MP3 inside a WAV: libsndfile guesses its length.
        return _container(path) if index.info.subtype.startswith("MPEG_") else Opener(index)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return _container(path, otherwise=f"{native.reason(error)} (damaged?)")


def _mpeg(index: mpeg.Index | None) -> Opener:
    if index is None:
        raise InputError("it holds no sound (damaged?)")
    return Opener(index)


def _container(path: Path, mended: Mended | None = None, otherwise: str = "") -> Opener:
    """FFmpeg's way; `otherwise` says what libsndfile found wrong with the file."""
    with Spliced(path, mended or Mended(b"", 0, path.stat().st_size)) as file:
        try:
            index = containers.index_of(file)
        except InputError as error:
            if otherwise:
                raise InputError(otherwise) from error
            raise
        return (
            _mpeg(mpeg.index_of(file, file.seek(0, os.SEEK_END)))
            if index is None
            else Opener(index, mended)
        )


def _ogg(path: Path, found: list[links.Link], size: int) -> Opener:
    openers = []
    for link in found:
        mended = None if len(found) == 1 else Mended(b"", link.start, link.end)
        if link.codec in ("vorbis", "flac") and not link.beside:
            with suppress(soundfile.LibsndfileError, RuntimeError):  # FLAC in Ogg, mostly
                tail = link.tail if link.codec == "vorbis" else None
                openers.append(Opener(native.index_of(path, mended, tail)))
                continue
        openers.append(_container(path, mended))
    if len(openers) < 2:
        return openers[0] if openers else _container(path)
    infos = [opener.index.info for opener in openers]
    for number, info in enumerate(infos):
        if (info.sample_rate, info.channels) != (infos[0].sample_rate, infos[0].channels):
            seconds = sum(one.seconds for one in infos[:number])
            raise InputError(
                f"after {seconds:.1f} s its format changes ({infos[0].sample_rate} Hz, {infos[0].channels} channels to "
                f"{info.sample_rate} Hz, {info.channels}): recordings of different kinds were joined; split it"
            )
    return Opener(openers)
