"""Find recordings, their notes and performances, and choose the excerpts to score."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.instruments import instrument_of
from audio_diffusion_pytorch.pitch.notes import cut_notes
from audio_diffusion_pytorch.utils.settings import as_typed

_SAME_ONSETS = 0.002  # seconds between the onsets of one performance on two instruments
_FEWEST_NOTES = 4  # of an excerpt with known notes
_ROUNDING = 1e-3  # seconds by which a file may be shorter than its excerpts


@dataclass(frozen=True)
class Recording:
    """A file of the data.

    Attributes:
        path: the file.
        instrument: name of its instrument.
        performance: name of the file without the name of the instrument.
        seconds: length.
        notes: onset, offset (seconds) and MIDI pitch of each note [N, 3]; None if unknown.
        name: unique name among the instrument's recordings; empty if the file's name is unique.
    """

    path: Path
    instrument: str
    performance: str
    seconds: float
    notes: np.ndarray | None = field(default=None, compare=False)
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording.

    Attributes:
        recording: the recording.
        start: start in seconds.
        seconds: length.
        truth: the same performance on the target instrument; None if unknown.
        truth_octaves: octaves from the recording up to its true performance.
    """

    recording: Recording
    start: float
    seconds: float
    truth: Recording | None = None
    truth_octaves: int = 0

    @property
    def name(self) -> str:
        """Name in tables and files: `tune@12` for the excerpt from 12 s."""
        return f"{self.recording.name or self.recording.path.stem}@{self.start:g}"

    @property
    def notes(self) -> np.ndarray | None:
        """Notes [N, 3] of the recording, timed from the start of the excerpt; None if unknown."""
        return self._cut(self.recording)

    @property
    def truth_notes(self) -> np.ndarray | None:
        """Notes [N, 3] of the true performance, timed from the excerpt's start; None if unknown."""
        return None if self.truth is None else self._cut(self.truth)

    def _cut(self, recording: Recording) -> np.ndarray | None:
        if recording.notes is None:
            return None
        return cut_notes(recording.notes, self.start, self.start + self.seconds)


def find_recordings(
    folder: str | Path, problems: Problems, without: Path | None = None
) -> list[Recording]:
    """Find the recordings in a folder and its subfolders.

    The name of the instrument comes from the folder of a file, else from the file's name, else from
    the nearest folder above. Notes come from the .json file of the same name:
    `{"notes": [[onset, offset, MIDI pitch], ...]}`.

    Args:
        folder: folder of the recordings.
        problems: collects unreadable files and files without an instrument.
        without: subfolder to leave out, for example the evaluation's output.

    Returns:
        The recordings, sorted by path.

    Raises:
        InputError: the folder is missing, or has no recording of a known instrument.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder of clips: data={folder}")
    recordings = []
    for path in audio_files(folder):
        if without is not None and path.resolve().is_relative_to(without.resolve()):
            continue
        recording = _read_recording(path, folder, problems)
        if recording is not None:
            recordings.append(recording)
    if not recordings:
        reasons = "".join(f"; {line}" for line in problems.lines[:3])
        raise InputError(
            f"no recording to evaluate in data={folder}: "
            f"clips need an instrument's name in the name of the file or of a folder{reasons}"
        )
    return _with_unique_names(recordings, folder)


def _read_recording(path: Path, folder: Path, problems: Problems) -> Recording | None:
    above = path.relative_to(folder).parents[:-1]  # all but `folder` itself
    places = (*above[:1], path, *above[1:])
    instrument = next(filter(None, map(instrument_of, places)), None)
    if instrument is None:
        problems.add(f"{path}: no instrument's name in the file's or folders' names", path)
        return None
    notes_path = path.with_suffix(".json")
    try:
        seconds = audio.info(path).seconds
        notes = _read_notes(notes_path)
    except InputError as error:
        problems.add(str(error), path, notes_path)
        return None
    return Recording(path, instrument, _performance(path.stem, instrument), seconds, notes)


def _with_unique_names(recordings: Sequence[Recording], folder: Path) -> list[Recording]:
    """Name recordings of one instrument and one file name by their paths."""
    count = Counter((recording.instrument, recording.path.stem) for recording in recordings)
    return [
        replace(recording, name=recording.path.relative_to(folder).as_posix())
        if count[recording.instrument, recording.path.stem] > 1
        else recording
        for recording in recordings
    ]


def pairs_of(text: str | Sequence[str], instruments: Sequence[str]) -> list[tuple[str, str]]:
    """Parse the setting `pairs`.

    Args:
        text: `all`, a pair such as `flute-violin`, or a list of pairs.
        instruments: instruments of which `all` means every ordered pair.

    Returns:
        Source and target of each pair, in the given order.

    Raises:
        InputError: a pair is not SOURCE-TARGET, or there is no pair.
    """
    if not isinstance(text, str | Sequence):
        raise InputError(
            f"pairs={as_typed(text)} must be all, or a list of pairs such as "
            "[flute-violin,violin-flute]"
        )
    if isinstance(text, str) and text.lower() == "all":
        found = [(a, b) for a in instruments for b in instruments if a != b]
        if not found:
            raise InputError(
                f"pairs=all needs clips and models of two instruments, found {len(instruments)}"
            )
        return found
    pairs = [_pair(item) for item in ([text] if isinstance(text, str) else text)]
    if not pairs:
        raise InputError("pairs is empty: give pairs=[flute-violin,...] or pairs=all")
    return list(dict.fromkeys(pairs))


def _pair(item: object) -> tuple[str, str]:
    source, _, target = str(item).lower().replace("_", " ").partition("-")
    if not source.strip() or not target.strip() or "-" in target or source == target:
        raise InputError(
            f"pairs: {item!r} is not a pair: write SOURCE-TARGET, for example flute-violin, or all"
        )
    return source.strip(), target.strip()


def choose_excerpts(
    recordings: Sequence[Recording],
    pair: tuple[str, str],
    count: int,
    seconds: float,
    octaves: Callable[[Recording], int | None],
    problems: Problems,
) -> list[Excerpt]:
    """Choose excerpts of the source instrument, spread over the performances.

    Excerpts whose true performance lies in the output's register are preferred, then first excerpts
    of a performance.

    Args:
        recordings: recordings of all instruments.
        pair: source and target instrument.
        count: most excerpts.
        seconds: length of an excerpt.
        octaves: function that returns the octaves by which a recording will be moved.
        problems: collects recordings that are too short.

    Returns:
        At most `count` excerpts.
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
        if recording.seconds < seconds - _ROUNDING:
            problems.add(
                f"{recording.path}: shorter than an excerpt (seconds={seconds:g}), left out",
                recording.path,
            )
            continue
        truth = _truth(recording, truths[recording.performance])
        apart = None if truth is None else _octaves_apart(recording, truth)
        if truth is not None and truth.seconds < seconds - _ROUNDING:
            truth = None
        elsewhere = truth is None or apart != octaves(recording)
        length = recording.seconds if truth is None else min(recording.seconds, truth.seconds)
        for index in range(int((length + _ROUNDING) / seconds)):
            excerpt = Excerpt(recording, index * seconds, seconds, truth, apart or 0)
            if excerpt.notes is None or len(excerpt.notes) >= _FEWEST_NOTES:
                tiers[elsewhere, index].append(excerpt)
    return _spread([tiers[key] for key in sorted(tiers)], count)


