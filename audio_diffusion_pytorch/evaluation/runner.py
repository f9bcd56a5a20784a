"""Make and score clips; store each sound and score at once, so that a later run resumes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.extensions import TRACKERS, measure
from audio_diffusion_pytorch.evaluation.judge import CREPE, judge_scores
from audio_diffusion_pytorch.evaluation.scores import (
    Classifier,
    PitchAnalyser,
    PitchAnalysis,
    distance_to_truth,
    melody_scores,
    timbre_scores,
)
from audio_diffusion_pytorch.evaluation.setup import EvaluationSetup
from audio_diffusion_pytorch.evaluation.store import ResultStore, Scores
from audio_diffusion_pytorch.evaluation.systems import CodecOnly, Truth, read_excerpt
from audio_diffusion_pytorch.evaluation.tasks import (
    ClipSounds,
    ScoredClip,
    ScoringTask,
    batches_of_tasks,
    pair_name,
)
from audio_diffusion_pytorch.metrics.levels import level_correlation
from audio_diffusion_pytorch.pitch.octaves import shift_octaves

SILENCE = 1e-4  # peak below which an excerpt is silent


class EvaluationRunner:
    """Run scoring tasks of a setup.

    Args:
        setup: tasks and settings; its problems collect the tasks that fail.
        classifier: see `scores.timbre_scores`; None skips the timbre scores.
    """

    def __init__(self, setup: EvaluationSetup, classifier: Classifier | None):
        settings = setup.settings
        self.setup = setup
        self.store = ResultStore(settings.output)
        self.keys = setup.keys
        self.sample_rate = setup.keys.sample_rate
        self.classifier = classifier
        self.batch_size = settings.batch_size
        self.problems = setup.problems
        self.roots = settings.roots
        self.analyse = PitchAnalyser(self.sample_rate, TRACKERS.find(settings.tracker))
        self.judged = settings.tracker == CREPE
        self.metrics = settings.metrics
        self._codec_tasks = {
            _clip_of(task): task for task in setup.tasks if isinstance(task.system, CodecOnly)
        }

    def count_scored(self, tasks: Iterable[ScoringTask]) -> int:
        """Count the tasks whose scores are stored."""
        return sum(self.store.load_scores(task) is not None for task in tasks)

    def run(
        self, tasks: Sequence[ScoringTask], progress: Callable[[int], None]
    ) -> Iterator[ScoredClip]:
        """Score tasks in batches; tasks that fail become problems.

        Args:
            tasks: tasks, those of one batch in a row.
            progress: called after each batch with the number of tasks scored in it.

        Yields:
            A scored clip for each task that did not fail.
        """
        for batch in batches_of_tasks(tasks, self.batch_size):
            loaded = [self.store.load_scores(task) for task in batch]
            stored = [scores for scores in loaded if scores is not None]
            missing = len(batch) - len(stored)
            scored = self._score(batch) if missing else list(zip(batch, stored, strict=True))
            for task, scores in scored:
                yield ScoredClip(task, {**self._facts(task), **scores})
            progress(missing)

    def read_input(self, task: ScoringTask) -> tuple[Tensor, Tensor]:
        """Read the excerpt of a task.

        Args:
            task: the task.

        Returns:
            The excerpt [T] in its own register, and in the register in which the system receives it
            [T].

        Raises:
            InputError: the excerpt is silent, or its file is damaged.
        """
        excerpt = task.excerpt
        wav = read_excerpt(excerpt.recording.path, excerpt, self.sample_rate)
        if wav.abs().max() < SILENCE:
            raise InputError(
                f"{excerpt.recording.path}: silence from {excerpt.start:g} s: left out"
            )
        if not task.system.moved:
            return wav[0], wav[0]
        return wav[0], shift_octaves(wav, task.octaves, self.sample_rate)[0]

    def output(self, task: ScoringTask) -> Tensor:
        """Return the output [T] of a scored task; an output that is not stored is made again."""
        stored = self.store.load_sound(task) if task.system.stored else None
        return self._output(task, *self.read_input(task))[0] if stored is None else stored

    def _score(self, batch: Sequence[ScoringTask]) -> list[tuple[ScoringTask, Scores]]:
        """Score a batch; tasks without readable sounds become problems."""
        tasks: list[ScoringTask] = []
        clips: list[ClipSounds] = []
        for task in batch:
            try:
                clips.append(self._sounds(task))
                tasks.append(task)
            except InputError as error:
                self.problems.add(str(error), *task.files)
        if not tasks:
            return []
        scored = list(zip(tasks, self._scores(tasks, clips), strict=True))
        for task, scores in scored:
            self.store.save_scores(task, scores)
        return scored

    def _scores(self, tasks: Sequence[ScoringTask], clips: Sequence[ClipSounds]) -> list[Scores]:
        outputs = [clip.output for clip in clips]
        heard = self.analyse(outputs, [task.key for task in tasks])
        inputs = self.analyse(
            [clip.recording for clip in clips], [self.keys.recording(t.excerpt) for t in tasks]
        )
        moved = [one.moved(t.input_octaves) for one, t in zip(inputs, tasks, strict=True)]
        references = [
            one if task.notes is None else task.notes
            for one, task in zip(moved, tasks, strict=True)
        ]
        melody = melody_scores(inputs, heard, references)
        targets = [task.pair[1] for task in tasks]
        timbre = timbre_scores(self.classifier, torch.stack(outputs), self.sample_rate, targets)
        distances = distance_to_truth(outputs, [clip.truth for clip in clips], self.sample_rate)
        judged = self._judge(tasks, clips, moved, heard)
        return [
            {
                **measure(self.metrics, clip.output, clip.given, self.sample_rate),
                **melody[i],
                **judged[i],
                **timbre[i],
                "log_mel_truth": distances[i],
                "level_envelope": level_correlation(clip.recording, clip.output, self.sample_rate),
                **clip.facts,
            }
            for i, clip in enumerate(clips)
        ]

    def _judge(
        self,
        tasks: Sequence[ScoringTask],
        clips: Sequence[ClipSounds],
        inputs: Sequence[PitchAnalysis],
        outputs: Sequence[PitchAnalysis],
    ) -> list[dict[str, float]]:
        """Scores of the judge; empty with another tracker than CREPE."""
        if not self.judged:
            return [{} for _ in tasks]
        sounds = []
        for task, clip in zip(tasks, clips, strict=True):
            # A moved sound has smeared onsets, so delays are not measured against it.
            codec_task = None if task.input_octaves else self._codec_tasks.get(_clip_of(task))
            coded = clip.recording if codec_task is None else self.output(codec_task)
            sounds.append((coded, clip.output))
        return judge_scores(sounds, inputs, outputs, self.sample_rate)

    def _sounds(self, task: ScoringTask) -> ClipSounds:
        recording, given = self.read_input(task)
        output, facts = self._output(task, recording, given)
        return ClipSounds(recording, given, output, self._truth(task), facts)

    def _truth(self, task: ScoringTask) -> Tensor | None:
        """Read the true performance [T] if it lies in the output's register."""
        excerpt = task.excerpt
        if excerpt.truth is None or excerpt.truth_octaves != task.octaves:
            return None
        try:
            return read_excerpt(excerpt.truth.path, excerpt, self.sample_rate)[0]
        except InputError as error:
            if isinstance(task.system, Truth):
                raise
            self.problems.add(str(error), excerpt.truth.path)
            return None

    def _output(
        self, task: ScoringTask, recording: Tensor, given: Tensor
    ) -> tuple[Tensor, dict[str, Any]]:
        """Load or make the output [T] and its facts."""
        system = task.system
        stored = self.store.load_output(task) if system.stored else None
        if stored is not None:
            return stored
        wav = recording if system.shifts else given
        output, facts = system.make(wav[None], task.excerpt, task.index, task.octaves)
        if system.stored:
            return self.store.save_output(task, output, self.sample_rate, facts), facts
        return output[0], facts

    def _facts(self, task: ScoringTask) -> dict[str, Any]:
        """Columns of results.csv that are known before scoring."""
        system = task.system
        excerpt = task.excerpt
        output = task.sound_name if system.stored else ""
        if task.output_path is not None:
            output = self._relative(task.output_path)
        return {
            "system": system.label,
            "pair": pair_name(task.pair),
            "clip": excerpt.name,
            "input": self._relative(excerpt.recording.path),
            "output": output,
            "start": excerpt.start,
            "seconds": excerpt.seconds,
            "octaves": task.octaves,
            "sigma": system.sigma,
            "num_steps": None,
            "solver": None,
            "evaluations": None,
            "schedule": None,
            **system.about,
            "melody_reference": "input" if task.notes is None else "notes",
        }

    def _relative(self, path: Path) -> str:
        for root in self.roots:
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return str(path)


def _clip_of(task: ScoringTask) -> tuple[Any, ...]:
    """Key of the input of a task, equal for all systems that receive it in one register."""
    return task.pair, task.index, task.input_octaves
