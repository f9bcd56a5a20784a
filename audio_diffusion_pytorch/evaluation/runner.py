"""Making and scoring clips, each kept in a folder as soon as it is done, so that an interrupted evaluation goes on.

Outputs are keyed by what their sound depends on (content of the input, excerpt, register, models, settings), scores by
the output's key and what they were measured with and against. Nothing with a known key is computed again.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import Excerpt, Recording
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.scores import VERSION as SCORES_VERSION
from audio_diffusion_pytorch.evaluation.scores import (
    PitchAnalyser,
    distance_to_truth,
    melody_scores,
    timbre_scores,
)
from audio_diffusion_pytorch.evaluation.sound_names import publish, sound_name
from audio_diffusion_pytorch.evaluation.systems import VERSION as SYSTEMS_VERSION
from audio_diffusion_pytorch.evaluation.systems import Finished, System, Truth, read_excerpt
from audio_diffusion_pytorch.pitch.octaves import heard_pitches, octaves_for, shift_octaves
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import content_digest, digest, digest_of
from audio_diffusion_pytorch.utils.iterables import batches

SILENCE = 1e-4  # peak below which an excerpt is silence


@dataclass(frozen=True)
class ScoringTask:
    """One row of the results to come: an excerpt, moved by `octaves`, through a system."""

    pair: tuple[str, str]
    system: System
    excerpt: Excerpt
    octaves: int
    index: int
    key: str
    score_key: str

    @property
    def sound_name(self) -> str:
        """Its output under a name for people, in the evaluation's folder."""
        return sound_name(pair_name(self.pair), self.excerpt.name, self.system.label)


@dataclass
class ScoredClip:
    """One clip of one system: its facts and scores, as in results.csv, and its item."""

    item: ScoringTask
    scores: dict[str, Any]


