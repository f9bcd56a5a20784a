"""Hand out independent jobs to workers, and repeat the jobs of a worker that died.

A worker begins with `submit(jobs)`; `receive()` returns its next event, None after its jobs or its
death; `ready` is false while it cannot begin.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from audio_diffusion_pytorch.engine.task import FINAL, SPLIT, Tell
from audio_diffusion_pytorch.errors import InputError

_MOST = 16  # jobs in one hand-out
_REMEDY = "use fewer workers if memory ran out"
_DEATHS = 10  # most workers that die in a row


def hand_out(workers: Sequence[Any], jobs: Sequence[Any], tell: Tell, wait: Callable) -> None:
    """Do all jobs.

    After the death of a worker, each of its unfinished jobs is repeated alone. A job fails after a
    second death. A job that ends with `SPLIT` is done by its parts, and by the job that joins them
    after the last one; if a part fails, the others are dropped and this job fails.

    Args:
        workers: idle workers.
        jobs: hashable jobs, whose texts name them.
        tell: callback for events, called in this process.
        wait: waits for an event; returns those of the given workers that have one.

    Raises:
        InputError: one worker after another dies.
    """
    todo = _Todo(jobs, tell)
    deaths = 0
    held: dict[Any, list[Any]] = {}  # unfinished jobs of busy workers
    while todo.fresh or todo.again or held:
        for worker in workers:
            if worker.ready and worker not in held and (todo.fresh or todo.again):
                held[worker] = todo.take(len(workers))
                worker.submit(list(held[worker]))
        for worker in wait(list(held)):
            if event := worker.receive():
                todo.tell(*event)
                if event[0] in FINAL:
                    deaths = 0
                    held[worker].remove(event[1])
            elif unfinished := held.pop(worker):
                deaths += 1
                if deaths == _DEATHS:
                    raise InputError(f"{deaths} workers ended early: {_REMEDY}")
                for job in unfinished:
                    todo.lose(job)


class _Todo:
    """Jobs to do, and the parts of jobs that are split."""

    def __init__(self, jobs: Sequence[Any], tell: Tell):
        self.fresh = list(reversed(jobs))
        self.again: list[Any] = []  # to be repeated
        self._tell = tell
        self._lost: Counter[Any] = Counter()
        self._whole: dict[Any, Any] = {}  # part -> the job that joins it
        self._missing: dict[Any, set[Any]] = {}  # such a job -> its unfinished parts

    def take(self, workers: int) -> list[Any]:
        """Take jobs for a worker: fewer towards the end, so that the workers end together.

        A lost part is repeated first: perhaps each part of its job ends a worker.
        """
        if self.again and self.again[-1] in self._whole:
            return [self.again.pop()]
        count = min(_MOST, -(-len(self.fresh) // (2 * workers)))
        return [self.fresh.pop() for _ in range(count)] or [self.again.pop()]

    def lose(self, job: Any) -> None:
        """Repeat an unfinished job of a dead worker once, except a dropped part."""
        if job in self._whole and self._whole[job] not in self._missing:
            return
        self._lost[job] += 1
        if self._lost[job] == 1:
            self.again.append(job)
        else:
            self.tell("failed", job, f"{job} ended two workers: {_REMEDY}")

    def tell(self, event: str, job: Any, value: Any) -> None:
        """Tell an event of a job, or of the whole job of a part."""
        whole = self._whole.get(job)
        if event == SPLIT:
            parts, join = value
            del self._lost[job]
            self._missing[join] = set(parts)
            self._whole |= dict.fromkeys(parts, join)
            self.fresh += reversed(parts)
        elif whole is None:
            self._tell(event, job, value)
        elif whole in self._missing:  # no other part has failed
            if event == "done":
                self._missing[whole].remove(job)
                if not self._missing[whole]:
                    self.fresh.append(whole)
                return
            self._tell(event, whole, value)
            if event in FINAL:
                dropped = self._missing.pop(whole)
                self.fresh = [other for other in self.fresh if other not in dropped]
                self.again = [other for other in self.again if other not in dropped]
