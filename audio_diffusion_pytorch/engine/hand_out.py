"""Hand out independent jobs to workers, and repeat the jobs of a worker that died.

A worker begins with `submit(jobs)`; `receive()` returns its next event, None after its jobs or its
death; `ready` is false while it cannot begin.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from audio_diffusion_pytorch.engine.task import FINAL, Tell
from audio_diffusion_pytorch.errors import InputError

_MOST = 16  # jobs in one hand-out
_REMEDY = "use fewer workers if memory ran out"
_DEATHS = 10  # most workers that die in a row


def hand_out(workers: Sequence[Any], jobs: Sequence[Any], tell: Tell, wait: Callable) -> None:
    """Do all jobs.

    After the death of a worker, each of its unfinished jobs is repeated alone. A job fails after a
    second death.

    Args:
        workers: idle workers.
        jobs: hashable jobs, whose texts name them.
        tell: callback for events, called in this process.
        wait: waits for an event; returns those of the given workers that have one.

    Raises:
        InputError: one worker after another dies.
    """
    fresh = list(reversed(jobs))
    again: list[Any] = []  # to be repeated
    lost: Counter[Any] = Counter()
    deaths = 0
    held: dict[Any, list[Any]] = {}  # unfinished jobs of busy workers
    while fresh or again or held:
        for worker in workers:
            if worker.ready and worker not in held and (fresh or again):
                held[worker] = _take(fresh, len(workers)) or [again.pop()]
                worker.submit(list(held[worker]))
        for worker in wait(list(held)):
            if event := worker.receive():
                tell(*event)
                if event[0] in FINAL:
                    deaths = 0
                    held[worker].remove(event[1])
            elif unfinished := held.pop(worker):
                deaths += 1
                if deaths == _DEATHS:
                    raise InputError(f"{deaths} workers ended early: {_REMEDY}")
                for job in unfinished:
                    lost[job] += 1
                    if lost[job] == 1:
                        again.append(job)
                    else:
                        tell("failed", job, f"{job} ended two workers: {_REMEDY}")


def _take(jobs: list[Any], workers: int) -> list[Any]:
    """Take jobs for one worker: fewer towards the end, so that the workers end together."""
    count = min(_MOST, -(-len(jobs) // (2 * workers)))
    return [jobs.pop() for _ in range(count)]
