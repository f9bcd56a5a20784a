"""Score batches of tasks by an engine: workers fill the store, from which the command reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.cli import plain_warnings
from audio_diffusion_pytorch.engine.task import Task
from audio_diffusion_pytorch.evaluation.runner import EvaluationRunner
from audio_diffusion_pytorch.evaluation.settings import EvaluationSettings
from audio_diffusion_pytorch.evaluation.setup import set_up
from audio_diffusion_pytorch.evaluation.tasks import ScoringTask, batches_of_tasks, pair_name
from audio_diffusion_pytorch.utils.devices import device_of_worker
from audio_diffusion_pytorch.utils.hashing import digest
from audio_diffusion_pytorch.utils.registry import import_plugins
from audio_diffusion_pytorch.utils.threads import set_threads


def score_by_engine(
    runner: EvaluationRunner, classifier: Any, progress: Callable[[int], None]
) -> list[ScoringTask]:
    """Score the tasks of a setup; a batch that ends two workers becomes a problem.

    Args:
        runner: runner of the command.
        classifier: classifier of the timbre scores, or None.
        progress: called after each batch with the number of tasks scored in it.

    Returns:
        The tasks of other batches; their scores are stored unless they failed.

    Raises:
        InputError: see `Engine.run`.
    """
    setup = runner.setup
    settings = setup.settings
    batches = named_batches(runner)
    before = {name: runner.count_scored(batch) for name, batch in batches.items()}

    def tell(event: str, name: str, value: Any) -> None:
        if event == "failed":
            setup.problems.add(value, name)
            del batches[name]
        else:
            progress(value - before[name])

    missing = [name for name, batch in batches.items() if before[name] < len(batch)]
    task = Scoring(settings, classifier, setup.registers)
    inputs = [setup.recordings[0].path]
    settings.engine.run(task, runner, missing, tell, runner.store.kept, inputs)
    return [task for batch in batches.values() for task in batch]


def named_batches(runner: EvaluationRunner) -> dict[str, list[ScoringTask]]:
    """Return the batches of all tasks by names for messages."""
    batches = batches_of_tasks(runner.setup.tasks, runner.batch_size)
    return {
        f"{pair_name(first.pair)}, {first.system.label}, clips {first.index + 1} to "
        f"{batch[-1].index + 1}": batch
        for batch in batches
        for first in batch[:1]
    }


@dataclass(frozen=True)
class Scoring(Task):
    """Score batches; a job is the name of a batch, its result the number of stored scores.

    Args:
        settings: settings of the evaluation.
        classifier: classifier of the timbre scores, or None.
        registers: see `EvaluationSetup`.
    """

    settings: EvaluationSettings
    classifier: Any
    registers: Mapping[Path, list[float]]

    def start(self, worker: int, workers: int) -> EvaluationRunner:
        """Set up the evaluation in a worker."""
        plain_warnings()
        import_plugins(self.settings.plugins)
        set_threads(processes=workers)
        device = device_of_worker(self.settings.device, worker)
        classifier = None if self.classifier is None else self.classifier.to(device)
        settings = replace(self.settings, device=device)
        return EvaluationRunner(set_up(settings, classifier, self.registers), classifier)

    def versions(self, models: EvaluationRunner) -> dict[str, str]:
        """Return the version of the package and a digest of all tasks; see `Task.versions`."""
        keys = digest([task.score_key for task in models.setup.tasks])
        return {**super().versions(models), "models and recordings": keys}

    def do_job(self, models: EvaluationRunner, job: str) -> int:
        """Score a batch; see `Task.do_job`."""
        batch = named_batches(models)[job]
        for _ in models.run(batch, lambda count: None):
            pass
        return models.count_scored(batch)
