"""Command line of the rendering command."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.engine.engine import LOCAL, Engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render.chorales import SPLITS
from audio_diffusion_pytorch.render.options import RenderOptions
from audio_diffusion_pytorch.render.player import INSTRUMENTS
from audio_diffusion_pytorch.utils.threads import available_cpus

PARTS_PER_PIECE = 1.2  # five instruments: about 30 hours


def parse_options(argv: list[str] | None, about: str | None = None) -> RenderOptions:
    """Parse the command line.

    Args:
        argv: arguments; None: those of the process.
        about: description in the help text.

    Raises:
        InputError: an instrument is unknown, or a setting of the engine is wrong.
    """
    arguments = make_parser(about).parse_args(argv)
    arguments.instruments = _instruments(arguments.instruments)
    arguments.output = arguments.output.expanduser()
    arguments.engine = _engine(arguments.engine, arguments.workers)
    del arguments.workers
    return RenderOptions(**vars(arguments))


def _engine(words: list[str], workers: int | None) -> Engine:
    """Make the engine from `NAME KEY=VALUE ...`."""
    from omegaconf import OmegaConf

    name, *settings = words
    values: Any = OmegaConf.to_container(OmegaConf.from_dotlist(settings))
    if workers is None:
        workers = available_cpus() if name == LOCAL else 1
    return Engine.from_arguments({**values, "engine": name, "workers": workers})


def _instruments(names: list[str]) -> list[str]:
    names = [name.lower().replace(" ", "_").replace("-", "_") for name in names]
    if "all" in names:
        return list(INSTRUMENTS)
    if unknown := [name for name in names if name not in INSTRUMENTS]:
        raise InputError(
            f"unknown instrument {', '.join(unknown)}: choose from {', '.join(INSTRUMENTS)}, or all"
        )
    return list(dict.fromkeys(names))


def make_parser(about: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; `about`: description in the help text."""
    about = (about or "").replace("python scripts/render_dataset.py", typed("render"))
    parser = argparse.ArgumentParser(
        typed("render"), None, about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        required=True,
        help="folder to write; existing clips are not rendered again",
    )
    add(
        "--instruments",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help=f"all (default), or names from {', '.join(INSTRUMENTS)}",
    )
    add(
        "--soundfont",
        type=Path,
        action="append",
        metavar="PATH",
        help="General MIDI .sf2 or .sf3 file; repeat the option to draw one SoundFont for each "
        "performance (default: MuseScore General and FluidR3, if installed)",
    )
    add(
        "--samples",
        type=Path,
        metavar="FOLDER",
        help="play with recorded notes instead of SoundFonts: a folder for each instrument, files "
        "such as violin/violin_A3_1_forte_arco-normal.mp3",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of the split, the parts and the performances (default 0)",
    )
    add(
        "--splits",
        nargs="+",
        choices=SPLITS,
        default=list(SPLITS),
        help="splits to render (default: all three, 80, 10 and 10 %%)",
    )
    add(
        "--paired",
        action="store_true",
        help="let all instruments play the same performances, each in its own range",
    )
    add(
        "--takes",
        type=positive(int),
        default=1,
        metavar="N",
        help="performances of each part (default 1)",
    )
    add(
        "--parts-per-piece",
        type=positive(float),
        default=PARTS_PER_PIECE,
        metavar="X",
        help="mean number of parts of a piece that an instrument plays; 1.5: one part in half of "
        f"the pieces, two in the others (default {PARTS_PER_PIECE})",
    )
    add(
        "--pieces",
        type=count,
        metavar="N",
        help="render only the first N pieces of the splits; 0: only studies",
    )
    add(
        "--studies",
        type=count,
        default=0,
        metavar="N",
        help="also play N studies over the whole range of each instrument: scales, arpeggios, "
        "leaps (default 0)",
    )
    add(
        "--workers",
        type=positive(int),
        metavar="N",
        help="number of processes of this machine (default: one for each core)",
    )
    add(
        "--engine",
        nargs="+",
        default=[LOCAL],
        metavar=("NAME", "KEY=VALUE"),
        help="local (default), or a cluster with the settings of docs/clusters.md: "
        "--engine ray ray.address=auto, --engine slurm slurm.shards=16",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the number of clips, hours and disk space; write nothing",
    )
    return parser


def count(text: str) -> int:
    """Parse a whole number from 0, an argparse type."""
    if (value := int(text)) < 0:
        raise ValueError
    return value


def positive(kind: type) -> Callable[[str], Any]:
    """Return an argparse type: a positive, finite number of `kind`."""

    def parse(text: str) -> Any:
        if not 0 < (value := kind(text)) < math.inf:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse: "invalid positive int value: '0'"
    return parse
