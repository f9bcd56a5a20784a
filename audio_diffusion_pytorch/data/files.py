"""Files of a data set."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain, instrument_of


def find_files(
    path: str | Path | Sequence[str | Path],
    instruments: Sequence[str] | None,
    recursive: bool = True,
) -> list[Path]:
    """Find the audio files in folders, sorted by path.

    Args:
        path: folder or folders.
        instruments: names to find in the file names; None accepts every file.
        recursive: include subfolders.

    Raises:
        InputError: a folder is missing, or no file remains; the message lists the instruments of
            the other files.
    """
    paths = [path] if isinstance(path, str | Path) else path
    folders = [Path(one) for one in paths]
    found: list[Path] = []
    for folder in folders:
        found += _audio_files(folder, recursive)
    where = ", ".join(map(str, folders))
    if not found:
        raise InputError(f"no audio ({', '.join(audio.EXTENSIONS)}) in {where}")
    if not instruments:
        return sorted(found)
    wanted = {_plain(name) for name in instruments}
    chosen = [file for file in found if _plain(instrument_of(file, instruments) or "") in wanted]
    if not chosen:
        names = Counter(instrument_of(file, instruments) or "no known instrument" for file in found)
        listing = ", ".join(f"{name} ({count})" for name, count in sorted(names.items()))
        raise InputError(
            f"no file of {', '.join(instruments)} in {where}: the file name must contain the name "
            f"of the instrument. Files there: {listing}. Choose one with instruments=[NAME], or "
            "every file with instruments=null"
        )
    return sorted(chosen)


def _audio_files(folder: Path, recursive: bool) -> list[Path]:
    if folder.is_file():
        raise InputError(f"{folder} is a file: set dataset_path to its folder")
    if not folder.is_dir():
        raise InputError(f"no such data set folder: {folder}; set dataset_path=FOLDER")
    return [
        file
        for file in (folder.rglob("*") if recursive else folder.glob("*"))
        if file.suffix.lower() in audio.EXTENSIONS and file.is_file() and file.name[0] != "."
    ]
