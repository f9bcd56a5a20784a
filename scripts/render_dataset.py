"""Render a training set from Bach chorales: one FLAC clip per monophonic part, and the notes played beside it.

Reads the chorales of the music21 corpus, moves every part into an instrument's register, plays it as a player would
(tempo, timing, velocity, swells and vibrato drawn from a seed) through a SoundFont with FluidSynth:

    python scripts/render_dataset.py --output data/chorales --instruments flute violin
    python scripts/render_dataset.py --output data/paired --instruments flute violin --splits test --paired

Needs the `data` extra (pip install -e ".[data]"), the FluidSynth library and a General MIDI SoundFont.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 24_000  # Hz, of the clips
RENDER_RATE = 48_000  # Hz: FluidSynth does not low-pass what it transposes, so render above and decimate
BLOCK = 64  # samples at RENDER_RATE: FluidSynth acts on events once per block, so all times are whole blocks
PEAK = 10 ** (-6 / 20)  # every clip's peak, of full scale
TAIL = 0.6  # seconds after the last note-off
LONGEST_REST = 4.0  # quarter notes: longer rests are cut to this
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}
PARTS_PER_PIECE = 1.2  # five instruments: about 30 hours
GIGABYTES_PER_HOUR = 0.09
TEMPORARY = ".render-"

# name: (General MIDI program counted from 0, lowest and highest sounding MIDI pitch)
INSTRUMENTS = {
    "violin": (40, 55, 93),
    "viola": (41, 48, 81),
    "cello": (42, 36, 74),
    "double_bass": (43, 28, 60),
    "flute": (73, 60, 93),
    "oboe": (68, 58, 88),
    "clarinet": (71, 50, 86),
    "bassoon": (70, 34, 70),
    "saxophone": (65, 49, 81),
    "trumpet": (56, 54, 82),
    "horn": (60, 41, 77),
    "trombone": (57, 40, 72),
    "tuba": (58, 28, 60),
}
SOUNDFONT_FOLDERS = ("/usr/share/sounds/sf3", "/usr/share/sounds/sf2", "/usr/share/soundfonts", "~/.local/share/sounds")
SOUNDFONT_NAMES = ("MuseScore_General.sf3", "MuseScore_General.sf2", "FluidR3_GM.sf2", "FluidR3_GM.sf3")
PACKAGES = "musescore-general-soundfont or fluid-soundfont-gm"


def fail(message: str) -> NoReturn:
    """One line on stderr, exit status 2."""
    print(f"render_dataset: error: {message}", file=sys.stderr)
    raise SystemExit(2)


def digest(*key: Any) -> int:
    """The same 64-bit number for the same key, in every process and version of Python."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


def generator(*key: Any) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(digest(*key))


# Pieces: what the corpus holds, as plain lists


def read_piece(path: str) -> dict[str, Any]:
    """The monophonic parts of a score: {"parts": {"p1": {"name", "notes"}}, "melody": [interval, ...]}.

    A note is [onset, length (both in quarter notes), MIDI pitch, 1 under a fermata else 0]; ties are merged. Parts with
    chords or two voices, with few notes or pitches (timpani) and doublings of an earlier part are left out.
    """
    from music21 import converter

    score, fermatas, lines = converter.parse(path, forceSource=True, storePickle=False), set(), []
    for part in score.parts:
        notes, monophonic = [], True
        for note in part.flatten().notes:
            onset, length = float(note.offset), float(note.quarterLength)
            if note.duration.isGrace:
                continue
            monophonic = monophonic and note.isNote and (not notes or onset > sum(notes[-1][:2]) - 1e-3)
            if any("Fermata" in mark.classes for mark in note.expressions):
                fermatas.add(round(onset + length, 3))
            if not monophonic:
                continue
            tied = note.tie is not None and note.tie.type in ("stop", "continue")
            if tied and notes and notes[-1][2] == note.pitch.midi and abs(sum(notes[-1][:2]) - onset) < 1e-3:
                notes[-1][1] += length
            else:
                notes.append([onset, length, note.pitch.midi])
        if monophonic and len(notes) >= 16 and len({pitch for _, _, pitch in notes}) >= 5:
            lines.append((" ".join(str(part.partName or "part").split()), notes))

    parts: dict[str, Any] = {}
    for name, notes in lines:
        if any([n[:3] for n in other["written"]] == notes for other in parts.values()):
            continue
        parts[f"p{len(parts) + 1}"] = {"name": name, "written": notes, "notes": without_long_rests(notes, fermatas)}
    for part in parts.values():
        del part["written"]
    # Tunes come back in several chorales, transposed and with other endings: their beginning tells them apart.
    tune = next((p["notes"] for p in parts.values() if p["name"].startswith("Soprano")), None)
    tune = tune or next((p["notes"] for p in parts.values()), [])
    return {"parts": parts, "melody": [int(b[2] - a[2]) for a, b in pairwise(tune[:13])]}


