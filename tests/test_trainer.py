"""`trainer.gpus`, and checkpoints that are complete or not there."""

import pytest
import torch
from conftest import ODD_NAME

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.trainer import AtomicCheckpointIO, make_trainer


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


def test_with_gpus(gpus, monkeypatch):
    seen = []
    monkeypatch.setattr("pytorch_lightning.Trainer", lambda **kwargs: seen.append(kwargs))
    gpus(4)
    for count in (-1, 0, 2):
        make_trainer(count)
    assert [(s["accelerator"], s["devices"]) for s in seen] == [("gpu", -1), ("cpu", 1), ("gpu", 2)]
    with pytest.raises(InputError, match="this machine has 4"):
        make_trainer(5)


def test_checkpoints_are_atomic(tmp_path, monkeypatch):
    path, io = tmp_path / ODD_NAME / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    assert io.load_checkpoint(path) == {"step": 1}

    def full(content, file):
        file.write_bytes(b"half")
        raise RuntimeError(
            "[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/0\nmore"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*last\.ckpt.*failed writing file data/0.*free space"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path) == {"step": 1} and [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    io.remove_checkpoint(path)
    io.remove_checkpoint(path)
    assert not path.exists()
