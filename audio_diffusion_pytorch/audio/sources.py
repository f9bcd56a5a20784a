"""Choose the decoder of a file by its content, not by its name."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import soundfile

from audio_diffusion_pytorch.audio import containers, headers, links, mpeg, mpeg_frames, native
from audio_diffusion_pytorch.audio.headers import Mended, Spliced
from audio_diffusion_pytorch.audio.sections import Joined, Source
from audio_diffusion_pytorch.errors import InputError

State = tuple[int, ...]
_MOST = 50_000  # remembered files
_NATIVE = (  # first bytes of the formats that libsndfile decodes
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
# Films begin with 0, as damaged MP3 files do, and may hold MPEG frames.
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx")
_START_CODE = b"\0\0\1"  # MPEG-1 and MPEG-2 films
_SILENT = "it holds no sound (damaged?)"
# Openers of files by path and state: a process examines each file once.
_INDICES: dict[str, tuple[State, "Opener"]] = {}


@dataclass(frozen=True)
class Opener:
    """Decoder and index of a file that was examined.

    Args:
        index: index of `native`, `mpeg` or `containers`; a list for consecutive recordings.
        mended: part of the file for FFmpeg; None: the whole file.
    """

    index: Any
    mended: Mended | None = None

    def open(self, path: Path) -> Source:
        """Open the recording, without examining the file again."""
        if isinstance(self.index, list):
            return Joined([opener.open(path) for opener in self.index])
        if isinstance(self.index, native.Index):
            return native.NativeSource(path, self.index)
        if isinstance(self.index, mpeg.Index):
            return mpeg.MpegSource(path, self.index)
        return containers.ContainerSource(_spliced(path, self.mended), self.index)


def state_of(path: Path) -> State:
    """Return size, times and inode of a file, which change with its content.

    Args:
        path: audio file.

    Raises:
        InputError: the path is missing or not a file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"no such audio file: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder: give one audio file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a pipe or device, not a file: write the sound to a file first")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def open_source(path: Path, state: State) -> tuple[Source, bool]:
    """Open the recording in a file.

    Args:
        path: audio file.
        state: state of the file, from `state_of`.

    Returns:
        The recording, and whether this call examined the file.

    Raises:
        NotAudio: the file holds no sound.
        InputError: the file cannot be read.
    """
    try:
        opener, new = _opener(path, state)
        return opener.open(path), new
    except soundfile.LibsndfileError as error:  # the file changed after its examination
        raise InputError(f"cannot read {path} as audio: {native.reason(error)}") from error
    except PermissionError as error:
        raise InputError(f"cannot read {path}: you may not read it") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except InputError as error:
        raise type(error)(f"cannot read {path} as audio: {error}") from error


def _opener(path: Path, state: State) -> tuple[Opener, bool]:
    """Return the opener of a file, and whether the opener is new."""
    key = os.path.abspath(path)
    known = _INDICES.get(key)
    if known is not None and known[0] == state:
        return known[1], False
    if len(_INDICES) >= _MOST:
        _INDICES.clear()
    opener = _examine(path, state[0])
    _INDICES[key] = state, opener
    return opener, True


def _examine(path: Path, size: int) -> Opener:
    """Choose the decoder of a file of `size` bytes."""
    if size == 0:
        raise InputError("the file is empty")
    with open(path, "rb") as file:
        base = mpeg_frames.end_of_tags(file, size)
        file.seek(base)
        head = file.read(16)
        if head[:4] == b"OggS":
            return _ogg(path, links.links_of(file, size))
        known = head.startswith(_NATIVE) and (head[:4] != b"FORM" or head[8:11] == b"AIF")
        film = head[4:8] in _BOXES or head.startswith(_START_CODE)
        maybe_mpeg = not known and not film and (base or head[:1] in (b"\0", b"\xff"))
        if maybe_mpeg and mpeg_frames.starts_as_mpeg(file, size):
            frames = mpeg.index_of(file, size)
            return Opener(frames) if frames else _container(path, otherwise=_SILENT)
    if not known or head[8:12] == b"AVI ":
        return _container(path)
    try:
        index = native.index_of(path, Mended(b"", base, size) if base else headers.mend(path))
        # libsndfile guesses the length of MP3 inside WAV.
        return _container(path) if index.info.subtype.startswith("MPEG_") else Opener(index)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return _container(path, otherwise=f"{native.reason(error)} (damaged?)")


def _container(path: Path, mended: Mended | None = None, otherwise: str = "") -> Opener:
    """Examine a file with FFmpeg; if FFmpeg cannot read the file, raise `otherwise` if given."""
    with _spliced(path, mended) as file:
        try:
            index = containers.index_of(file) or mpeg.index_of(file, file.seek(0, os.SEEK_END))
        except InputError as error:
            if otherwise:
                raise InputError(otherwise) from error
            raise
        if index is None:
            raise InputError(_SILENT)
        return Opener(index, mended)


def _spliced(path: Path, mended: Mended | None) -> BinaryIO:
    file = Spliced(path, mended or Mended(b"", 0, path.stat().st_size))
    return cast(BinaryIO, file)  # a raw file of reading methods, all that decoders need


def _ogg(path: Path, found: list[links.Link]) -> Opener:
    """Examine the recordings of an Ogg file."""
    openers = []
    for link in found:
        mended = None if len(found) == 1 else Mended(b"", link.start, link.end)
        if link.codec in ("vorbis", "flac") and not link.beside:
            with suppress(soundfile.LibsndfileError, RuntimeError):  # mostly FLAC in Ogg
                tail = link.tail if link.codec == "vorbis" else None
                openers.append(Opener(native.index_of(path, mended, tail)))
                continue
        openers.append(_container(path, mended))
    if len(openers) < 2:
        return openers[0] if openers else _container(path)
    infos = [opener.index.info for opener in openers]
    first = infos[0]
    for number, info in enumerate(infos):
        if (info.sample_rate, info.channels) != (first.sample_rate, first.channels):
            seconds = sum(one.seconds for one in infos[:number])
            raise InputError(
                f"after {seconds:.1f} s its format changes ({first.sample_rate} Hz, "
                f"{first.channels} channels to {info.sample_rate} Hz, {info.channels} channels): "
                "it joins recordings of different formats; split it"
            )
    return Opener(openers)
