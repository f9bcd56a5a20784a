"""Sounds of an evaluation under names that say what they are: sounds/<pair>/<clip>_<system>.flac."""

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from audio_diffusion_pytorch.utils.files import atomic_write

_LONGEST = 120  # bytes of a clip's name in a file's name


def sound_name(pair: str, clip: str, system: str) -> str:
    """`("flute-violin", "tune@0", "bridge, sigma 4")` -> "sounds/flute-violin/tune@0_bridge_sigma_4.flac"."""
    return f"sounds/{_plain(pair)}/{_plain(clip)}_{_plain(system)}.flac"


def _plain(text: str) -> str:
    """A part of a file's name on any system; where more than spaces and commas changed, it ends in a digest."""
    plain = re.sub(r"[\s,]+", "_", text)
    kept = os.fsencode(re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", plain).strip("."))[:_LONGEST].decode(
        "utf-8", "ignore"
    )
    if kept == plain and kept:
        return kept
    return f"{kept}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:6]}"


def publish(kept: Path, name: Path) -> None:
    """Give a kept sound a second name, without a second copy where the file system can do that.

    Raises:
        InputError: it cannot be written.
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