def without_long_rests(notes: list[list[float]], fermatas: set[float]) -> list[list[float]]:
    """The part from its first note on, its rests at most LONGEST_REST, the notes that sound when a fermata ends marked."""
    out, end, shift = [], notes[0][0], notes[0][0]
    for onset, length, pitch in notes:
        shift += max(0.0, onset - end - LONGEST_REST)
        end = onset + length
        held = any(onset < fermata <= end + 1e-3 for fermata in fermatas)
        out.append([round(onset - shift, 4), round(length, 4), pitch, int(held)])
    return out


def split_of(seed: int, melody: list[int]) -> str:
    """The split of every piece with this melody: chorales on one tune, in whatever key, never lie in two splits."""
    position = digest(seed, "split", melody) / 2**64
    for name, share in SPLITS.items():
        if position < share:
            return name
        position -= share
    return name


# The player


@dataclass
class Performance:
    """What a player does, in seconds from the start of the clip and apart from any instrument."""

    notes: list[tuple[float, float, int, int]]  # onset, offset, MIDI pitch as written, velocity
    controls: list[tuple[float, str, int]]  # time, "expression" (0 to 127) or "bend" (8192 = two semitones), value
    duration: float
    bpm: float  # before rubato


def perform(part: list[list[float]], rng: np.random.Generator) -> Performance:
    """Draw one performance of a part: tempo and its drift, timing, articulation, dynamics, swells, vibrato."""
    import numpy as np

    onset, length, pitch, held = (np.array(column, dtype=float) for column in zip(*part))
    n, end = len(onset), onset[-1] + length[-1]
    held[-1] = 1

    # Beats to seconds: a slow drift, slower into a fermata, slower still on it.
    bpm = rng.uniform(60, 110)
    grid = np.linspace(0, end, 16 * math.ceil(end) + 1)
    pace = 1 + rng.uniform(0, 0.06) * np.sin(2 * np.pi * (grid / rng.uniform(12, 32) + rng.uniform()))
    slowing, hold = rng.uniform(0.02, 0.15), rng.uniform(1.0, 1.6)
    for k in np.flatnonzero(held):
        pace *= 1 - slowing * np.clip(1 - (onset[k] - grid) / 2, 0, 1) * (grid < onset[k] + length[k])
        pace /= np.where((grid >= onset[k]) & (grid < onset[k] + length[k]), hold, 1.0)
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(grid) * 60 / bpm / pace[:-1])])
    start = np.interp(onset, grid, seconds) + rng.normal(0, 0.01, n).clip(-0.025, 0.025)
    start = np.maximum.accumulate(start - 0.05 * np.arange(n)) + 0.05 * np.arange(n)  # in order, 50 ms apart or more
    start += rng.uniform(0.1, 0.3) - start[0]

    # Note-offs: from detached to slightly overlapping; a breath after fermatas; a gap before a repeated pitch.
    sounding = np.diff(np.interp(np.stack([onset, onset + length]), grid, seconds), axis=0)[0]
    articulation = rng.uniform(0.75, 1.06)
    gap = np.clip((1 - articulation) * sounding, -0.05, 0.25) + rng.normal(0, 0.008, n)
    gap = np.where(held > 0, np.maximum(gap, rng.uniform(0.05, 0.2)), gap)
    stop = start + np.maximum(sounding - gap, 0.06)
    latest = start[1:] + np.where(pitch[1:] == pitch[:-1], -0.02, 0.05)
    stop[:-1] = np.maximum(np.minimum(stop[:-1], latest), start[:-1] + 0.02)

    # Phrases run from fermata to fermata, at most some bars; each swells and falls.
    position = np.zeros(n)
    breaks, longest = [0], rng.uniform(10, 18)
    for k in range(1, n):
        if held[k - 1] or onset[k] - onset[breaks[-1]] > longest:
            breaks.append(k)
    for a, b in zip(breaks, [*breaks[1:], n]):
        position[a:b] = (np.arange(a, b) - a + 0.5) / (b - a)
    arc = np.sin(np.pi * position ** rng.uniform(0.7, 1.3))
    loudness = rng.uniform(50, 100) + rng.uniform(4, 18) * (arc - 0.5) + 0.3 * (pitch - pitch.mean())
    velocity = np.rint(loudness + rng.normal(0, 4, n)).clip(25, 120).astype(int)

    # Expression and pitch bend, on a grid of 8 ms.
    duration = stop.max() + TAIL
    time = np.arange(0, duration, 0.008)
    now = np.searchsorted(start, time, side="right").clip(1) - 1
    inside = ((time - start[now]) / (stop - start)[now]).clip(0, 1)
    swell = np.interp(time, start, arc)
    single = np.sin(np.pi * inside ** rng.uniform(0.5, 1.0)) * ((stop - start)[now] > 0.5)
    expression = 127 - rng.uniform(0, 35) * (1 - swell) - rng.uniform(0, 18) * (1 - single)
    depth = rng.choice([0.0, rng.uniform(5, 30)], p=[0.35, 0.65])  # cents
    delay = rng.uniform(0.1, 0.35, n)
    ramp = ((time - start[now] - delay[now]) / 0.25).clip(0, 1)
    rate = rng.uniform(4.6, 6.3) * (1 + 0.06 * np.interp(time, start, rng.normal(0, 1, n)))
    vibrato = depth * ramp * np.sin(2 * np.pi * np.cumsum(rate) * 0.008)
    controls = [*changes(time[::3], "expression", expression[::3]), *changes(time, "bend", vibrato * 8192 / 200)]

    notes = [(whole_blocks(a), whole_blocks(b), int(p), int(v)) for a, b, p, v in zip(start, stop, pitch, velocity)]
    return Performance(notes, sorted(controls), whole_blocks(duration), bpm)


