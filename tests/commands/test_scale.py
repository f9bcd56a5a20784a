"""Several processes do what one does with a larger batch; what cannot work is refused."""

import os
import select
import shutil
import signal
import time

import pytest
import torch
from conftest import TINY_SMALL, run_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio_diffusion_pytorch.data.datamodule import EpochSampler
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.processes import follow
from audio_diffusion_pytorch.training.trainer import make_trainer
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint


def scalars(run, *names: str) -> dict[str, list[float]]:
    (file,) = (run / "tensorboard").glob("events*")  # one process writes
    events = EventAccumulator(str(file)).Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in names}


@pytest.mark.long
def test_two_processes_are_one_with_twice_the_batch(command, recordings, tmp_path):
    """Losses, validation of an odd number of items, weights, the latent cache, the files."""
    tiny = [argument for argument in TINY_SMALL if argument != "trainer.gpus=0"]
    settings = (
        "exp=flute_small",
        *tiny,
        f"dataset_path={recordings}",
        "datamodule.max_valid_items=7",
    )
    settings = (*settings, "trainer.max_steps=3", "log_every_n_steps=2", "seed=5")
    settings = (*settings, "datamodule.cache=true", "octaves=null")
    logs = tmp_path / "logs"
    two = run_process(
        *("train.py", *settings, "trainer=ddp_cpu", "datamodule.batch_size=2", "exp_tag=two"),
        cwd=tmp_path,
        logs=logs,
    )
    assert two.code == 0 and two.out.count("run folder: ") == 1, two.err
    one = command("train.py", *settings, "trainer=cpu", "datamodule.batch_size=4", "exp_tag=one")
    assert one.code == 0, one.err
    names = ("train_loss", "valid_loss", "valid_loss_fixed", "valid_loss_by_sigma/0.03")
    found, expected = (scalars(logs / tag, *names) for tag in ("two", "one"))
    assert len(expected["train_loss"]) == 3 and len(expected["valid_loss"]) == 1
    for name in names:
        # Two processes add gradients in another order, over some steps.
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    states = [
        load_checkpoint(logs / tag / "checkpoints/last.ckpt")["state_dict"]
        for tag in ("two", "one")
    ]
    for key, value in states[1].items():
        # AdamW divides gradients by their own size, which turns rounding into steps.
        assert torch.allclose(states[0][key].float(), value.float(), rtol=1e-3, atol=1e-4), key
    files = [
        {str(f.relative_to(logs / tag)) for f in (logs / tag).rglob("*") if f.is_file()}
        for tag in ("two", "one")
    ]
    differing = {name for name in files[0] ^ files[1] if "tfevents" not in name}
    assert differing <= {"train_ddp_process_1.log"} and [
        path.name for path in logs.iterdir() if path.is_dir()
    ]


@pytest.fixture
def sweep(command, monkeypatch):
    """train.py leaves a variable in the environment, which would outlive the test."""
    monkeypatch.setenv("SWEPT_EXP", "none")
    return lambda *arguments: command("train.py", "-m", "exp=flute_small,violin_small", *arguments)


@pytest.mark.long
def test_a_sweep_has_a_folder_for_each_run(sweep, recordings, tmp_path):
    settings = (
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=4",
        "trainer.max_steps=1",
    )
    result = sweep(*settings, "exp_tag=s", "loggers=csv")
    assert result.code == 0, result.err
    for run, name in (("s-0", "flute_small"), ("s-1", "violin_small")):
        assert (tmp_path / "logs" / run / f"{name}.safetensors").is_file()
        assert "train_loss" in (tmp_path / "logs" / run / "csv/version_0/metrics.csv").read_text()


def test_a_launchers_processes_warn_in_one_line(recordings, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    data = shutil.copytree(recordings, tmp_path / "data")
    (data / "flute_9.wav").write_text("no sound")
    settings = (*TINY_SMALL, f"dataset_path={data}", "launcher=joblib", "dry_run=true")
    result = run_process(
        "train.py", "-m", "exp=flute_small", *settings, cwd=tmp_path, logs=tmp_path / "logs"
    )
    assert result.code == 0 and "flute_9.wav" in result.err, result.err
    assert result.err.startswith("warning: ") and "UserWarning" not in result.err, result.err


def test_a_sweep_of_several_processes_is_refused(sweep, recordings):
    tiny = [argument for argument in TINY_SMALL if argument != "trainer.gpus=0"]
    error = sweep(*tiny, f"dataset_path={recordings}", "trainer=ddp_cpu").error()
    assert "a sweep (-m) cannot train in 2 processes: add launcher=slurm" in error


def test_a_process_ends_with_the_one_that_started_it():
    """The pipe closes with its last process, here one that would sleep for minutes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        me = os.getpid()
        if os.fork() == 0:
            follow(me, 0.02)
            time.sleep(600)
        time.sleep(0.2)
        os.kill(me, signal.SIGKILL)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert select.select([reader], [], [], 60)[0] and os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_processes_share_an_epoch(world):
    data = range(31)
    whole = EpochSampler(data, seed=1, batch_size=2 * world)
    for epoch in (0, 4):
        samplers = [
            EpochSampler(data, seed=1, batch_size=2, rank=rank, world=world)
            for rank in range(world)
        ]
        for sampler in (whole, *samplers):
            sampler.resume(4, 4 * world)
            sampler.set_epoch(epoch)
        parts = [torch.tensor(list(sampler)).view(-1, 2) for sampler in samplers]
        assert torch.cat(parts, 1).flatten().tolist() == list(whole)
        assert [len(sampler) for sampler in samplers] == [len(part) * 2 for part in parts]
    valid = [EpochSampler(data, 1, shuffle=False, rank=rank, world=world) for rank in range(world)]
    assert sorted(item for sampler in valid for item in sampler) == list(range(31))


def test_sixteen_bit_floats_need_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for precision in ("16-mixed", 16, "16-true"):
        with pytest.raises(InputError, match=f"precision={precision} needs a GPU"):
            make_trainer(0, precision=precision)


def test_several_devices_get_a_strategy_whose_waits_end(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pytorch_lightning.Trainer", lambda **kwargs: seen.append(kwargs.get("strategy"))
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for settings in (
        {"gpus": -1},
        {"gpus": 1, "num_nodes": 2},
        {"gpus": 0, "devices": 2},
        {"gpus": 1},
        {"gpus": 0},
    ):
        make_trainer(**settings, timeout_minutes=3)
    assert [strategy._timeout.total_seconds() for strategy in seen[:3]] == [180] * 3 and seen[
        3:
    ] == [None, None]
