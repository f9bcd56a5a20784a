"""Readable names for the sounds of an evaluation: sounds/<pair>/<clip>_<system>.flac."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import text_digest

_LONGEST = 120  # bytes of each part of the name


def sound_name(pair: str, clip: str, system: str) -> str:
    """Return the relative path of a sound.

    Args:
        pair: name of the pair, for example `flute-violin`.
        clip: name of the clip, for example `tune@0`.
        system: label of the system, for example `bridge, sigma 4`.

    Returns:
        The path, for example `sounds/flute-violin/tune@0_bridge_sigma_4.flac`.
    """
    return f"sounds/{_plain(pair)}/{_plain(clip)}_{_plain(system)}.flac"


def _plain(text: str) -> str:
    """Make a part of a file name that every system accepts.

    Only spaces and commas change in most texts. If other characters change, a digest keeps
    different texts apart.
    """
    plain = re.sub(r"[\s,]+", "_", text)
    kept = os.fsencode(re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", plain).strip("."))[:_LONGEST].decode(
        "utf-8", "ignore"
    )
    if kept == plain and kept:
        return kept
    return f"{kept}-{text_digest(text, 6)}"


def publish(kept: Path, name: Path) -> None:
    """Give a stored sound a second name: a hard link if the file system supports one, else a copy.

    Args:
        kept: file of the sound.
        name: path of the second name.

    Raises:
        InputError: the file cannot be written.
    """
    with suppress(OSError):
        if os.path.samefile(kept, name):
            return
    with atomic_write(name) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(kept, temporary)
        except OSError:
            shutil.copyfile(kept, temporary)