def changes(time: np.ndarray, kind: str, values: np.ndarray) -> Iterator[tuple[float, str, int]]:
    """The controls that say something new, values rounded."""
    last = None
    for t, value in zip(time.tolist(), values.round().astype(int).tolist()):
        if value != last:
            yield whole_blocks(t), kind, value
        last = value


def whole_blocks(seconds: float) -> float:
    return round(seconds * RENDER_RATE / BLOCK) * BLOCK / RENDER_RATE


def octaves_into(instrument: str, pitches: list[int]) -> int | None:
    """Octaves that bring a part nearest the middle of the instrument's range; None where over 2 % stay outside it."""
    _, low, high = INSTRUMENTS[instrument]
    mean = sum(pitches) / len(pitches)

    def cost(octaves: int) -> tuple[int, float]:
        outside = sum(not low <= pitch + 12 * octaves <= high for pitch in pitches)
        return outside, abs(mean + 12 * octaves - (low + high) / 2)

    best = min(range(-5, 6), key=cost)
    return best if cost(best)[0] <= 0.02 * len(pitches) else None


def played_pitch(instrument: str, pitch: int, octaves: int) -> int:
    """The pitch that sounds: moved with its part, strays folded back into the range."""
    _, low, high = INSTRUMENTS[instrument]
    pitch += 12 * octaves
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


# Sound


