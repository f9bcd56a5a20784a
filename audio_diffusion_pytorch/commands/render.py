"""Render a training set from Bach chorales: one FLAC clip per monophonic part, and the notes played beside it.

Reads the chorales of the music21 corpus, moves every part into an instrument's register, plays it as a player would
(tempo, timing, velocity, swells and vibrato drawn from a seed) through a SoundFont with FluidSynth:

    python scripts/render_dataset.py --output data/chorales --instruments flute violin
    python scripts/render_dataset.py --output data/paired --instruments flute violin --splits test --paired

A clip is OUTPUT/<split>/<instrument>/<piece>_<part>_t<take>_<instrument>.flac, 24 kHz mono. The .json beside it says
what sounds: "notes" are [onset, offset, MIDI pitch], in seconds; legato notes overlap by up to 50 ms. manifest.json
says what the folder was made from. Chorales on one tune lie in one split, which depends on the tune and the seed alone.

Needs music21 and pyfluidsynth (pip install music21 pyfluidsynth), the FluidSynth library and a General MIDI SoundFont.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from audio_diffusion_pytorch.render.arguments import make_parser
from audio_diffusion_pytorch.render.chorales import SPLITS, digest, read_piece, split_of
from audio_diffusion_pytorch.render.player import (
    INSTRUMENTS,
    SAMPLE_RATE,
    Performance,
    SoundFontError,
    octaves_into,
    perform,
    play,
    played_pitch,
)

if TYPE_CHECKING:
    import numpy as np

GIGABYTES_PER_HOUR = 0.09
TEMPORARY = ".render-"

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


def fail(message: str) -> NoReturn:
    """One line on stderr, exit status 2."""
    print(f"render_dataset: error: {message}", file=sys.stderr)
    raise SystemExit(2)


# Clips


def generator(*key: Any) -> np.random.Generator:
    """The same random numbers for the same key; no global state."""
    import numpy as np

    return np.random.default_rng(digest(*key))


@dataclass(frozen=True)
class Clip:
    """One file to render."""

    split: str
    piece: str
    part: str
    take: int
    instrument: str
    octaves: int
    notes: list[list[float]]

    @property
    def stem(self) -> str:
        """The path under the output folder, without suffix."""
        return f"{self.split}/{self.instrument}/{self.piece}_{self.part}_t{self.take}_{self.instrument}"


@dataclass(frozen=True)
class Settings:
    """What every clip of a run shares."""

    output: Path
    soundfonts: tuple[str, ...]
    seed: int
    paired: bool

    def performance(self, clip: Clip) -> tuple[Performance, str]:
        """A clip's performance and SoundFont. Paired, they are the same for every instrument."""
        key = self.seed, clip.piece, clip.part, clip.take, "" if self.paired else clip.instrument
        soundfont = (
            self.soundfonts[digest("soundfont", *key) % len(self.soundfonts)]
            if self.soundfonts
            else ""
        )
        return perform(clip.notes, generator("performance", *key)), soundfont


def plan(pieces: dict[str, dict[str, Any]], args: argparse.Namespace) -> list[Clip]:
    """Every clip of a run. Each instrument plays some of a piece's parts, drawn for it among those that fit its range;
    paired, all instruments play the same ones, drawn among those that fit all."""
    clips = []
    for piece, content in pieces.items():
        for group in [args.instruments] if args.paired else [[name] for name in args.instruments]:
            rng = generator("parts", args.seed, piece, "" if args.paired else group[0])
            count = max(1, int(args.parts_per_piece + rng.random()))
            names, chosen = list(content["parts"]), 0
            for part in (names[k] for k in rng.permutation(len(names))):
                notes = content["parts"][part]["notes"]
                octaves = {
                    name: octaves_into(name, [pitch for _, _, pitch, _ in notes]) for name in group
                }
                if chosen < count and None not in octaves.values():
                    chosen += 1
                    clips += [
                        Clip(content["split"], piece, part, take, name, octaves[name], notes)
                        for take in range(args.takes)
                        for name in group
                    ]
    return clips


