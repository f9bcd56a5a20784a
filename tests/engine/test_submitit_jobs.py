"""Jobs in an array, by submitit's executor for processes of this machine."""

import os
import sys
import time

import pytest
from folders import clips, outputs
from toy_task import Events, Toy

pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")

from audio_diffusion_pytorch.engine import submitit_jobs
from audio_diffusion_pytorch.engine.checks import NodeCheck
from audio_diffusion_pytorch.engine.options import SlurmOptions
from audio_diffusion_pytorch.engine.submitit_jobs import run_with_submitit
from audio_diffusion_pytorch.errors import InputError

JOBS = [f"job{index}" for index in range(10)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(submitit_jobs, "_PAUSE", 0.1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def run(toy: Toy, jobs: list[str], tell: Events, version: str = "1.0", shards: int = 2) -> None:
    with NodeCheck.marked({"toy": version}, [], toy.folder) as check:
        run_with_submitit(toy, SlurmOptions(shards, "local"), jobs, tell, check)


def test_every_job_is_done_once_and_logs_go(tmp_path):
    events = Events()
    run(Toy(tmp_path), JOBS, events)
    assert sorted(events.done) == sorted(events.windows) == sorted(JOBS)
    processes = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(processes) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*JOBS, "log"])


def test_a_job_that_ends_its_process_twice_is_named_and_the_rest_is_done(tmp_path):
    toy, events = Toy(tmp_path), Events()
    run(toy, ["job0", "poison", "job1", "job2"], events)
    assert list(events.failed) == ["poison"] and toy.tries("poison") == 2
    assert sorted(events.done) == ["job0", "job1", "job2"]
    assert list(tmp_path.glob("slurm.engine-*/*/*_log.err"))


def test_refusals_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^no such model: choose another$"):
        run(Toy(tmp_path, broken=True), JOBS, Events())
    with pytest.raises(InputError, match=r"^node \S+ has toy 1\.0, .* has 2\.0: install the same"):
        run(Toy(tmp_path), JOBS, Events(), version="2.0", shards=1)
    check = NodeCheck({}, [], tmp_path / ".engine-1")  # which no one has written
    with pytest.raises(InputError, match=r"^node \S+ does not see \S+ of this command"):
        run_with_submitit(Toy(tmp_path), SlurmOptions(1, "local"), JOBS, Events(), check)


@pytest.mark.long  # jobs of a busy machine take seconds to start and to end
def test_ctrl_c_ends_the_jobs(tmp_path):
    class Interrupting(Events):
        def __call__(self, event: str, job: str, value: object) -> None:
            super().__call__(event, job, value)
            if event == "done":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Toy(tmp_path, 1.0), JOBS, Interrupting())
    time.sleep(3)
    before = (tmp_path / "log").read_text()
    time.sleep(2)
    assert (tmp_path / "log").read_text() == before
    assert not list(tmp_path.glob("*.lock"))


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setattr(submitit_jobs, "submitit", None)
    with pytest.raises(InputError, match=r'needs submitit: pip install "timbridge\[slurm\]"'):
        run(Toy(tmp_path), JOBS, Events())


def test_without_slurm(tmp_path):
    with (
        NodeCheck.marked({}, [], tmp_path) as check,
        pytest.raises(
            InputError, match=r"engine=slurm: the array cannot be submitted: Could not detect .srun"
        ),
    ):
        run_with_submitit(Toy(tmp_path), SlurmOptions(), JOBS, Events(), check)


@pytest.mark.long
def test_transfer_writes_the_same_bytes_as_local_processes(transfer, tmp_path):
    folder = clips(tmp_path / "in", 3, seconds=1.0)
    arguments = f"input={folder}", "batch_size=1"
    local = transfer(*arguments, f"output={tmp_path / 'local'}")
    options = "engine=slurm", "slurm.cluster=local", "slurm.shards=1"
    other = transfer(*arguments, f"output={tmp_path / 'slurm'}", *options)
    assert local.code == other.code == 0, local.err + other.err
    assert local.out.replace("/local", "") == other.out.replace("/slurm", "")
    assert len(outputs(tmp_path / "slurm")) == 3 and not list(tmp_path.rglob("*.engine-*"))
    for name in outputs(tmp_path / "local"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "slurm" / name).read_bytes()
