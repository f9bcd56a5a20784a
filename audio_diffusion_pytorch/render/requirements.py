"""Requirements of a rendering run: SoundFonts and optional libraries."""

from __future__ import annotations

import importlib
from pathlib import Path

from audio_diffusion_pytorch.errors import InputError

SOUNDFONT_FOLDERS = (
    "/usr/share/sounds/sf3",
    "/usr/share/sounds/sf2",
    "/usr/share/soundfonts",
    "~/.local/share/sounds",
)
SOUNDFONT_NAMES = (
    "MuseScore_General.sf3",
    "MuseScore_General.sf2",
    "FluidR3_GM.sf2",
    "FluidR3_GM.sf3",
)
PACKAGES = "musescore-general-soundfont or fluid-soundfont-gm"


def find_soundfonts(given: list[Path] | None) -> tuple[str, ...]:
    """Return the given SoundFonts, or the installed ones.

    Args:
        given: paths of .sf2 or .sf3 files; None or empty: search the usual folders.

    Raises:
        InputError: no SoundFont is installed, or a file is unreadable or not a SoundFont.
    """
    paths = given or _installed_soundfonts()
    if not paths:
        raise InputError(
            f"no SoundFont found: install the Debian package {PACKAGES}, or pass a .sf2 or .sf3 "
            "file with --soundfont"
        )
    for path in paths:
        _check_soundfont(path)
    return tuple(str(path) for path in paths)


def _installed_soundfonts() -> list[Path]:
    found: dict[str, Path] = {}
    for name in SOUNDFONT_NAMES:
        for folder in SOUNDFONT_FOLDERS:
            path = Path(folder).expanduser() / name
            if path.is_file():
                found.setdefault(path.stem, path)
    return list(found.values())


def _check_soundfont(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise InputError(
            f"cannot read the SoundFont {path}: {error.strerror} (Debian packages: {PACKAGES})"
        ) from error
    if head[:4] + head[8:] != b"RIFFsfbk":
        raise InputError(f"{path} is not a SoundFont (.sf2 or .sf3)")


def check_libraries(synthesises: bool, reads_scores: bool = True) -> None:
    """Import every library of a run, to report a missing one before any work.

    Args:
        synthesises: whether FluidSynth plays.
        reads_scores: whether music21 reads pieces.

    Raises:
        InputError: a library is missing or does not load; the message names the package to install.
    """
    names = ["numpy", "tqdm", "soundfile"]
    names += ["music21"] * reads_scores + ["fluidsynth"] * synthesises
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = "pyfluidsynth" if error.name == "fluidsynth" else error.name
            raise InputError(
                f"{package} is not installed: pip install music21 pyfluidsynth"
            ) from error
        except (ImportError, OSError) as error:
            remedy = ": install the Debian package libfluidsynth3" if name == "fluidsynth" else ""
            raise InputError(f"cannot load {name} ({str(error).rstrip('.')}){remedy}") from error
