"""Write audio files, complete or not at all. Waveforms are [C, T] float32 in [-1, 1]."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import soundfile
from torch import Tensor

from audio_diffusion_pytorch.audio.formats import BLOCK, OUTPUT_EXTENSIONS
from audio_diffusion_pytorch.errors import InputError, replacing

_LARGEST_WAV = 4_000_000_000  # bytes of sound: a WAV header counts no more
_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}  # a sample; 4 in others


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
    """Write a .wav, .flac or .ogg file in blocks; it appears under its name when the block ends, complete.

    Args:
        subtype: libsndfile's name of the input's sample format (`PCM_24` ...), kept as far as the ending allows.
        tags: title, artist ..., as `AudioReader.tags` gives them.
        frames: how many will come, where known: above 4 GB a .wav file is written as RF64.
        complete: called with the complete file before it takes its name.

    Yields:
        A function that writes the next block [C, n].

    Raises:
        InputError: another extension, a folder that cannot be written to, or a full disk.
    """
    path = Path(path)
    if path.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(f"cannot write {path}: the output must end in {', '.join(OUTPUT_EXTENSIONS)}")
    file_format = path.suffix[1:].upper()
    subtype = _subtype(file_format, subtype)
    if file_format == "WAV" and frames * channels * _BYTES.get(subtype, 4) > _LARGEST_WAV:
        file_format = "RF64"
    written = 0

    def write_block(wav: Tensor) -> None:
        nonlocal written
        data = wav.detach().cpu().T.contiguous().numpy()
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            try:
                file.write(block)
            except AssertionError as error:  # what soundfile raises where fewer frames could be written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        written += len(data)

    try:
        with replacing(path) as temporary:
            name = os.fsencode(temporary)  # soundfile takes text for UTF-8, which a name need not be
            with soundfile.SoundFile(name, "w", sample_rate, channels, subtype=subtype, format=file_format) as file:
                for key, value in (tags or {}).items():
                    setattr(file, key, value)
                yield write_block
            if soundfile.info(name).frames != written:  # a disk that gets full at the very end raises nothing
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if complete is not None:
                complete(temporary)
    except soundfile.LibsndfileError as error:  # no disk that is full, which `replacing` finds out
        raise InputError(f"cannot write {path}: {error.error_string}") from error


def write(path: str | Path, wav: Tensor, sample_rate: int, subtype: str | None = None) -> None:
    """Write wav [C, T] as .wav, .flac or .ogg; arguments and errors as `writing`."""
    with writing(path, sample_rate, wav.shape[0], subtype) as write_block:
        write_block(wav)


def _subtype(file_format: str, wanted: str | None) -> str:
    """The sample format that keeps most of the wanted one."""
    default = "VORBIS" if file_format == "OGG" else "PCM_16"
    if not (wanted or "").startswith(("PCM_", "FLOAT", "DOUBLE")):  # an MP3's format would fit into a WAV, too
        return default
    if soundfile.check_format(file_format, wanted):
        return wanted
    return "PCM_24" if file_format == "FLAC" and wanted in ("PCM_32", "FLOAT", "DOUBLE") else default
