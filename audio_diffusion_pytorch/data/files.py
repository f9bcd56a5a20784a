"""Files of a data set."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain, instrument_of


def find_files(
    path: str | Path | Sequence, instruments: Sequence[str] | None, recursive: bool = True
) -> list[Path]:
    """Audio files under the folder(s) `path`, sorted; only those of `instruments` (None: all).

    Raises:
        InputError: a folder is missing, or nothing is left; the message names the instruments that are there.
    """
    folders = [
        Path(p)
        for p in (path if isinstance(path, Sequence) and not isinstance(path, str) else [path])
    ]
    found = []
    for folder in folders:
        if folder.is_file():
            raise InputError(f"{folder} is a file: dataset_path takes the folder it lies in")
        if not folder.is_dir():
            raise InputError(
                f"no such data set folder: {folder}; give one with dataset_path=FOLDER"
            )
        entries = folder.rglob("*") if recursive else folder.glob("*")
        found += [
            f
            for f in entries
            if f.suffix.lower() in audio.EXTENSIONS and f.is_file() and f.name[0] != "."
        ]
    where = ", ".join(map(str, folders))
    if not found:
        raise InputError(f"no audio ({', '.join(audio.EXTENSIONS)}) in {where}")
    if instruments:
        wanted = {_plain(name) for name in instruments}
        there = Counter(instrument_of(f, instruments) or "no known instrument" for f in found)
        found = [f for f in found if _plain(instrument_of(f, instruments) or "") in wanted]
        if not found:
            listing = ", ".join(f"{name} ({count})" for name, count in sorted(there.items()))
            raise InputError(
                f"no file of {', '.join(instruments)} in {where}: an instrument's name must be in the file's name. "
                f"Files there: {listing}. Say which to take with instruments=[NAME], or take all with instruments=null"
            )
    return sorted(found)
