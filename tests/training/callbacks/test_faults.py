"""Training that is killed at random moments, or without space or its folder: files, resuming.

A quick sample by default; `make test-faults` runs the campaign.
"""

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY_SMALL, Result, run_process, start_process
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from test_checkpoints import SPEEDS, differences, holes, state

from audio_diffusion_pytorch.training.run_folder import lock_folder
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint

STEPS = 24  # of the campaign
SETTINGS = {
    "workers": ("datamodule.num_workers=2", "ckpt_every_n_steps=2"),
    "accumulation": (
        "datamodule.num_workers=1",
        "ckpt_every_n_steps=1",
        "trainer.accumulate_grad_batches=2",
    ),
}


def arguments(recordings: Path, name: str, tag: str, steps: int) -> tuple[str, ...]:
    """A run of eight batches an epoch, a validation after every third, named `tag`."""
    common = (
        "exp=flute_small",
        *[a for a in TINY_SMALL if "num_workers" not in a],
        f"dataset_path={recordings}",
    )
    common += (
        "datamodule.batch_size=4",
        "log_every_n_steps=3",
        "trainer.log_every_n_steps=1",
        "callbacks.monitor.every_n_steps=4",
    )
    return (*common, *SETTINGS[name], f"trainer.max_steps={steps}", f"exp_tag={tag}", "ckpt=auto")


def logged(run: Path) -> dict[tuple[str, int], list[float]]:
    """Read the TensorBoard scalars of all processes in a run folder: {(name, step): values}."""
    found: dict[tuple[str, int], list[float]] = {}
    for file in sorted((run / "tensorboard").glob("events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for name in set(events.Tags()["scalars"]) - SPEEDS:
            for event in events.Scalars(name):
                found.setdefault((name, event.step), []).append(event.value)
    return found


def check(run: Path, whole: Path) -> None:
    """Compare the files of a killed run with those of an uninterrupted one."""
    assert holes(logged(run), logged(whole)) == []
    assert differences(state(run / "checkpoints"), state(whole / "checkpoints")) == []
    best = [load_checkpoint(folder / "checkpoints/best.ckpt") for folder in (run, whole)]
    assert (
        differences(
            *({key: content[key] for key in ("state_dict", "global_step")} for content in best)
        )
        == []
    )
    models = [load_file(folder / "flute_small.safetensors") for folder in (run, whole)]
    assert differences(*models) == []
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]


def kill(process, moment: str, rng: random.Random, seconds: float, checkpoints: Path) -> str:
    """Kill it with all its processes; returns when.

    Args:
        moment: "start", at any time in the first half of the `seconds` that a run takes;
            "training", after some writes of last.ckpt; "write", during the next one.
    """
    limit, last = time.monotonic() + 300, checkpoints / "last.ckpt"

    def wait(condition) -> None:
        while not condition() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0 if moment == "write" else 0.001)

    def written() -> int:
        return last.stat().st_mtime_ns if last.exists() else 0

    if moment == "start":
        writes, delay = 0, rng.uniform(0, seconds / 2)
    else:
        writes, delay = rng.randint(1, 4), rng.uniform(0, 0.1) if moment == "training" else 0.0
    for _ in range(writes):
        before = written()
        wait(lambda before=before: written() != before)
    end = time.monotonic() + delay
    wait(lambda: time.monotonic() > end)
    if moment == "write":
        wait(lambda: any(checkpoints.glob(".last.*.tmp.ckpt")))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    step = load_checkpoint(last)["global_step"] if last.exists() else 0
    torn = " and a half-written one" if any(checkpoints.glob(".last.*.tmp.ckpt")) else ""
    return f"{moment}, {writes} writes and {delay:.2f} s: left a checkpoint of step {step}{torn}"


