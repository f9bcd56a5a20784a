"""Options of the command that renders training data."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.render.chorales import SPLITS
from audio_diffusion_pytorch.render.player import INSTRUMENTS
from audio_diffusion_pytorch.utils.threads import available_cpus

PARTS_PER_PIECE = 1.2  # five instruments: about 30 hours


def make_parser(about: str | None = None) -> argparse.ArgumentParser:
    """The options; `about` is the text above them in --help."""
    about = (about or "").replace("python scripts/render_dataset.py", typed("render"))
    parser = argparse.ArgumentParser(
        typed("render"), None, about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    share = PARTS_PER_PIECE
    fonts = "a General MIDI .sf2 or .sf3; given more than once, one is drawn per performance "
    fonts += "(default: MuseScore General and FluidR3, whichever are installed)"
    some = f"how many of a piece's parts an instrument plays; 1.5: one, in half of the pieces two (default {share})"
    add(
        "--output",
        type=Path,
        required=True,
        help="folder to write; what is there already is not rendered again",
    )
    add(
        "--instruments",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help=f"all (default), or of {', '.join(INSTRUMENTS)}",
    )
    add("--soundfont", type=Path, action="append", metavar="PATH", help=fonts)
    add(
        "--seed",
        type=int,
        default=0,
        help="of the split, the parts and the performances (default 0)",
    )
    add(
        "--splits",
        nargs="+",
        choices=SPLITS,
        default=list(SPLITS),
        help="default: all three, 80, 10 and 10 %%",
    )
    add(
        "--paired",
        action="store_true",
        help="each instrument plays the same performances, in its own register",
    )
    add(
        "--takes",
        type=positive(int),
        default=1,
        metavar="N",
        help="performances of a part (default 1)",
    )
    add("--parts-per-piece", type=positive(float), default=share, metavar="X", help=some)
    add(
        "--pieces",
        type=positive(int),
        metavar="N",
        help="only the first N pieces of the splits, for a quick try",
    )
    add(
        "--workers",
        type=positive(int),
        default=available_cpus(),
        metavar="N",
        help="default: one per core",
    )
    add("--dry-run", action="store_true", help="print clips, hours and disk space; write nothing")
    return parser


def positive(kind: type) -> Callable[[str], Any]:
    """A type for argparse: a number over zero."""

    def parse(text: str) -> Any:
        if not 0 < (value := kind(text)) < math.inf:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse: "invalid positive int value: '0'"
    return parse
