"""Hand-outs to workers without processes; one of them may start late."""

import pytest
from toy_task import Events

from audio_diffusion_pytorch.engine.hand_out import hand_out

JOBS = [f"job{index}" for index in range(20)]
POISON = [f"poison{index}" for index in range(40)]


class Worker:
    """Worker that a poisonous job ends, and that a long job leaves to its parts."""

    ready = True

    def __init__(self) -> None:
        self.deaths = 0
        self.events: list[tuple | None] = []

    def submit(self, jobs: list[str]) -> None:
        for job in jobs:
            if job.startswith("poison"):
                self.deaths += 1
                break
            if job == "long":
                self.events.append(("split", job, (POISON, "joined long")))
            else:
                self.events.append(("done", job, None))
        self.events.append(None)

    def receive(self) -> tuple | None:
        return self.events.pop(0)


@pytest.mark.parametrize("late", [None, 0, 1])
def test_a_job_whose_parts_all_end_their_workers_ends_few(late):
    """The events of the late worker wait until the other one is idle."""
    workers = [Worker(), Worker()]

    def wait(busy: list[Worker]) -> list[Worker]:
        early = [worker for worker in busy if late is None or worker is not workers[late]]
        return early or busy

    events = Events()
    hand_out(workers, ["long", *JOBS], events, wait)
    assert sorted(events.done) == sorted(JOBS)
    ((job, reason),) = events.failed.items()
    assert job == "joined long" and "ended two workers" in reason
    assert sum(worker.deaths for worker in workers) <= 4
