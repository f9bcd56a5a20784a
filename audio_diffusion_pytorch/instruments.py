"""Instruments: names, pitch ranges, and the instrument in a file name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# The thirteen instruments of CocoChorales (Wu et al. 2022).
INSTRUMENTS = (
    *("violin", "viola", "cello", "double bass", "flute", "oboe", "clarinet", "bassoon"),
    *("saxophone", "trumpet", "horn", "trombone", "tuba"),
)
# Further names in file names: "bass" must match neither "bassoon" nor "double bass", so the longest
# match wins.
_OTHER_NAMES = (
    "bass",
    "piano",
    "guitar",
    "harp",
    "organ",
    "voice",
    "bass clarinet",
    "english horn",
    "french horn",
)


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-]+", "", text.lower())


def instrument_of(path: str | Path, names: Sequence[str] = ()) -> str | None:
    """Find the instrument in a file name, ignoring case, `_`, `-` and spaces; longest match wins.

    Beside another instrument, "piano" is a dynamic marking: `flute_A4_mezzo-piano` is a flute.

    Args:
        path: path of the file; only its stem counts.
        names: further names of instruments.

    Returns:
        The name; None: the file name contains none.
    """
    stem = _plain(Path(path).stem)
    found = [name for name in {*INSTRUMENTS, *_OTHER_NAMES, *names} if _plain(name) in stem]
    return max(found, key=lambda name: (name != "piano", len(_plain(name)), name), default=None)


# Lowest and highest sounding MIDI pitch of each instrument in the rendered data.
PITCH_RANGES = {
    "violin": (55, 93),
    "viola": (48, 81),
    "cello": (36, 74),
    "double bass": (28, 60),
    "flute": (60, 93),
    "oboe": (58, 88),
    "clarinet": (50, 86),
    "bassoon": (34, 70),
    "saxophone": (49, 81),
    "trumpet": (54, 82),
    "horn": (41, 77),
    "trombone": (40, 72),
    "tuba": (28, 60),
}
MAX_OCTAVES = 5  # largest transposition
