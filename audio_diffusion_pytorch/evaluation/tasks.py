"""Units of an evaluation: excerpts with their systems, and keys of sounds and scores.

A sound's key covers everything the sound depends on: content of the input, excerpt, register,
models and settings. A score's key adds the classifier, the notes and the true performance. A sound
or score with a known key is not computed again.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from audio_diffusion_pytorch.evaluation.clips import Excerpt
from audio_diffusion_pytorch.evaluation.scores import VERSION as SCORES_VERSION
from audio_diffusion_pytorch.evaluation.sound_names import sound_name
from audio_diffusion_pytorch.evaluation.systems import VERSION as SYSTEMS_VERSION
from audio_diffusion_pytorch.evaluation.systems import Finished, System, Truth
from audio_diffusion_pytorch.utils.hashing import content_digest, digest, digest_of
from audio_diffusion_pytorch.utils.iterables import batches


@dataclass(frozen=True)
class ScoringTask:
    """One row of the results: one excerpt through one system.

    Attributes:
        pair: source and target instrument.
        system: system that makes the output.
        excerpt: excerpt of a recording of the source.
        octaves: octaves from the excerpt to the output's register.
        index: number of the excerpt in its pair.
        key: identity of the output.
        score_key: identity of the scores.
    """

    pair: tuple[str, str]
    system: System
    excerpt: Excerpt
    octaves: int
    index: int
    key: str
    score_key: str

    @property
    def sound_name(self) -> str:
        """Path of the output under a readable name, relative to the evaluation's folder."""
        return sound_name(pair_name(self.pair), self.excerpt.name, self.system.label)

    @property
    def input_octaves(self) -> int:
        """Octaves by which the system's input is moved."""
        return self.octaves if self.system.moved else 0

    @property
    def notes(self) -> np.ndarray | None:
        """Notes [N, 3] that the output should play, in the output's register; None if unknown."""
        if isinstance(self.system, Truth):
            return self.excerpt.truth_notes
        notes = self.excerpt.notes
        return None if notes is None else notes + np.array([0, 0, 12 * self.input_octaves])

    @property
    def output_path(self) -> Path | None:
        """File of a finished output; None for outputs that the evaluation makes."""
        if isinstance(self.system, Finished):
            return self.system.outputs[self.excerpt.recording.path]
        return None

    @property
    def files(self) -> list[Path]:
        """Files that the row depends on."""
        paths = [self.output_path, self.excerpt.recording.path]
        if self.excerpt.truth is not None:
            paths.append(self.excerpt.truth.path)
        return [path for path in paths if path is not None]


@dataclass
class ScoredClip:
    """Facts and scores of one task, with the names of results.csv."""

    task: ScoringTask
    scores: dict[str, Any]


@dataclass(frozen=True)
class ClipSounds:
    """Sounds of one task, each [T] at the evaluation's rate.

    Attributes:
        recording: excerpt in its own register.
        given: excerpt in the register in which the system receives it.
        output: output of the system.
        truth: true performance; None if none lies in the output's register.
        facts: scores that only the system can measure, for example its speed.
    """

    recording: Tensor
    given: Tensor
    output: Tensor
    truth: Tensor | None
    facts: dict[str, Any]


class TaskKeys:
    """Compute the keys of sounds and scores.

    Args:
        sample_rate: rate of the evaluation in Hz.
        classifier: classifier of the timbre scores, or None.
        own_parts: key of a user's tracker and metrics, see `own_parts_key`.
    """

    def __init__(
        self, sample_rate: int, classifier: nn.Module | None, own_parts: str | None = None
    ):
        self.sample_rate = sample_rate
        self._own_parts = () if own_parts is None else (own_parts,)
        self._classifier = None if classifier is None else digest_of(classifier)
        self._content = cache(content_digest)  # reads each file once

    def task(
        self, pair: tuple[str, str], system: System, excerpt: Excerpt, octaves: int, index: int
    ) -> ScoringTask:
        """Make a task with its keys; see `ScoringTask` for the arguments."""
        key = self._output(system, excerpt, octaves, index)
        truth = None
        if excerpt.truth is not None:
            truth = [self._content(excerpt.truth.path), excerpt.truth_octaves]
        notes = None if excerpt.notes is None else excerpt.notes.tolist()
        score_key = digest(
            SCORES_VERSION,
            self.recording(excerpt),  # several inputs share one true performance
            key,
            type(system).__name__,
            octaves,
            truth,
            notes,
            pair[1],
            self._classifier,
            *self._own_parts,
        )
        return ScoringTask(pair, system, excerpt, octaves, index, key, score_key)

    def recording(self, excerpt: Excerpt, octaves: int = 0) -> str:
        """Return the key of an excerpt, moved by `octaves`."""
        return self._file(excerpt.recording.path, excerpt, octaves)

    def _output(self, system: System, excerpt: Excerpt, octaves: int, index: int) -> str:
        if isinstance(system, Truth):
            assert excerpt.truth is not None
            return self._file(excerpt.truth.path, excerpt)
        if isinstance(system, Finished):
            return self._file(system.outputs[excerpt.recording.path], excerpt)
        key = self.recording(excerpt, octaves if system.moved else 0)
        if not system.stored:
            return key
        with_cycle = index < getattr(system, "cycle_clips", 0)
        return digest(SYSTEMS_VERSION, key, dict(system.settings), with_cycle)

    def _file(self, path: Path, excerpt: Excerpt, octaves: int = 0) -> str:
        move = (octaves, "tone kept, ends clean") if octaves else octaves
        return digest(self._content(path), excerpt.start, excerpt.seconds, self.sample_rate, move)


def tasks_of_pair(
    keys: TaskKeys,
    pair: tuple[str, str],
    systems: Sequence[System],
    excerpts: Sequence[Excerpt],
    octaves: Sequence[int],
    batch_size: int,
) -> list[ScoringTask]:
    """Make the tasks of a pair: excerpts in batches, each batch with one system after another.

    Args:
        keys: computes the keys.
        pair: source and target instrument.
        systems: systems to score.
        excerpts: excerpts of the source.
        octaves: octaves by which each excerpt moves.
        batch_size: excerpts of a batch.

    Returns:
        The tasks; a true performance is scored only where an excerpt has one.
    """
    tasks = []
    for batch in batches(list(enumerate(zip(excerpts, octaves, strict=True))), batch_size):
        for system in systems:
            for index, (excerpt, moved) in batch:
                if isinstance(system, Truth) and excerpt.truth is None:
                    continue
                tasks.append(keys.task(pair, system, excerpt, moved, index))
    return tasks


def batches_of_tasks(tasks: Iterable[ScoringTask], size: int) -> Iterator[list[ScoringTask]]:
    """Yield batches of one pair and system; they do not depend on what was scored before."""
    batch: list[ScoringTask] = []
    for task in tasks:
        same = batch and task.system is batch[0].system and task.pair == batch[0].pair
        if batch and (len(batch) == size or not same):
            yield batch
            batch = []
        batch.append(task)
    if batch:
        yield batch


def pair_name(pair: tuple[str, str]) -> str:
    """Return `french_horn-violin` for `("french horn", "violin")`."""
    return "-".join(part.replace(" ", "_") for part in pair)