def play(performance: Performance, pitches: list[int], soundfont: str, program: int) -> np.ndarray:
    """The performance with these pitches through a SoundFont: [T] float32 at SAMPLE_RATE, dry, its peak at PEAK.

    Every clip has a new synthesizer: FluidSynth's voices start from where they stopped in the clip before.
    """
    import fluidsynth
    import numpy as np

    # Float samples: the dither of the 16-bit ones depends on the past too. Only a program's own samples are loaded.
    pointer, integer = fluidsynth.c_void_p, fluidsynth.c_int
    types = (pointer, integer, pointer, integer, integer, pointer, integer, integer)
    write = fluidsynth.cfunc("fluid_synth_write_float", integer, *((f"a{i}", kind, 1) for i, kind in enumerate(types)))
    options = {"synth.reverb.active": 0, "synth.chorus.active": 0, "synth.dynamic-sample-loading": 1}
    synth = fluidsynth.Synth(gain=0.5, samplerate=RENDER_RATE, channels=16, **options)
    try:
        font = synth.sfload(soundfont)
        if font == -1:
            raise ValueError(f"{soundfont} is no SoundFont that FluidSynth can read")
        if synth.program_select(0, font, 0, program) != 0:
            raise ValueError(f"{soundfont} has no General MIDI program {program}")
        actions = [(time, 0, kind, value, 0) for time, kind, value in performance.controls]
        for (onset, offset, _, velocity), pitch in zip(performance.notes, pitches):
            actions += [(offset, 1, "off", pitch, 0), (onset, 2, "on", pitch, velocity)]
        stereo = np.empty((2, round(performance.duration * RENDER_RATE)), np.float32)
        left, right = (side.ctypes.data for side in stereo)
        done = 0
        for time, _, kind, value, velocity in [*sorted(actions), (performance.duration, 3, "end", 0, 0)]:
            now = round(time * RENDER_RATE)
            if now > done:
                write(synth.synth, now - done, left, done, 1, right, done, 1)
                done = now
            if kind == "expression":
                synth.cc(0, 11, value)
            elif kind == "bend":
                synth.pitch_bend(0, value)
            elif kind == "off":
                synth.noteoff(0, value)
            elif kind == "on":
                synth.noteon(0, value, velocity)
    finally:
        synth.delete()
    audio = halve(stereo.mean(axis=0))
    return audio * (PEAK / max(float(np.abs(audio).max()), 1e-9))


