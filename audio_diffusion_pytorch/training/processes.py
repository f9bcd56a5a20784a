"""Coordinate the processes of one training: end them together, requeue a job, refuse a sweep."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.lightning_internals import launched_processes


def requeue() -> str:
    """Ask SLURM to restart this job, and return a message about the result."""
    command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        return f"could not requeue the job ({reason}): submit it again with ckpt=auto"
    return f"requeued job {command[-1]}"


def check_sweep(processes: int) -> None:
    """Refuse several processes in a sweep whose runs share this process.

    Lightning starts the other processes with the command line of the whole sweep, and a process
    cannot join a second group.

    Args:
        processes: number of processes of a run.

    Raises:
        InputError: the sweep needs several processes without a job for each run.
    """
    if processes == 1 or not HydraConfig.initialized():
        return
    config = HydraConfig.get()
    if config.mode == RunMode.MULTIRUN and not config.launcher._target_.endswith("SlurmLauncher"):
        raise InputError(
            f"a sweep (-m) cannot train in {processes} processes: add launcher=slurm, which "
            "submits a job for each run, or set trainer.gpus=1, or start the runs one by one"
        )


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """Kill the processes that Lightning launched if this one fails; end with the parent process.

    Without this block the other processes would wait until their time limit.
    """
    if trainer.local_rank > 0:
        environment = trainer.strategy.cluster_environment
        if not environment.creates_processes_externally:
            follow(os.getppid())
    try:
        yield
    except BaseException:
        for process in launched_processes(trainer):
            process.kill()
        raise


def follow(parent: int, seconds: float = 5.0) -> None:
    """End this process after its parent process.

    Args:
        parent: id of the parent process.
        seconds: interval between two checks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-observer").start()
