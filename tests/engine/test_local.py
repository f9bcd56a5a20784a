"""Jobs in processes of this machine: every one is done once, whatever happens to the processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from toy_task import Events, Toy

from audio_diffusion_pytorch.engine.local import run_in_processes
from audio_diffusion_pytorch.errors import InputError

JOBS = [f"job{index}" for index in range(40)]


def test_every_job_is_done_once_by_one_of_the_workers(tmp_path):
    events = Events()
    run_in_processes(Toy(tmp_path, 0.01), 2, JOBS, events)
    assert sorted(events.done) == sorted(events.windows) == sorted(JOBS)
    assert {value["by"] for value in events.done.values()} == {"worker 0 of 2", "worker 1 of 2"}
    log = (tmp_path / "log").read_text().splitlines()
    assert len(log) == len(JOBS) and len({line.split()[1] for line in log}) == 2


def test_a_job_that_ends_its_worker_twice_is_named_and_the_rest_is_done(tmp_path):
    events = Events()
    toy = Toy(tmp_path)
    jobs = [*JOBS[:10], "poison", *JOBS[10:20], "once", *JOBS[20:]]
    run_in_processes(toy, 2, jobs, events)
    assert list(events.failed) == ["poison"] and toy.tries("poison") == 2
    assert "poison ended two workers" in events.failed["poison"]
    assert sorted(events.done) == sorted([*JOBS, "once"]) and toy.tries("once") == 2


def test_the_parts_of_a_job_are_joined_after_the_last_one(tmp_path):
    events, toy = Events(), Toy(tmp_path)
    run_in_processes(toy, 2, ["job", "long-part"], events)
    assert sorted(events.done) == ["job", "joined long-part"] and not events.failed
    tries = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    tries.remove("job")  # by the other worker, which may start after the last part
    assert tries[0] == "long-part" and tries[-1] == "joined"
    assert sorted(tries[1:-1]) == sorted(f"part{i}" for i in range(40))


def test_a_part_that_ends_its_worker_twice_fails_the_job_once(tmp_path):
    """Parts that wait are dropped; the other jobs are done."""
    events, toy = Events(), Toy(tmp_path)
    run_in_processes(toy, 2, ["long-poison", *JOBS], events)
    assert sorted(events.done) == sorted(JOBS)
    ((job, reason),) = events.failed.items()
    assert job == "joined long-poison" and "ended two workers" in reason
    log = (tmp_path / "log").read_text()
    assert "joined" not in log and log.count("poison") < 40


def test_workers_that_all_die_end_the_run(tmp_path):
    poison = [f"poison{index}" for index in range(40)]
    with pytest.raises(InputError, match="10 workers ended early"):
        run_in_processes(Toy(tmp_path), 2, poison, Events())


def test_the_error_of_a_start_reaches_the_command(tmp_path):
    with pytest.raises(InputError, match="no such model: choose another"):
        run_in_processes(Toy(tmp_path, broken=True), 2, JOBS, Events())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_clean_up_and_end_with_their_command(number, tmp_path):
    code = f"""
from pathlib import Path
from toy_task import Events, Toy
from audio_diffusion_pytorch.engine.local import run_in_processes
if __name__ == "__main__":
    run_in_processes(Toy(Path({str(tmp_path)!r}), 100), 2, ["a", "b"], Events())
"""
    (tmp_path / "command.py").write_text(code)
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    command = subprocess.Popen(
        [sys.executable, tmp_path / "command.py"],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("*.lock"))) < 2:
        assert time.monotonic() < limit and command.poll() is None
        time.sleep(0.05)
    command.send_signal(number)
    command.communicate(timeout=60)  # the workers hold its pipe until they end
    assert not list(tmp_path.glob("*.lock"))
    assert not (tmp_path / "a").exists()