def halve(audio: np.ndarray) -> np.ndarray:
    """[T] at 48 kHz -> [T / 2] at 24 kHz. Linear phase, flat to 11 kHz, -90 dB from 12.1 kHz; overlap-save, whose spectra
    are cut in half."""
    import numpy as np

    size, taps = 8192, 257
    t = np.arange(taps) - taps // 2
    kernel = 0.481 * np.sinc(0.481 * t) * np.kaiser(taps, 9.0)
    response = np.fft.rfft(kernel, size)[: size // 4 + 1].astype(np.complex64) / 2
    hop, half = size - taps + 1, taps // 2
    count = math.ceil(len(audio) / hop)
    padded = np.pad(audio, (half, count * hop + taps - len(audio)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    out = np.fft.irfft(np.fft.rfft(frames)[:, : size // 4 + 1] * response, size // 2)[:, half:]
    return np.ascontiguousarray(out.reshape(-1)[: (len(audio) + 1) // 2], dtype=np.float32)


# Clips


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
        soundfont = self.soundfonts[digest("soundfont", *key) % len(self.soundfonts)] if self.soundfonts else ""
        return perform(clip.notes, generator("performance", *key)), soundfont


def plan(pieces: dict[str, dict[str, Any]], args: argparse.Namespace) -> list[Clip]:
    """Every clip of a run. The parts of a piece that are played are drawn per instrument, or once for all if paired."""
    clips = []
    for piece, content in pieces.items():
        for instrument in args.instruments:
            rng = generator("parts", args.seed, piece, "" if args.paired else instrument)
            count = max(1, int(args.parts_per_piece + rng.random()))
            names = [list(content["parts"])[k] for k in rng.permutation(len(content["parts"]))]
            parts = [(name, content["parts"][name]["notes"]) for name in names]
            fits = [(name, notes, octaves_into(instrument, [n[2] for n in notes])) for name, notes in parts]
            chosen = fits[:count] if args.paired else [fit for fit in fits if fit[2] is not None][:count]
            for name, notes, octaves in chosen:
                if octaves is not None:
                    takes = range(args.takes)
                    clips += [Clip(content["split"], piece, name, t, instrument, octaves, notes) for t in takes]
    return clips


def render(clip: Clip, settings: Settings) -> None:
    """Write one clip and the notes beside it; the notes last, so that they say that both are whole."""
    import soundfile

    performance, soundfont = settings.performance(clip)
    pitches = [played_pitch(clip.instrument, pitch, clip.octaves) for _, _, pitch, _ in performance.notes]
    program = INSTRUMENTS[clip.instrument][0]
    audio, flac = play(performance, pitches, soundfont, program), io.BytesIO()
    soundfile.write(flac, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    notes = [[round(on, 6), round(off, 6), pitch] for (on, off, _, _), pitch in zip(performance.notes, pitches)]
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


def parallel(function: Callable[[Any], Any], items: list[Any], workers: int, title: str, unit: str) -> list[Any]:
    """The function of every item, in order, with a progress bar."""
    from tqdm import tqdm

    progress = partial(tqdm, total=len(items), desc=title, unit=unit, dynamic_ncols=True, disable=not items)
    if min(workers, len(items)) <= 1:
        return [function(item) for item in progress(items)]
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("spawn")) as executor:
        try:
            futures = [executor.submit(function, item) for item in items]
            for future in progress(as_completed(futures)):
                future.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def load_pieces(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The pieces of the splits asked for, parsed once and kept in the output folder."""
    import music21

    paths = {path.stem: str(path) for path in sorted(music21.corpus.getComposer("bach")) if path.suffix != ".rntxt"}
    version, cache = f"1, music21 {music21.__version__}", args.output / ".pieces.json"
    known: dict[str, Any] = {}
    if cache.is_file():
        stored = json.loads(cache.read_text())
        known = stored["pieces"] if stored["version"] == version else {}
    before = len(known)
    if args.pieces is None:
        missing = [name for name in paths if name not in known]
        parsed = parallel(read_piece, [paths[name] for name in missing], args.workers, "reading the corpus", "piece")
        known.update(zip(missing, parsed))
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
        candidates = [Path(folder).expanduser() / name for name in SOUNDFONT_NAMES for folder in SOUNDFONT_FOLDERS]
        found = {path.stem: path for path in reversed(candidates) if path.is_file()}
        given = sorted(found.values(), reverse=True)
        if not given:
            fail(f"no SoundFont found: install the Debian package {PACKAGES}, or name a .sf2 or .sf3 with --soundfont")
    for path in given:
        try:
            with path.open("rb") as file:
                head = file.read(12)
        except OSError as error:
            fail(f"cannot read the SoundFont {path}: {error.strerror} (Debian packages: {PACKAGES})")
        if head[:4] + head[8:] != b"RIFFsfbk":
            fail(f"{path} is not a SoundFont (.sf2 or .sf3)")
    return tuple(str(path) for path in given)


def check_libraries(dry_run: bool) -> None:
    """Everything that is imported later, so that what is missing is said at once."""
    for name in ("numpy", "tqdm", "music21") if dry_run else ("numpy", "tqdm", "soundfile", "music21", "fluidsynth"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = "pyfluidsynth" if error.name == "fluidsynth" else error.name
            fail(f'{package} is not installed: pip install -e ".[data]"')
        except (ImportError, OSError) as error:
            package = "libfluidsynth3" if name == "fluidsynth" else name
            fail(f"{name} does not load ({error}): install the Debian package {package}".replace("..", "."))


def manifest(args: argparse.Namespace, soundfonts: tuple[str, ...]) -> dict[str, Any]:
    """What makes a run what it is. Fails where the output folder holds another."""
    import fluidsynth

    numbers = [fluidsynth.c_int() for _ in range(3)]
    fluidsynth.fluid_version(*numbers)
    libraries = ("music21", "numpy", "pyfluidsynth", "soundfile")
    fonts = [{"name": Path(f).name, "sha256": hashlib.sha256(Path(f).read_bytes()).hexdigest()} for f in soundfonts]
    content = {
        "seed": args.seed,
        "paired": args.paired,
        "sample_rate": SAMPLE_RATE,
        "soundfonts": fonts,
        "programs": {name: INSTRUMENTS[name][0] for name in args.instruments},
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k != "soundfont"},
        "versions": {name: importlib.metadata.version(name) for name in libraries}
        | {"fluidsynth": ".".join(str(number.value) for number in numbers)},
    }
    path = args.output / "manifest.json"
    if path.is_file():
        stored = json.loads(path.read_text())
        for key in ("seed", "paired", "sample_rate", "soundfonts"):
            if stored.get(key) != content[key]:
                fail(f"{args.output} was rendered with another {key} ({stored.get(key)}): choose another --output")
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
    cells = [(split, name, cell) for split, row in table.items() for name, cell in row.items()]
    for split, name, cell in cells:
        print(f"{split:6} {name:12} {cell['clips']:6} clips {cell['hours']:7.2f} h")
    clips, hours = (sum(cell[key] for _, _, cell in cells) for key in ("clips", "hours"))
    print(f"{'total':19} {clips:6} clips {hours:7.2f} h, about {hours * GIGABYTES_PER_HOUR:.2f} GB")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder to write; what is there already is not rendered again")
    add("--instruments", nargs="+", default=["all"], metavar="NAME", help=f"all (default), or of {names(INSTRUMENTS)}")
    add(
        "--soundfont",
        type=Path,
        action="append",
        metavar="PATH",
        help="a General MIDI .sf2 or .sf3; more than once: "
        "one is drawn per performance (default: MuseScore General and FluidR3, whichever are installed)",
    )
    add("--seed", type=int, default=0, help="of the split, the parts and the performances (default 0)")
    add("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: all three, 80, 10 and 10 %%")
    add("--paired", action="store_true", help="each instrument plays the same performances, in its own register")
    add("--takes", type=positive(int), default=1, metavar="N", help="performances of a part (default 1)")
    add(
        "--parts-per-piece",
        type=positive(float),
        default=PARTS_PER_PIECE,
        metavar="X",
        help="how many of a piece's "
        f"parts an instrument plays; 1.5: one, and in half of the pieces two (default {PARTS_PER_PIECE})",
    )
    add("--pieces", type=positive(int), metavar="N", help="only the first N pieces of the splits, for a quick try")
    add(
        "--workers", type=positive(int), default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    add("--dry-run", action="store_true", help="print clips, hours and disk space; write nothing")
    args = parser.parse_args(argv)
    args.instruments = [name.lower().replace(" ", "_").replace("-", "_") for name in args.instruments]
    if "all" in args.instruments:
        args.instruments = list(INSTRUMENTS)
    if unknown := [name for name in args.instruments if name not in INSTRUMENTS]:
        fail(f"no instrument {names(unknown)}: there are {names(INSTRUMENTS)}, or all")
    args.instruments = list(dict.fromkeys(args.instruments))
    args.output = args.output.expanduser()
    return args


def names(items: Iterable[str]) -> str:
    return ", ".join(items)


def positive(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not 0 < (value := kind(text)) < math.inf:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse: "invalid positive int value: '0'"
    return parse


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_libraries(args.dry_run)
    soundfonts = () if args.dry_run else find_soundfonts(args.soundfont)
    settings = Settings(args.output, soundfonts, args.seed, args.paired)
    try:
        if args.dry_run:
            clips = plan(load_pieces(args), args)
            show(summary((c.split, c.instrument, settings.performance(c)[0].duration) for c in clips))
            return
        args.output.mkdir(parents=True, exist_ok=True)
        for leftover in args.output.rglob(f"{TEMPORARY}*"):
            leftover.unlink()
        content = manifest(args, soundfonts)
        write(args.output / "manifest.json", json.dumps({**content, "complete": False}, indent=1).encode())
        pieces = load_pieces(args)
        clips = plan(pieces, args)
        there = [all((args.output / f"{c.stem}.{kind}").is_file() for kind in ("flac", "json")) for c in clips]
        todo = [clip for clip, done in zip(clips, there) if not done]
        print(f"{len(clips)} clips, {len(clips) - len(todo)} of them there already")
        parallel(partial(render, settings=settings), todo, args.workers, "rendering", "clip")

        files = sorted(path for split in SPLITS for path in (args.output / split).glob("*/*.json"))
        abouts = {path: json.loads(path.read_text()) for path in files}
        table = summary((p.parent.parent.name, a["instrument"], a["duration"]) for p, a in abouts.items())
        content["splits"] = {
            split: sorted({a["piece"] for p, a in abouts.items() if p.parts[-3] == split}) for split in table
        }
        content["clips"] = table
        content["files"] = {
            path.relative_to(args.output).with_suffix(".flac").as_posix(): a["sha256"] for path, a in abouts.items()
        }
        write(args.output / "manifest.json", json.dumps({**content, "complete": True}, indent=1).encode())
        show(table)
    except OSError as error:
        fail(f"cannot write to {args.output}: {error}")
    except ValueError as error:
        fail(str(error))
    except BrokenProcessPool:
        fail("a worker was killed, perhaps for memory: run the same command again to go on, with fewer --workers")
    except KeyboardInterrupt:
        print("render_dataset: interrupted: run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
