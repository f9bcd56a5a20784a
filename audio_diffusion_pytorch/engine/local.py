"""Jobs in several processes of this machine."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

from audio_diffusion_pytorch.engine.hand_out import hand_out
from audio_diffusion_pytorch.engine.task import Tell
from audio_diffusion_pytorch.errors import InputError


def run_in_processes(task: Any, workers: int, jobs: Sequence[Any], tell: Tell) -> None:
    """Do jobs in `workers` processes, see `hand_out`.

    Raises:
        InputError: the processes cannot share memory, or `task` cannot start.
    """
    pool = [_Process(task, index, workers) for index in range(workers)]
    try:
        hand_out(pool, jobs, tell, _with_event)
    finally:
        for process in pool:
            process.close()


def _with_event(processes: Sequence["_Process"]) -> list["_Process"]:
    ready = wait([process.events for process in processes])
    return [process for process in processes if process.events in ready]


class _Process:
    """Worker process, in an executor of its own: its death ends no other worker."""

    ready = True

    def __init__(self, *arguments: Any):
        self.arguments = arguments
        self.executor: ProcessPoolExecutor | None = None

    def submit(self, jobs: Sequence[Any]) -> None:
        theirs = None
        try:
            if self.executor is None:
                self.events, theirs = multiprocessing.Pipe()
                spawn = multiprocessing.get_context("spawn")
                arguments = (theirs, *self.arguments)
                self.executor = ProcessPoolExecutor(1, spawn, _start, arguments)
            self.future = self.executor.submit(_do, jobs)
        except OSError as error:
            raise InputError(
                "several workers need shared memory, and /dev/shm cannot be used "
                f"({error.strerror}): use workers=1"
            ) from error
        finally:
            if theirs is not None:  # only the process keeps its end: its death closes the pipe
                theirs.close()

    def receive(self) -> tuple | None:
        try:
            if event := self.events.recv():
                return event
            self.future.result()  # raises the error of the task
        except EOFError:
            self.close()
        return None

    def close(self) -> None:
        if self.executor:
            if not self.future.done():
                self.events.close()  # ends the process amid its jobs
            self.executor.shutdown()
            self.events.close()
            self.executor = None


def _start(events: Any, *arguments: Any) -> None:
    """Begin a worker process; it ends when the command dies or closes the pipe."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)  # through `finally` clauses, which clean up

    def follow() -> None:
        wait([events])
        os.kill(os.getpid(), signal.SIGTERM)

    # Ctrl-C signals the whole process group; the command stops its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    Thread(target=follow, daemon=True).start()
    _worker[:] = [events, *arguments]


_worker: list[Any] = []  # of a worker process: pipe to the command, task and models


def _do(jobs: Sequence[Any]) -> None:
    """Do jobs in a worker process, and send their events."""
    events, task, index, workers, *models = _worker
    try:
        if not models:
            models = [task.start(index, workers)]
            _worker.extend(models)
        task.do(*models, jobs, lambda *event: events.send(event))
    except SystemExit:
        os._exit(128 + signal.SIGTERM)  # the executor would wait for more jobs
    finally:
        events.send(None)
