"""Jobs in an array of SLURM jobs, submitted by submitit."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import IO, Any

from audio_diffusion_pytorch.engine.checks import NodeCheck
from audio_diffusion_pytorch.engine.options import SlurmOptions
from audio_diffusion_pytorch.engine.task import FINAL, Event, Tell
from audio_diffusion_pytorch.errors import InputError

try:
    import submitit
except ImportError:
    submitit = None

_MOST = 1000  # elements of an array, as SLURM limits it by default
_PAUSE = 1.0  # seconds between two looks at the events


def run_with_submitit(
    task: Any, options: SlurmOptions, jobs: Sequence[Any], tell: Tell, check: NodeCheck
) -> None:
    """Do jobs in an array of shards; unfinished jobs are repeated once, alone.

    Args:
        task: settings of the jobs.
        options: size and parameters of the array.
        jobs: the jobs.
        tell: callback for events, called in this process.
        check: folders and versions of every node; its folder also holds logs and events.

    Raises:
        InputError: submitit is not installed, SLURM refuses the array, a node fails the check, or
            `task` cannot start.
    """
    if submitit is None:
        raise InputError(
            'engine=slurm needs submitit: pip install "timbridge[slurm]", in a clone ".[slurm]"'
        )
    todo = list(jobs)
    for attempt, most in enumerate((options.shards, _MOST)):
        count = min(most, len(todo))
        shards = [todo[index::count] for index in range(count)]
        if shards:
            folder = check.marker.parent / f"slurm{check.marker.name}-{attempt}"
            finished = _run_array(task, options, shards, tell, check, folder)
            todo = [job for job in todo if job not in finished]
    for job in todo:
        tell("failed", job, f"{job} ended two SLURM jobs: see the logs in {check.marker.parent}")


def _run_array(
    task: Any,
    options: SlurmOptions,
    shards: list[list[Any]],
    tell: Tell,
    check: NodeCheck,
    folder: Path,
) -> set[Any]:
    """Do shards, with logs and events in a folder; return the finished jobs."""
    elements = [
        _Shard(task, index, shard, check, folder / f"{index}.events")
        for index, shard in enumerate(shards)
    ]
    try:
        executor = submitit.AutoExecutor(folder / "%j", cluster=options.cluster)
        executor.update_parameters(**{"name": "timbridge", **options.parameters})
        folder.mkdir(parents=True, exist_ok=True)
        with executor.batch():
            submitted = [executor.submit(element) for element in elements]
    except Exception as error:  # submitit raises many kinds
        reason = " ".join(str(error).split())
        raise InputError(f"engine=slurm: the array cannot be submitted: {reason}") from error
    finished: set[Any] = set()
    try:
        events = [_Events(element.events, element.jobs) for element in elements]
        running = True
        while running:
            running = not all(job.done() for job in submitted)
            for event in (event for some in events for event in some.new()):
                if event[1] not in finished:
                    tell(*event)
                if event[0] in FINAL:
                    finished.add(event[1])
            if running:
                time.sleep(_PAUSE)
        _raise_refusal(submitted)
    finally:
        for job in submitted:
            if not job.done():
                job.cancel()
    if finished.issuperset(job for shard in shards for job in shard):
        rmtree(folder, ignore_errors=True)  # the logs are not needed
    return finished


def _raise_refusal(submitted: Sequence[Any]) -> None:
    """Raise the error of a start; other ends of a shard leave its jobs unfinished."""
    for job in submitted:
        if not job.paths.result_pickle.exists():  # submitit would wait for it
            continue
        error = job.exception()
        if error is not None and "InputError: " in str(error):
            raise InputError(str(error).rpartition("InputError: ")[2].strip().splitlines()[0])


@dataclass
class _Shard:
    """Element of the array; submitit requeues it after a time limit or a preemption."""

    task: Any
    index: int
    jobs: Sequence[Any]
    check: NodeCheck
    events: Path

    def __call__(self) -> None:
        self.check.see_folders(socket.gethostname())
        models = self.task.start(0, 1)
        self.check.compare(socket.gethostname(), self.task.versions(models))
        with open(self.events, "ab", buffering=0) as file:
            numbers = {job: number for number, job in enumerate(self.jobs)}

            def tell(event: str, job: Any, value: Any) -> None:
                file.write(json.dumps([event, numbers[job], value], default=str).encode() + b"\n")

            self.task.do(models, self.jobs, tell)

    def checkpoint(self, *_: Any) -> Any:
        return submitit.helpers.DelayedSubmission(self)


class _Events:
    """Events in the file of a shard, one JSON line each: event, number of the job, value."""

    def __init__(self, path: Path, jobs: Sequence[Any]):
        self.path = path
        self.jobs = jobs
        self.file: IO[bytes] | None = None

    def new(self) -> Iterator[Event]:
        """Yield the events since the last call."""
        if self.file is None and self.path.exists():
            self.file = open(self.path, "rb")  # noqa: SIM115
        while self.file is not None:
            position = self.file.tell()
            line = self.file.readline()
            if not line.endswith(b"\n"):  # none, or one that is being written
                self.file.seek(position)
                return
            event, number, value = json.loads(line)
            yield event, self.jobs[number], value