@dataclass
class Campaign:
    """Runs of `steps` steps in the folder `logs`; `run` runs a command to its end."""

    run: Callable[..., Result]
    recordings: Path
    logs: Path
    steps: int
    seconds: dict[str, float] = field(default_factory=dict)  # of the uninterrupted runs

    def train(self, name: str, tag: str) -> Path:
        result = self.run("train.py", *arguments(self.recordings, name, tag, self.steps))
        assert result.code == 0, result.err
        return self.logs / tag

    def whole(self, name: str) -> Path:
        """Return the folder of an uninterrupted run, made once for each setting."""
        if name not in self.seconds:
            begun = time.monotonic()
            self.train(name, f"whole-{name}")
            self.seconds[name] = time.monotonic() - begun
        return self.logs / f"whole-{name}"

    def kill_and_resume(self, name: str, moments: list[str], seed: int) -> str:
        """Kill a run at these moments in turn, let it end, and check it; return the events."""
        folder, rng, happened = self.whole(name), random.Random(seed), []
        run = self.logs / f"killed-{seed}"
        line = arguments(self.recordings, name, run.name, self.steps)
        for moment in moments:
            process = start_process("train.py", *line, cwd=self.logs, logs=self.logs)
            happened.append(kill(process, moment, rng, self.seconds[name], run / "checkpoints"))
        self.train(name, run.name)
        check(run, folder)
        return "; ".join(happened)


@pytest.mark.long  # kills at single moments: test_checkpoints.py
def test_a_killed_run_goes_on_bit_for_bit(command, recordings, tmp_path):
    """The quick sample: killed in the middle of a write; the other runs share this process."""
    campaign = Campaign(command, recordings, tmp_path / "logs", 12)
    campaign.kill_and_resume("accumulation", ["write"], 0)


@pytest.fixture
def train(command):
    return lambda *arguments: command(
        "train.py", "exp=flute_small", *TINY_SMALL, "datamodule.batch_size=4", *arguments
    )


@pytest.mark.long
def test_a_disk_that_is_full_when_losses_are_logged(train, recordings, tmp_path, monkeypatch):
    """The run ends with the reason, its last checkpoint is whole, and it can go on."""
    write, count = RecordWriter.write, []

    def full(self, data):
        count.append(1)
        if len(count) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    settings = (
        f"dataset_path={recordings}",
        "exp_tag=a",
        "ckpt_every_n_steps=1",
        "trainer.max_steps=20",
    )
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full)
        error = train(*settings).error()
    assert (
        f"cannot write to {tmp_path}/logs/a: No space left on device; free space and resume with "
        "exp_tag=a ckpt=last" in error
    )
    assert 0 < load_checkpoint(tmp_path / "logs/a/checkpoints/last.ckpt")["global_step"] < 20
    assert train(*settings, "ckpt=last").code == 0
    assert {step for name, step in logged(tmp_path / "logs/a") if name == "train_loss"} == set(
        range(20)
    )


def test_a_disk_that_is_full_at_the_start(train, recordings, tmp_path, monkeypatch):
    def full(self, text, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    error = train(f"dataset_path={recordings}", "exp_tag=a").error()
    assert (
        "cannot write" in error
        and "config.yaml: No space left" in error
        and not (tmp_path / "logs/a").exists()
    )


def test_two_runs_in_one_folder(train, recordings, tmp_path):
    """The second is refused, and changes nothing."""
    assert train(f"dataset_path={recordings}", "trainer.max_steps=1", "exp_tag=a").code == 0
    trained = tmp_path / "logs/a"

    def listing():
        return {
            path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.name != ".lock"
        }

    before = listing()
    with lock_folder(trained):
        for more in ([], ["ckpt=last"]):
            error = train(f"dataset_path={recordings}", "exp_tag=a", *more).error()
            assert (
                f"another run (process {os.getpid()} on" in error
                and "choose another exp_tag" in error
            )
    assert listing() == before


@pytest.mark.faults
def test_twenty_kills(recordings, tmp_path, capfd):
    run = partial(run_process, cwd=tmp_path, logs=tmp_path)
    campaign = Campaign(run, recordings, tmp_path, STEPS)
    moments = (["start"], ["training"], ["write"], ["training", "training"], ["training"])
    for trial in range(20):
        name = ("workers", "accumulation")[trial % 2]
        happened = campaign.kill_and_resume(name, moments[trial % 5], 1000 + trial)
        with capfd.disabled():
            print(f"passed {trial + 1} of 20 ({name}: {happened})", flush=True)
