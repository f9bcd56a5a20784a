"""What is evaluated: recordings with their notes, performances on several instruments, excerpts, finished outputs."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.instruments import instrument_of
from audio_diffusion_pytorch.pitch.notes import cut_notes

_SAME_ONSETS = 0.002  # seconds: notes of one performance on two instruments begin together
_LENGTHS_APART = 0.1  # seconds by which an output's length may differ from its input's
_FEWEST_NOTES = 4


@dataclass(frozen=True)
class Recording:
    """A file of the data.

    `performance` is its name without the instrument's; `notes` [N, 3] as in `notes.py`, None where no file tells them.
    `name` tells it from the others of its instrument (empty: the file's name does).
    """

    path: Path
    instrument: str
    performance: str
    seconds: float
    notes: np.ndarray | None = field(default=None, compare=False)
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Excerpt:
    """`seconds` of a recording from `start`, to be transferred to another instrument.

    truth: the same performance on the target instrument; None: there is none.
    truth_octaves: by how many octaves it lies above the input.
    """

    recording: Recording
    start: float
    seconds: float
    truth: Recording | None = None
    truth_octaves: int = 0

    @property
    def name(self) -> str:
        return f"{self.recording.name or self.recording.path.stem}@{self.start:g}"

    @property
    def notes(self) -> np.ndarray | None:
        """The input's notes [N, 3], times from the excerpt's start on."""
        return _notes(self.recording, self)

    @property
    def truth_notes(self) -> np.ndarray | None:
        return None if self.truth is None else _notes(self.truth, self)


def _notes(recording: Recording, excerpt: Excerpt) -> np.ndarray | None:
    if recording.notes is None:
        return None
    return cut_notes(recording.notes, excerpt.start, excerpt.start + excerpt.seconds)


def find_recordings(
    folder: str | Path, problems: Problems, without: Path | None = None
) -> list[Recording]:
    """The recordings under a folder, sorted by path; unreadable ones become problems.

    Those in the folder `without`, where an evaluation writes, are none.

    The instrument is that of the folder a file lies in, else the one in the file's name, else that of the nearest
    folder above. Notes are read from the .json file of the same name ("notes": [[onset, offset, MIDI pitch], ...]).

    Raises:
        InputError: no folder, or no recording of a known instrument in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder of clips: data={folder}")
    recordings = []
    for path in _audio_files(folder):
        if without is not None and path.resolve().is_relative_to(without.resolve()):
            continue
        above = path.relative_to(folder).parents[:-1]  # without the folder of all
        places = (*above[:1], path, *above[1:])
        instrument = next(filter(None, map(instrument_of, places)), None)
        if instrument is None:
            problems.add(f"{path}: no instrument's name in the file's or folders' names", path)
            continue
        try:
            seconds, notes = audio.info(path).seconds, _read_notes(path.with_suffix(".json"))
        except InputError as error:
            problems.add(str(error), path, path.with_suffix(".json"))
            continue
        recordings.append(
            Recording(path, instrument, _performance(path.stem, instrument), seconds, notes)
        )
    if not recordings:
        raise InputError(
            f"no recording to evaluate in data={folder}: clips need an instrument's name in the name of the file or of "
            "a folder" + "".join(f"; {line}" for line in problems.lines[:3])
        )
    named = Counter((r.instrument, r.path.stem) for r in recordings)
    return [
        replace(r, name=r.path.relative_to(folder).as_posix())
        if named[r.instrument, r.path.stem] > 1
        else r
        for r in recordings
    ]


def pairs_of(text: str | Sequence[str], instruments: Sequence[str]) -> list[tuple[str, str]]:
    """`all`, `flute-violin` or a list of such -> (source, target) pairs, in the given order.

    Args:
        instruments: what `all` means: every ordered pair of these.

    Raises:
        InputError: no pair, or something else than SOURCE-TARGET.
    """
    if not isinstance(text, str | Sequence):
        raise InputError(f"pairs={text} is no pair: give pairs=[flute-violin,...] or pairs=all")
    if isinstance(text, str) and text.lower() == "all":
        found = [(a, b) for a in instruments for b in instruments if a != b]
        if not found:
            raise InputError(
                f"pairs=all: clips and models of {len(instruments)} instruments in all, a pair needs two"
            )
        return found
    pairs = []
    for item in [text] if isinstance(text, str) else text:
        source, _, target = str(item).lower().replace("_", " ").partition("-")
        if not source.strip() or not target.strip() or "-" in target or source == target:
            raise InputError(
                f"pairs: {item!r} is no pair: write SOURCE-TARGET, for example flute-violin, or all"
            )
        pairs.append((source.strip(), target.strip()))
    if not pairs:
        raise InputError("pairs is empty: give pairs=[flute-violin,...] or pairs=all")
    return list(dict.fromkeys(pairs))


def choose_excerpts(
    recordings: Sequence[Recording],
    pair: tuple[str, str],
    count: int,
    seconds: float,
    octaves,
    problems: Problems,
) -> list[Excerpt]:
    """Up to `count` excerpts of the source instrument, spread over the performances, one of each before a second.

    Excerpts whose true performance lies in the register of the output come first.

    Args:
        octaves: function of a Recording -> octaves by which the input will be moved.
    """
    source, target = pair
    truths: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.instrument == target:
            truths[recording.performance].append(recording)
    tiers: dict[tuple[bool, int], list[Excerpt]] = defaultdict(list)
    for recording in recordings:
        if recording.instrument != source:
            continue
        if recording.seconds < seconds - 1e-3:
            problems.add(
                f"{recording.path}: shorter than an excerpt (seconds={seconds:g}), left out",
                recording.path,
            )
            continue
        truth = _truth(recording, truths[recording.performance])
        apart = None if truth is None else _octaves_apart(recording, truth)
        if truth is not None and truth.seconds < seconds - 1e-3:
            truth = None
        elsewhere = truth is None or apart != octaves(recording)
        length = min(r.seconds for r in (recording, truth) if r is not None)
        for index in range(int((length + 1e-3) / seconds)):
            excerpt = Excerpt(recording, index * seconds, seconds, truth, apart or 0)
            if excerpt.notes is None or len(excerpt.notes) >= _FEWEST_NOTES:
                tiers[elsewhere, index].append(excerpt)
    return _spread([tiers[key] for key in sorted(tiers)], count)


def real_excerpts(
    recordings: Sequence[Recording], instrument: str, count: int, seconds: float
) -> list[Excerpt]:
    """Up to `count` excerpts of an instrument, spread over its recordings."""
    tiers: dict[int, list[Excerpt]] = defaultdict(list)
    for recording in recordings:
        if recording.instrument == instrument:
            for index in range(int((recording.seconds + 1e-3) / seconds)):
                tiers[index].append(Excerpt(recording, index * seconds, seconds))
    return _spread([tiers[key] for key in sorted(tiers)], count)


def _spread(tiers: list[list[Excerpt]], count: int) -> list[Excerpt]:
    """`count` of the tiers' items: whole tiers as long as they fit, then evenly spaced ones of the next."""
    chosen: list[Excerpt] = []
    for tier in tiers:
        left = min(count - len(chosen), len(tier))
        chosen += [tier[i * len(tier) // left] for i in range(left)]
    return chosen


def _truth(recording: Recording, candidates: Sequence[Recording]) -> Recording | None:
    """The same performance on the target: where several files say so, the one in folders of the same names."""
    same = [other for other in candidates if _octaves_apart(recording, other) is not None]
    parts = set(recording.path.parts)
    return max(reversed(same), key=lambda other: len(parts & set(other.path.parts)), default=None)


def _octaves_apart(a: Recording, b: Recording) -> int | None:
    """Octaves of b above a where their notes say that both are one performance, else None."""
    if a.notes is None or b.notes is None or len(a.notes) != len(b.notes):
        return None
    if np.abs(a.notes[:, 0] - b.notes[:, 0]).max() > _SAME_ONSETS:
        return None
    semitones = float(np.median(b.notes[:, 2] - a.notes[:, 2]))
    return round(semitones / 12) if semitones % 12 == 0 else None


def _performance(stem: str, instrument: str) -> str:
    pattern = r"[\s_-]*".join(map(re.escape, instrument.split()))
    return re.sub(rf"[\s_-]*{pattern}[\s_-]*", "_", stem, flags=re.IGNORECASE).strip("_")


def _audio_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in audio.EXTENSIONS
        and path.is_file()
        and not path.name.startswith(".")
    )


def _read_notes(path: Path) -> np.ndarray | None:
    if not os.path.isfile(path):  # also where the name would be too long
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        notes = np.array([note[:3] for note in content["notes"]], float).reshape(-1, 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'cannot read the notes in {path}: it must be JSON with "notes": {error!r}'
        ) from error
    if len(notes) == 0 or not np.isfinite(notes).all() or (notes[:, 1] <= notes[:, 0]).any():
        raise InputError(
            f"cannot use the notes in {path}: each needs an onset, a later offset and a MIDI pitch"
        )
    return notes[np.argsort(notes[:, 0], kind="stable")]
