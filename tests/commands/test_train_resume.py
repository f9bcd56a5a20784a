"""`train.py`: interrupting and resuming."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import (
    TINY_SMALL,
    start_process,
)
from runs import losses

from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint


def damage(path: Path) -> None:
    """Overwrite some bytes in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xa5" * 64
    path.write_bytes(data)


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept") / "a"


@pytest.fixture
def trained(kept_run, train, recordings, tmp_path) -> Path:
    """A finished run's folder: trained once, copied for each test."""
    run = tmp_path / "logs" / "a"
    if not kept_run.exists():
        result = train(
            f"dataset_path={recordings}", "trainer.max_steps=2", "log_every_n_steps=2", "exp_tag=a"
        )
        assert result.code == 0, result.err
        run.rename(kept_run)
    shutil.copytree(kept_run, run)
    return run


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        # test_checkpoints.py terminates within this process.
        pytest.param(signal.SIGTERM, id="terminate", marks=pytest.mark.long),
    ],
)
@pytest.mark.long
def test_interrupted_training_continues_where_it_stopped(number, command, recordings, tmp_path):
    """The step it stops at is saved, and the losses go on from there; kills: test_faults.py."""
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=4",
    )
    settings = (
        *settings,
        "log_every_n_steps=7",
        "datamodule.num_workers=1",
        "ckpt_every_n_steps=3",
        "exp_tag=a",
    )
    run = tmp_path / "logs/a"
    last = run / "checkpoints/last.ckpt"
    process = start_process("train.py", *settings, cwd=tmp_path, logs=tmp_path / "logs")
    try:
        limit = time.monotonic() + 300
        while not last.is_file() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()

    stopped = load_checkpoint(last)["global_step"]
    assert process.returncode == 128 + number and "Traceback" not in err, err
    assert f"interrupted: stopped at step {stopped}; resume with exp_tag=a ckpt=last" in err
    assert max(losses(run)) == stopped - 1
    more = "datamodule.num_workers=0", "ckpt=last", f"trainer.max_steps={stopped + 4}"
    result = command("train.py", *settings, *more)
    assert result.code == 0 and "warning" not in result.err, result.err
    assert sorted(losses(run)) == list(range(stopped + 4))


def test_checkpoints_that_cannot_be_resumed_from(train, trained, recordings, folder):
    data, good = f"dataset_path={recordings}", trained / "checkpoints/last.ckpt"
    bad = folder / "epoch=03.ckpt"
    shutil.copy(good, bad)
    damage(bad)
    assert f"{bad} is damaged" in train(data, f"ckpt={bad}").error()
    bad.write_bytes(good.read_bytes()[:1000])
    assert f"{bad} is damaged" in train(data, f"ckpt={bad}").error()
    torch.save({"state_dict": {}}, bad)
    assert f"{bad} has no optimiser state" in train(data, f"ckpt={bad}").error()
    error = train(data, f"ckpt={good}", "model.model.channels=32").error()
    assert f"{good} was saved by another model" in error and "[16] there, [32] here" in error
    error = train(data, f"ckpt={good}", "instruments=[violin]", "instrument_name=violin").error()
    assert (
        f"{good} is a model of the flute, but this run trains the violin" in error
        and "init_from=FILE" in error
    )
    damage(good)
    error = train(data, "ckpt=last", "exp_tag=a").error()
    assert (
        f"{good} is damaged" in error
        and f"the newest good one beside it is {good.with_name('best.ckpt')}" in error
    )
    assert (
        "does not exist" in train(data, "ckpt=best", "exp_tag=b").error()
        and not (trained.parent / "b").exists()
    )


def test_a_resume_with_other_data_or_batches_is_a_warning(train, trained, recordings, folder):
    for file in sorted(recordings.glob("flute*"))[:4]:
        shutil.copy(file, folder)
    result = train(
        f"dataset_path={folder}",
        "ckpt=best",
        "exp_tag=a",
        "datamodule.batch_size=3",
        "trainer.max_steps=4",
        "log_every_n_steps=2",
    )
    (line,) = [
        line for line in result.err.splitlines() if "was saved with different settings" in line
    ]
    assert (
        result.code == 0
        and "batch_size 4 there, 3 here, recordings 4 files" in line
        and "3 files" in line
    )
    assert set(losses(trained)) == {0, 1, 2, 3}


def test_resuming_a_finished_run_ends_at_once(train, trained, recordings):
    result = train(
        f"dataset_path={recordings}", f"ckpt={trained}/checkpoints/last.ckpt", "trainer.max_steps=2"
    )
    assert result.code == 0 and "flute_small.safetensors" in result.out, result.err


@pytest.mark.long
def test_a_checkpoint_from_elsewhere_does_not_take_another_runs_folder(train, trained, recordings):
    data = f"dataset_path={recordings}"
    assert train(data, "exp_tag=b", "trainer.max_steps=1").code == 0
    before = (trained / "checkpoints/last.ckpt").read_bytes()
    there = f"ckpt={trained}/../b/checkpoints/last.ckpt"
    error = train(data, "exp_tag=a", there, "trainer.max_steps=2").error()
    assert (
        "already holds a run's checkpoints" in error
        and (trained / "checkpoints/last.ckpt").read_bytes() == before
    )
    assert train(data, "exp_tag=b", there, "trainer.max_steps=2").code == 0


def test_a_new_run_does_not_take_another_ones_folder(command, recordings):
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=2",
    )
    settings = (*settings, "trainer.max_steps=1", "exp_tag=twice")
    assert command("train.py", *settings).code == 0
    error = command("train.py", *settings).error()
    assert (
        "already holds a run's checkpoints" in error
        and "resume that run with ckpt=last, or choose another exp_tag" in error
    )
