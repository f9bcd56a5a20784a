"""Processes of one training: end together, requeue."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl


def requeue() -> str:
    """Ask SLURM to start this job again; returns what to tell the user."""
    command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        return f"could not requeue the job ({reason}): submit it again with ckpt=auto"
    return f"requeued job {command[-1]}"


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """End the processes that Lightning started where this one fails, and one of those where this one is killed.

    They would wait for it until their time limit.
    """
    if (
        trainer.local_rank > 0
        and not trainer.strategy.cluster_environment.creates_processes_externally
    ):
        follow(os.getppid())
    try:
        yield
    except BaseException:
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            process.kill()
        raise


def follow(parent: int, seconds: float = 5.0) -> None:
    """End this process when its parent process has ended, looked at every so many seconds."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-observer").start()
