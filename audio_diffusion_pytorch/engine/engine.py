"""The engine of a command: processes of this machine, a Ray cluster, or an array of SLURM jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.engine.checks import NodeCheck
from audio_diffusion_pytorch.engine.local import run_in_processes
from audio_diffusion_pytorch.engine.options import RayOptions, SlurmOptions
from audio_diffusion_pytorch.engine.task import Task, Tell
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_choice, check_number, wrong

LOCAL = "local"
_OPTIONS: dict[str, type] = {"ray": RayOptions, "slurm": SlurmOptions}
_NAMED = 3  # failures that an error names


@dataclass(frozen=True)
class Engine:
    """Executor of a command's jobs.

    Args:
        workers: processes of this machine; 1: the process of the command.
        options: resources on a cluster; None: this machine.
    """

    workers: int = 1
    options: RayOptions | SlurmOptions | None = None

    @classmethod
    def from_arguments(cls, values: Mapping[str, Any]) -> "Engine":
        """Check the arguments of a command.

        Args:
            values: `engine`, `workers`, `ray` and `slurm`; missing ones have their defaults.

        Raises:
            InputError: an argument is wrong.
        """
        name = values.get("engine", LOCAL)
        check_choice("engine", name, (LOCAL, *_OPTIONS))
        workers = values.get("workers", 1)
        check_number("workers", workers, whole=True, least=1)
        options = {key: _options(key, values.get(key, {})) for key in _OPTIONS}
        if name != LOCAL and workers != 1:
            raise InputError("workers is for engine=local: use ray.actors or slurm.shards")
        return cls(workers, options.get(name))

    @property
    def is_this_process(self) -> bool:
        """Whether the process of the command does the jobs."""
        return self.options is None and self.workers == 1

    @property
    def splits(self) -> bool:
        """Whether a job can end with the event `SPLIT`."""
        return not self.is_this_process and not isinstance(self.options, SlurmOptions)

    def run(
        self,
        task: Any,
        models: Any,
        jobs: Sequence[Any],
        tell: Tell,
        folder: Path,
        inputs: Sequence[Path] = (),
        parts: int = 0,
    ) -> None:
        """Do jobs.

        Args:
            task: settings of the jobs, see `Task`.
            models: result of `task.start` in this process.
            jobs: the jobs.
            tell: callback for events, called in this process.
            folder: folder of the outputs, which all nodes share.
            inputs: files that all nodes must see.
            parts: number of jobs after the split of long ones; 0: no job is split.

        Raises:
            InputError: the engine cannot be used, or its workers cannot start or die in a row.
        """
        most = max(parts, len(jobs))
        workers = min(self.workers, most)
        if not jobs:
            return
        if self.options is None and workers > 1:
            run_in_processes(task, workers, jobs, tell)
        elif self.options is None:
            task.do(models, jobs, tell)
        else:
            with NodeCheck.marked(task.versions(models), inputs, folder) as check:
                if isinstance(self.options, RayOptions):
                    from audio_diffusion_pytorch.engine.ray_actors import run_on_ray

                    run_on_ray(task, self.options, jobs, tell, check, most)
                else:
                    from audio_diffusion_pytorch.engine.submitit_jobs import run_with_submitit

                    run_with_submitit(task, self.options, jobs, tell, check)

    def results(
        self, task: Task, jobs: Sequence[Any], title: str, unit: str, folder: Path
    ) -> dict[Any, Any]:
        """Do jobs without models, with a progress bar; return the result of each.

        Args:
            task: settings of the jobs.
            jobs: the jobs.
            title: title of the progress bar.
            unit: unit of the progress bar.
            folder: see `run`.

        Raises:
            InputError: see `run`; or jobs failed, after all others.
        """
        from tqdm import tqdm

        found: dict[str, dict[Any, Any]] = {"done": {}, "failed": {}}
        bar = partial(tqdm, desc=title, unit=unit, dynamic_ncols=True, disable=not jobs)
        with bar(total=len(jobs)) as progress:

            def tell(event: str, job: Any, value: Any) -> None:
                found[event][job] = value
                progress.update()

            self.run(task, None, jobs, tell, folder)
        if reasons := list(found["failed"].values()):
            named = "; ".join(reasons[:_NAMED]) + (" ..." if len(reasons) > _NAMED else "")
            raise InputError(f"{len(reasons)} of {len(jobs)} {unit}s failed: {named}")
        return found["done"]


def _options(key: str, values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise wrong(key, values, f"given as {key}.NAME=VALUE")
    known = [field.name for field in fields(_OPTIONS[key])]
    for name in values:
        check_choice(f"option of {key}", name, known)
    return _OPTIONS[key](**values)
