"""Transfer jobs in several processes, which send their events to the command."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any

from audio_diffusion_pytorch.cli import plain_warnings
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer.batch import Tell
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.run import TransferRun
from audio_diffusion_pytorch.utils.registry import import_plugins


def run_in_processes(run: TransferRun, workers: int, jobs: Sequence[Job], tell: Tell) -> None:
    """Transfer jobs in several processes; each requests the next job when its batch has room.

    Args:
        run: settings of the jobs.
        workers: number of processes.
        jobs: inputs and outputs.
        tell: callback for events, called in this process.

    Raises:
        InputError: the processes cannot share memory, or a process ended early.
    """
    context = multiprocessing.get_context("spawn")
    try:
        next_job = context.Value("l", 0)
        events = context.Queue()
    except OSError as error:
        raise InputError(
            "several workers need shared memory, and /dev/shm cannot be used "
            f"({error.strerror}): use workers=1"
        ) from error
    # A folder without locks causes a warning: here once, instead of once per worker.
    with suppress(OSError), jobs[0].claimed():
        pass
    processes = []
    for index in range(workers):
        arguments = (run, index, workers, jobs, next_job, events)
        processes.append(context.Process(target=_work, args=arguments, daemon=True))
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes) or not events.empty():
            try:
                event, index, value = events.get(timeout=0.5)
            except Empty:
                continue
            tell(event, jobs[index], value)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    _check_exit_codes([process.exitcode for process in processes])


def _check_exit_codes(codes: Sequence[int | None]) -> None:
    failed = [code for code in codes if code]
    if failed:
        advice = "; if memory ran out, use fewer workers" if -9 in failed else ": see above"
        raise InputError(
            f"{len(failed)} of {len(codes)} workers ended early (exit status {failed[0]}){advice}"
        )


def _work(
    run: TransferRun, index: int, workers: int, jobs: Sequence[Job], next_job: Any, events: Any
) -> None:
    """Run a worker process.

    Args:
        run: settings of the jobs.
        index: index of the worker.
        workers: number of workers.
        jobs: jobs of all workers.
        next_job: shared index of the next job.
        events: queue to the command.
    """

    def stop(*_: object) -> None:
        """Exit through `finally` clauses, which clean up, without waiting for queued events."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        events.cancel_join_thread()  # the command may not read any more
        sys.exit(128 + signal.SIGTERM)

    def follow() -> None:
        """Stop when the command ends, even in the middle of a job."""
        _parent().join()
        os.kill(os.getpid(), signal.SIGTERM)

    def remaining_jobs() -> Iterator[Job]:
        while _parent().is_alive():
            with next_job.get_lock():
                position = next_job.value
                next_job.value += 1
            if position >= len(jobs):
                return
            yield jobs[position]

    def tell(event: str, job: Job, value: Any) -> None:
        events.put((event, positions[job], value))

    plain_warnings()
    # Ctrl-C signals the whole process group; the command stops its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=follow, daemon=True).start()
    import_plugins(run.plugins)
    positions = {job: position for position, job in enumerate(jobs)}
    run.do(run.load(index, workers), remaining_jobs(), tell)


def _parent() -> Any:
    """Return the process of the command."""
    return multiprocessing.parent_process()
