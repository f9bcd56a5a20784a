"""Tasks: independent jobs that share settings and models."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.errors import InputError

Event = tuple[str, Any, Any]  # event, job, value
Tell = Callable[[str, Any, Any], None]
SPLIT = (
    "split"  # event whose value is the parts of a job, which are jobs, and the job that joins them
)
FINAL = ("done", "failed", "left", SPLIT)  # the last event of a job


class Task:
    """Settings of jobs; pickled for workers. Jobs are hashable, and their texts name them."""

    def start(self, worker: int, workers: int) -> Any:
        """Load the models in a worker.

        Args:
            worker: index of the worker.
            workers: workers that share the machine.

        Raises:
            InputError: no worker can start.
        """

    def versions(self, models: Any) -> dict[str, str]:
        """Return versions and digests that must agree between machines.

        Args:
            models: result of `start`.
        """
        return {"timbridge": __version__}

    def do(self, models: Any, jobs: Iterable[Any], tell: Tell) -> None:
        """Do jobs; each ends with an event of `FINAL`.

        Args:
            models: result of `start`.
            jobs: the jobs.
            tell: callback with an event, the job, and a value: the result or the reason.
        """
        for job in jobs:
            try:
                result = self.do_job(models, job)
            except InputError as error:
                tell("failed", job, str(error))
            else:
                tell("done", job, result)

    def do_job(self, models: Any, job: Any) -> Any:
        """Do one job and return its result.

        Args:
            models: result of `start`.
            job: the job.

        Raises:
            InputError: this job failed.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Calls(Task):
    """Call a function with the item of each job.

    Args:
        function: function that can be pickled.
        items: job -> argument of the function.
    """

    function: Callable[[Any], Any]
    items: Mapping[str, Any]

    def do_job(self, models: Any, job: Any) -> Any:
        """Call the function; see `Task.do_job`."""
        return self.function(self.items[job])