@dataclass
class EvaluationRunner:
    """What all pairs share.

    Args:
        folder: of the results; sounds and scores are kept below it, in `.evaluate`.
        sample_rate: in Hz; everything is compared at this rate.
        classifier: see `scores.timbre_scores`; None: timbre is not scored.
        batch_size: clips that the pitch tracker and the classifier take together.
        problems: grows while clips are made.
        roots: folders to which the paths in the results are relative.
    """

    folder: Path
    sample_rate: int
    classifier: Any
    batch_size: int
    problems: Problems
    roots: Sequence[Path] = ()
    files: Callable[[Path], str] = field(
        default_factory=lambda: cache(content_digest)
    )  # each file is read once

    def __post_init__(self) -> None:
        self.kept = self.folder / ".evaluate"
        if (
            self.folder / "scores"
        ).is_dir() and not self.kept.exists():  # as an earlier version kept them
            self.kept.mkdir()
            for name in ("scores", "sounds"):
                with suppress(OSError):
                    (self.folder / name).rename(self.kept / name)
        self.listener = PitchAnalyser(self.sample_rate)
        self._classifier = None if self.classifier is None else digest_of(self.classifier)
        self._registers: dict[Path, list[float]] = {}

    def octaves(
        self, recording: Recording, transpose: str | int, limits: tuple[int, int] | None
    ) -> int:
        """Octaves by which a recording is moved: `transpose` itself, or for `auto` those into the limits."""
        if transpose != "auto":
            return int(transpose)
        return 0 if limits is None else octaves_for(self._pitches(recording), *limits)

    def _pitches(self, recording: Recording) -> list[float]:
        """MIDI pitches: known notes, else those heard at the beginning."""
        if recording.notes is not None:
            return recording.notes[:, 2].tolist()
        if recording.path not in self._registers:
            with audio.AudioReader(recording.path) as file:
                self._registers[recording.path] = heard_pitches(file)
        return self._registers[recording.path]

    def plan(
        self,
        pair: tuple[str, str],
        systems: Sequence[System],
        excerpts: Sequence[Excerpt],
        octaves: Sequence[int],
    ) -> list[ScoringTask]:
        """The items of a pair, excerpts in batches, the systems one after another for each."""
        items = []
        for part in batches(list(enumerate(zip(excerpts, octaves, strict=True))), self.batch_size):
            for system in systems:
                for index, (excerpt, moved) in part:
                    if not (isinstance(system, Truth) and excerpt.truth is None):
                        items.append(self._item(pair, system, excerpt, moved, index))
        return items

    def _item(
        self, pair: tuple[str, str], system: System, excerpt: Excerpt, octaves: int, index: int
    ) -> ScoringTask:
        truth = (
            None
            if excerpt.truth is None
            else [self.files(excerpt.truth.path), excerpt.truth_octaves]
        )
        heard, key = (
            self._input_key(excerpt),
            self._input_key(excerpt, octaves if system.moved else 0),
        )
        if isinstance(system, Truth):
            key = self._file_key(excerpt.truth.path, excerpt)
        elif isinstance(system, Finished):
            key = self._file_key(system.outputs[excerpt.recording.path], excerpt)
        elif system.stored:
            key = digest(
                SYSTEMS_VERSION,
                key,
                dict(system.settings),
                index < getattr(system, "cycle_clips", 0),
            )
        notes = None if excerpt.notes is None else excerpt.notes.tolist()
        about = type(system).__name__, octaves, truth, notes, pair[1], self._classifier
        scored = digest(
            SCORES_VERSION, heard, key, *about
        )  # one true performance is scored against several inputs
        return ScoringTask(pair, system, excerpt, octaves, index, key, scored)

    def _file_key(self, path: Path, excerpt: Excerpt, octaves: int = 0) -> str:
        move = (octaves, "tone kept, ends clean") if octaves else octaves
        return digest(self.files(path), excerpt.start, excerpt.seconds, self.sample_rate, move)

    def _input_key(self, excerpt: Excerpt, octaves: int = 0) -> str:
        return self._file_key(excerpt.recording.path, excerpt, octaves)

    def score_path(self, item: ScoringTask) -> Path:
        return self.kept / "scores" / f"{item.score_key}.json"

    def sound_path(self, item: ScoringTask) -> Path:
        return self.kept / "sounds" / f"{item.key}.flac"

    def publish(self, item: ScoringTask) -> None:
        """Give a made output a name for people.

        Raises:
            InputError: it cannot be written.
        """
        if item.system.stored:
            publish(self.sound_path(item), self.folder / item.sound_name)

    def _relative(self, path: Path) -> str:
        return next(
            (path.relative_to(root).as_posix() for root in self.roots if path.is_relative_to(root)),
            str(path),
        )

    def run(
        self, items: Sequence[ScoringTask], progress: Callable[[int], None]
    ) -> Iterator[ScoredClip]:
        """Score the items, those first that are together in a batch; `progress` is called with the numbers done."""
        for batch in _runs(items, self.batch_size):
            known = [_load(self.score_path(item)) for item in batch]
            if any(scores is None for scores in known):
                scored = self._score(batch)
            else:
                scored = list(zip(batch, known, strict=True))
            for item, scores in scored:
                yield ScoredClip(item, {**self._facts(item), **scores})
            progress(sum(scores is None for scores in known))

    def found(self, items: Iterable[ScoringTask]) -> int:
        return sum(_load(self.score_path(item)) is not None for item in items)

    def _score(self, batch: Sequence[ScoringTask]) -> list[tuple[ScoringTask, dict[str, Any]]]:
        made = []
        for item in batch:
            try:
                made.append((item, *self._sounds(item)))
            except InputError as error:
                self.problems.add(str(error), *_files(item))
        if not made:
            return []
        items = [item for item, *_ in made]
        inputs, givens, outputs, truths = ([sounds[i] for _, sounds, _ in made] for i in range(4))
        wavs = torch.stack(outputs)
        heard = self.listener(outputs, [item.key for item in items])
        before = self.listener(inputs, [self._input_key(item.excerpt) for item in items])
        references = [item_notes(item) for item in items]
        if any(reference is None for reference in references):
            keys = [
                self._input_key(item.excerpt, item.octaves if item.system.moved else 0)
                for item in items
            ]
            moved = self.listener(givens, keys)
            references = [m if r is None else r for r, m in zip(references, moved, strict=True)]
        melody = melody_scores(before, heard, references)
        timbre = timbre_scores(
            self.classifier, wavs, self.sample_rate, [item.pair[1] for item in items]
        )
        distances = distance_to_truth(outputs, truths, self.sample_rate)
        scored = []
        for item, (_, _, facts), a, b, c in zip(
            items, made, melody, timbre, distances, strict=True
        ):
            scores = {**a, **b, "log_mel_truth": c, **facts}
            _save(self.score_path(item), scores)
            scored.append((item, scores))
        return scored

    def given(self, item: ScoringTask) -> tuple[Tensor, Tensor]:
        """The input [T], and what of it a system is given: moved by octaves where it asks for that, [T]."""
        wav = read_excerpt(item.excerpt.recording.path, item.excerpt, self.sample_rate)
        if wav.abs().max() < SILENCE:
            raise InputError(
                f"{item.excerpt.recording.path}: silence from {item.excerpt.start:g} s: left out"
            )
        return wav[0], shift_octaves(wav, item.octaves, self.sample_rate)[
            0
        ] if item.system.moved else wav[0]

    def _sounds(
        self, item: ScoringTask
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor | None], dict[str, Any]]:
        """Input, what is given, output, true performance (None: none in the output's register), all [T]; facts."""
        wav, given = self.given(item)
        out, facts = self._output(item, wav, given)
        truth, excerpt = None, item.excerpt
        if excerpt.truth is not None and excerpt.truth_octaves == item.octaves:
            try:
                truth = read_excerpt(excerpt.truth.path, excerpt, self.sample_rate)[0]
            except InputError as error:
                if isinstance(item.system, Truth):
                    raise
                self.problems.add(str(error), excerpt.truth.path)
        return (wav, given, out, truth), facts

    def _output(
        self, item: ScoringTask, wav: Tensor, given: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """The output [T] and its facts; read back from its file, so that a later run scores the same."""
        path, system = self.sound_path(item), item.system
        make = partial(system.make, given[None], item.excerpt, item.index)
        if system.shifts:
            make = partial(system.make, wav[None], item.excerpt, item.index, item.octaves)
        if not system.stored:
            out, facts = make()
            return out[0], facts
        facts, kept = _load(path.with_suffix(".json")), _read_kept(path)
        if facts is None or kept is None:
            out, facts = make()
            audio.write(path, out / max(1.0, float(out.abs().max())), self.sample_rate)
            _save(path.with_suffix(".json"), facts)
            kept = audio.read(path)[0][0]
        return kept, facts

    def output(self, item: ScoringTask) -> Tensor:
        """The output [T] of an item that has been scored."""
        kept = _read_kept(self.sound_path(item)) if item.system.stored else None
        return self._output(item, *self.given(item))[0] if kept is None else kept

    def _facts(self, item: ScoringTask) -> dict[str, Any]:
        system, excerpt = item.system, item.excerpt
        output = item.sound_name if system.stored else ""
        if isinstance(system, Finished):
            output = self._relative(system.outputs[excerpt.recording.path])
        return {
            "system": system.label,
            "pair": pair_name(item.pair),
            "clip": excerpt.name,
            "input": self._relative(excerpt.recording.path),
            "output": output,
            "start": excerpt.start,
            "seconds": excerpt.seconds,
            "octaves": item.octaves,
            "sigma": system.sigma,
            **{"num_steps": None, "solver": None, "evaluations": None, **system.about},
            "melody_reference": "input" if item_notes(item) is None else "notes",
        }


def _files(item: ScoringTask) -> list[Path]:
    """The files that a row is made from."""
    outputs = (
        [item.system.outputs[item.excerpt.recording.path]]
        if isinstance(item.system, Finished)
        else []
    )
    truth = [] if item.excerpt.truth is None else [item.excerpt.truth.path]
    return [*outputs, item.excerpt.recording.path, *truth]


def item_notes(item: ScoringTask) -> np.ndarray | None:
    """The notes that the output should play, in its register (identity: its own); None where none are known."""
    if isinstance(item.system, Truth):
        return item.excerpt.truth_notes
    notes = item.excerpt.notes
    return (
        None
        if notes is None
        else notes + np.array([0, 0, 12 * item.octaves if item.system.moved else 0])
    )


def pair_name(pair: tuple[str, str]) -> str:
    return "-".join(part.replace(" ", "_") for part in pair)


def _runs(items: Sequence[ScoringTask], size: int) -> Iterator[list[ScoringTask]]:
    """Batches of one pair and system: the same ones whatever has been scored before."""
    batch: list[ScoringTask] = []
    for item in items:
        if batch and (
            len(batch) == size or item.system is not batch[0].system or item.pair != batch[0].pair
        ):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _load(path: Path) -> dict[str, Any] | None:
    """Scores that were kept, None (in the file) as NaN; None where there are none, or a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    return {
        key: math.nan if value is None and key != "taken_for" else value
        for key, value in content.items()
    }


def _read_kept(path: Path) -> Tensor | None:
    """A sound [T] that was kept; None where there is none, or a damaged file."""
    try:
        return audio.read(path)[0][0]
    except InputError:
        return None


def _save(path: Path, scores: dict[str, Any]) -> None:
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in scores.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(plain) + "\n", encoding="utf-8")
