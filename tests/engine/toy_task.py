"""A task without models: jobs are names of files to write."""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.errors import InputError


@dataclass(frozen=True)
class Toy:
    """Write a file for each job; a name chooses the fault.

    A log in the folder has a line for each try: the job and the process.
    """

    folder: Path
    seconds: float = 0.0
    broken: bool = False

    def start(self, worker: int, workers: int) -> str:
        if self.broken:
            raise InputError("no such model: choose another")
        return f"worker {worker} of {workers}"

    def versions(self, models: str) -> dict[str, str]:
        return {"toy": "1.0"}

    def do(self, models: str, jobs: Iterable[str], tell: Any) -> None:
        for job in jobs:
            with open(self.folder / "log", "a") as log:
                log.write(f"{job} {os.getpid()}\n")
            if job.startswith("long"):
                parts = [f"{job.removeprefix('long-')}{index}" for index in range(40)]
                tell("split", job, (parts, f"joined {job}"))
                continue
            self._do(job, tell)
            tell("done", job, {"by": models, "spins": os.environ.get("GOMP_SPINCOUNT")})

    def _do(self, job: str, tell: Any) -> None:
        if job.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if job.startswith("once") and self.tries(job) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        lock = self.folder / f"{job}.lock"
        lock.touch()
        try:
            tell("windows", job, 1)
            while job.startswith("meet") and len(list(self.folder.glob("meet*"))) < 2:
                time.sleep(0.01)  # until another worker has begun
            time.sleep(self.seconds)
            (self.folder / job).write_text(job)
        finally:
            lock.unlink()

    def tries(self, job: str) -> int:
        lines = (self.folder / "log").read_text().splitlines()
        return sum(line.split()[0] == job for line in lines)


class Events:
    """Events by kind: job -> value."""

    def __init__(self) -> None:
        self.done: dict[str, Any] = {}
        self.failed: dict[str, Any] = {}
        self.windows: dict[str, Any] = {}

    def __call__(self, event: str, job: str, value: Any) -> None:
        assert job not in self.done and job not in self.failed
        getattr(self, event)[job] = value
