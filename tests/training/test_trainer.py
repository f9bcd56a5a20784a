"""`trainer.gpus`, and checkpoints that are complete or not there."""

import os
import signal

import pytest
import torch
from conftest import ODD_NAME

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.run_folder import prepare_run_folder
from audio_diffusion_pytorch.training.trainer import AtomicCheckpointIO, make_trainer


@pytest.fixture
def gpus(monkeypatch):
    """As many GPUs as a test says."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_gpu(gpus, tmp_path):
    gpus(0)
    settings = dict(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match="no GPU found: training on the CPU"):
        assert make_trainer(**settings).accelerator.__class__.__name__ == "CPUAccelerator"
    trainer = make_trainer(0, **settings, max_epochs=7)
    assert trainer.num_devices == 1 and trainer.max_epochs == 7
    for count in (1, 2, -2):
        with pytest.raises(InputError, match=f"trainer.gpus={count}, but this machine has 0"):
            make_trainer(count)


@pytest.mark.parametrize(
    "setting", [{"gpus": "all"}, {"max_steps": "abc"}, {"max_epochs": 1.5}, {"max_steps": True}]
)
def test_settings_that_must_be_whole_numbers(setting):
    ((key, value),) = setting.items()
    with pytest.raises(InputError, match=f"trainer.{key}={value} must be a whole number"):
        make_trainer(**{"gpus": 0, **setting})


def test_with_gpus(gpus, monkeypatch):
    seen = []
    monkeypatch.setattr("pytorch_lightning.Trainer", lambda **kwargs: seen.append(kwargs))
    gpus(4)
    for count in (-1, 0, 2):
        make_trainer(count)
    assert [(s["accelerator"], s["devices"]) for s in seen] == [("gpu", -1), ("cpu", 1), ("gpu", 2)]
    with pytest.raises(InputError, match="this machine has 4"):
        make_trainer(5)


def test_checkpoints_are_atomic(tmp_path, file_size_limit):
    path, io = tmp_path / ODD_NAME / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    assert io.load_checkpoint(path) == {"step": 1}
    with (
        file_size_limit(10_000),
        pytest.raises(InputError, match=r"cannot write .*last\.ckpt: File too large.*free space"),
    ):
        io.save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, path)
    assert io.load_checkpoint(path) == {"step": 1} and [p.name for p in path.parent.iterdir()] == [
        "last.ckpt"
    ]
    with pytest.raises(AttributeError):  # our own errors pass unchanged
        io.save_checkpoint({"step": lambda: 2}, path)
    assert io.load_checkpoint(path) == {"step": 1} and [p.name for p in path.parent.iterdir()] == [
        "last.ckpt"
    ]
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)
    assert not path.exists()


@pytest.mark.parametrize(("moment", "step"), [("save", 1), ("replace", 1), ("open", 2)])
def test_a_kill_while_a_checkpoint_is_written(moment, step, tmp_path):
    """In the middle of the file, before it gets its name, and before the folder is flushed."""
    path, io = tmp_path / "checkpoints/last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    opened = os.open

    def die(*args, **kwargs):
        if moment == "open" and not os.path.isdir(args[0]):
            return opened(*args, **kwargs)
        if moment == "save":
            args[1].write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            setattr(torch if moment == "save" else os, moment, die)
            io.save_checkpoint({"step": 2}, path)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert io.load_checkpoint(path) == {"step": step}
    assert len(list(path.parent.iterdir())) == (1 if moment == "open" else 2)
    prepare_run_folder(tmp_path, path.parent, "")
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_slurm_jobs_are_requeued_between_two_steps(monkeypatch, tmp_path):
    for key, value in dict(
        JOB_ID=1, NTASKS=1, PROCID=0, LOCALID=0, NODEID=0, JOB_NAME="run"
    ).items():
        monkeypatch.setenv(f"SLURM_{key}", str(value))
    trainer = make_trainer(0, logger=False, default_root_dir=tmp_path)
    # Lightning would requeue in the middle of a step.
    assert not trainer._accelerator_connector.cluster_environment.auto_requeue