def real_excerpts(
    recordings: Sequence[Recording], instrument: str, count: int, seconds: float
) -> list[Excerpt]:
    """Choose excerpts of an instrument, spread over its recordings.

    Args:
        recordings: recordings of all instruments.
        instrument: name of the instrument.
        count: most excerpts.
        seconds: length of an excerpt.

    Returns:
        At most `count` excerpts.
    """
    tiers: dict[int, list[Excerpt]] = defaultdict(list)
    for recording in recordings:
        if recording.instrument == instrument:
            for index in range(int((recording.seconds + _ROUNDING) / seconds)):
                tiers[index].append(Excerpt(recording, index * seconds, seconds))
    return _spread([tiers[key] for key in sorted(tiers)], count)


def _spread(tiers: list[list[Excerpt]], count: int) -> list[Excerpt]:
    """Choose `count` excerpts: all of the first tiers, then some of the next, evenly spaced."""
    chosen: list[Excerpt] = []
    for tier in tiers:
        left = min(count - len(chosen), len(tier))
        chosen += [tier[i * len(tier) // left] for i in range(left)]
    return chosen


def _truth(recording: Recording, candidates: Sequence[Recording]) -> Recording | None:
    """Find the same performance on the target.

    Of several files, the function returns the file with most folder names in common.
    """
    same = [other for other in candidates if _octaves_apart(recording, other) is not None]
    parts = set(recording.path.parts)
    return max(reversed(same), key=lambda other: len(parts & set(other.path.parts)), default=None)


def _octaves_apart(a: Recording, b: Recording) -> int | None:
    """Return the octaves from a up to b if their notes are one performance, else None."""
    if a.notes is None or b.notes is None or len(a.notes) != len(b.notes):
        return None
    if np.abs(a.notes[:, 0] - b.notes[:, 0]).max() > _SAME_ONSETS:
        return None
    semitones = float(np.median(b.notes[:, 2] - a.notes[:, 2]))
    return round(semitones / 12) if semitones % 12 == 0 else None


def _performance(stem: str, instrument: str) -> str:
    """Remove the instrument's name from a file's name."""
    pattern = r"[\s_-]*".join(map(re.escape, instrument.split()))
    return re.sub(rf"[\s_-]*{pattern}[\s_-]*", "_", stem, flags=re.IGNORECASE).strip("_")


def audio_files(folder: Path) -> list[Path]:
    """Find the audio files below a folder, sorted by path, without hidden files."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in audio.EXTENSIONS
        and path.is_file()
        and not path.name.startswith(".")
    )


def _read_notes(path: Path) -> np.ndarray | None:
    if not os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        notes = np.array([note[:3] for note in content["notes"]], float).reshape(-1, 3)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'cannot read the notes in {path}: expected JSON with "notes": {error!r}'
        ) from error
    if len(notes) == 0 or not np.isfinite(notes).all() or (notes[:, 1] <= notes[:, 0]).any():
        raise InputError(
            f"cannot use the notes in {path}: each needs an onset, a later offset and a MIDI pitch"
        )
    return notes[np.argsort(notes[:, 0], kind="stable")]