def render(clip: Clip, settings: Settings) -> None:
    """Write one clip and the notes beside it; the notes last, so that they say that both are whole."""
    import soundfile

    performance, soundfont = settings.performance(clip)
    pitches = [
        played_pitch(clip.instrument, pitch, clip.octaves) for _, _, pitch, _ in performance.notes
    ]
    program = INSTRUMENTS[clip.instrument][0]
    audio, flac = play(performance, pitches, soundfont, program), io.BytesIO()
    soundfile.write(flac, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    sounding = zip(performance.notes, pitches, strict=True)
    notes = [[round(on, 6), round(off, 6), pitch] for (on, off, _, _), pitch in sounding]
    about = {
        "piece": clip.piece,
        "part": clip.part,
        "take": clip.take,
        "instrument": clip.instrument,
        "program": program,
        "soundfont": Path(soundfont).name,
        "octave_shift": clip.octaves,
        "paired": settings.paired,
        "bpm": round(performance.bpm, 2),
        "sample_rate": SAMPLE_RATE,
        "duration": len(audio) / SAMPLE_RATE,
        "sha256": hashlib.sha256(flac.getvalue()).hexdigest(),
        "notes": notes,
    }
    write(settings.output / f"{clip.stem}.flac", flac.getvalue())
    write(settings.output / f"{clip.stem}.json", json.dumps(about).encode())


def write(path: Path, content: bytes) -> None:
    """All of the file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


# The command


def parallel(
    function: Callable[[Any], Any], items: list[Any], workers: int, title: str, unit: str
) -> list[Any]:
    """The function of every item, in order, with a progress bar."""
    from tqdm import tqdm

    progress = partial(
        tqdm, total=len(items), desc=title, unit=unit, dynamic_ncols=True, disable=not items
    )
    if min(workers, len(items)) <= 1:
        return [function(item) for item in progress(items)]
    deaf = {
        "initializer": signal.signal,
        "initargs": (signal.SIGINT, signal.SIG_IGN),
    }  # Ctrl-C is for the parent
    executor = ProcessPoolExecutor(
        min(workers, len(items)), mp_context=get_context("spawn"), **deaf
    )
    try:
        futures = [executor.submit(function, item) for item in items]
        for future in progress(as_completed(futures)):
            future.result()
        return [future.result() for future in futures]
    finally:
        executor.shutdown(cancel_futures=True)


def load_pieces(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The pieces of the splits asked for, parsed once and kept in the output folder."""
    import music21

    paths = {
        path.stem: str(path)
        for path in sorted(music21.corpus.getComposer("bach"))
        if path.suffix != ".rntxt"
    }
    version, cache = f"1, music21 {music21.__version__}", args.output / ".pieces.json"
    known: dict[str, Any] = {}
    if cache.is_file():
        stored = json.loads(cache.read_text(encoding="utf-8"))
        known = stored["pieces"] if stored["version"] == version else {}
    before = len(known)
    if args.pieces is None:
        missing = [name for name in paths if name not in known]
        parsed = parallel(
            read_piece,
            [paths[name] for name in missing],
            args.workers,
            "reading the corpus",
            "piece",
        )
        known.update(zip(missing, parsed, strict=True))
    pieces: dict[str, Any] = {}
    for name, path in paths.items():
        if len(pieces) == args.pieces:
            break
        known[name] = known.get(name) or read_piece(path)
        split = split_of(args.seed, known[name]["melody"])
        if split in args.splits and known[name]["parts"]:
            pieces[name] = {**known[name], "split": split}
    if len(known) > before and not args.dry_run:
        write(cache, json.dumps({"version": version, "pieces": known}).encode())
    return pieces


def find_soundfonts(given: list[Path] | None) -> tuple[str, ...]:
    """The SoundFonts given, or those of the known ones that are installed."""
    if not given:
        candidates = [
            Path(folder).expanduser() / name
            for name in SOUNDFONT_NAMES
            for folder in SOUNDFONT_FOLDERS
        ]
        found: dict[str, Path] = {}
        for path in candidates:
            if path.is_file():
                found.setdefault(path.stem, path)
        given = list(found.values())
        if not given:
            fail(
                f"no SoundFont found: install the Debian package {PACKAGES}, or name a .sf2 or .sf3 with --soundfont"
            )
    for path in given:
        try:
            with path.open("rb") as file:
                head = file.read(12)
        except OSError as error:
            fail(
                f"cannot read the SoundFont {path}: {error.strerror} (Debian packages: {PACKAGES})"
            )
        if head[:4] + head[8:] != b"RIFFsfbk":
            fail(f"{path} is not a SoundFont (.sf2 or .sf3)")
    return tuple(str(path) for path in given)


def check_libraries(dry_run: bool) -> None:
    """Everything that is imported later, so that what is missing is said at once."""
    for name in (
        ("numpy", "tqdm", "music21")
        if dry_run
        else ("numpy", "tqdm", "soundfile", "music21", "fluidsynth")
    ):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = "pyfluidsynth" if error.name == "fluidsynth" else error.name
            fail(f"{package} is not installed: pip install music21 pyfluidsynth")
        except (ImportError, OSError) as error:
            package = ": install the Debian package libfluidsynth3" if name == "fluidsynth" else ""
            fail(f"{name} does not load ({str(error).rstrip('.')}){package}")


def manifest(args: argparse.Namespace, soundfonts: tuple[str, ...]) -> dict[str, Any]:
    """What makes a run what it is. Fails where the output folder holds another."""
    import fluidsynth

    numbers = [fluidsynth.c_int() for _ in range(3)]
    fluidsynth.fluid_version(*numbers)
    libraries = ("music21", "numpy", "pyfluidsynth", "soundfile")
    fonts = [
        {"name": Path(f).name, "sha256": hashlib.sha256(Path(f).read_bytes()).hexdigest()}
        for f in soundfonts
    ]
    content = {
        "seed": args.seed,
        "paired": args.paired,
        "sample_rate": SAMPLE_RATE,
        "soundfonts": fonts,
        "programs": {name: INSTRUMENTS[name][0] for name in args.instruments},
        "arguments": {
            k: str(v) if isinstance(v, Path) else v
            for k, v in vars(args).items()
            if k != "soundfont"
        },
        "versions": {name: importlib.metadata.version(name) for name in libraries}
        | {"fluidsynth": ".".join(str(number.value) for number in numbers)},
    }
    path = args.output / "manifest.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for key in ("seed", "paired", "sample_rate", "soundfonts"):
            if stored.get(key) != content[key]:
                fail(
                    f"{args.output} was rendered with another {key} ({stored.get(key)}): choose another --output"
                )
        content["programs"] = stored["programs"] | content["programs"]
    return content


def summary(lengths: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, dict[str, float]]]:
    """(split, instrument, seconds) of every clip -> {split: {instrument: {"clips", "hours"}}}."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for split, instrument, seconds in sorted(lengths):
        cell = table.setdefault(split, {}).setdefault(instrument, {"clips": 0, "hours": 0.0})
        cell["clips"] += 1
        cell["hours"] += seconds / 3600
    return table


def show(table: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a summary."""
    cells = [(split, name, cell) for split, row in table.items() for name, cell in row.items()]
    for split, name, cell in cells:
        print(f"{split:6} {name:12} {cell['clips']:6} clips {cell['hours']:7.2f} h")
    clips, hours = (sum(cell[key] for _, _, cell in cells) for key in ("clips", "hours"))
    print(f"{'total':19} {clips:6} clips {hours:7.2f} h, about {hours * GIGABYTES_PER_HOUR:.2f} GB")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    args = make_parser(__doc__).parse_args(argv)
    args.instruments = [
        name.lower().replace(" ", "_").replace("-", "_") for name in args.instruments
    ]
    if "all" in args.instruments:
        args.instruments = list(INSTRUMENTS)
    if unknown := [name for name in args.instruments if name not in INSTRUMENTS]:
        fail(f"no instrument {', '.join(unknown)}: there are {', '.join(INSTRUMENTS)}, or all")
    args.instruments = list(dict.fromkeys(args.instruments))
    args.output = args.output.expanduser()
    return args


def run(
    args: argparse.Namespace, soundfonts: tuple[str, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """Render what is not there yet; returns the summary of all that is there then."""
    settings = Settings(args.output, soundfonts, args.seed, args.paired)
    if args.dry_run:
        clips = plan(load_pieces(args), args)
        return summary(
            (clip.split, clip.instrument, settings.performance(clip)[0].duration) for clip in clips
        )

    args.output.mkdir(parents=True, exist_ok=True)
    for leftover in args.output.rglob(f"{TEMPORARY}*"):
        leftover.unlink()
    content = manifest(args, soundfonts)
    write(
        args.output / "manifest.json", json.dumps({**content, "complete": False}, indent=1).encode()
    )
    clips = plan(load_pieces(args), args)
    there = [
        all((args.output / f"{c.stem}.{kind}").is_file() for kind in ("flac", "json"))
        for c in clips
    ]
    todo = [clip for clip, done in zip(clips, there, strict=True) if not done]
    print(f"{len(clips)} clips, {len(clips) - len(todo)} of them there already", flush=True)
    parallel(partial(render, settings=settings), todo, args.workers, "rendering", "clip")

    content |= {"complete": True, "clips": {}, "pieces": {}, "files": {}}
    lengths = []
    for path in sorted(path for split in SPLITS for path in (args.output / split).glob("*/*.json")):
        split, about = path.parts[-3], json.loads(path.read_text(encoding="utf-8"))
        lengths.append((split, about["instrument"], about["duration"]))
        content["pieces"][about["piece"]] = split
        content["files"][path.relative_to(args.output).with_suffix(".flac").as_posix()] = about[
            "sha256"
        ]
    content["clips"] = summary(lengths)
    write(args.output / "manifest.json", json.dumps(content, indent=1).encode())
    return content["clips"]


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    soundfonts = () if args.dry_run else find_soundfonts(args.soundfont)
    check_libraries(args.dry_run)
    try:
        table = run(args, soundfonts)
    except OSError as error:
        fail(f"cannot write to {args.output}: {error.strerror or error}")
    except SoundFontError as error:
        fail(str(error))
    except BrokenProcessPool:
        fail(
            "a worker was killed, perhaps for memory: run the same command again to go on, with fewer --workers"
        )
    except KeyboardInterrupt:
        print("render_dataset: interrupted: run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    show(table)


if __name__ == "__main__":
    main()
