"""The run's folder, and checkpoints that do not fit the run."""

import errno
import fcntl
import multiprocessing
import re
import shlex
import time
from dataclasses import asdict

import pytest
import torch
from conftest import ODD_NAME
from omegaconf import OmegaConf
from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentSpec
from audio_diffusion_pytorch.training.checks import check_numbers
from audio_diffusion_pytorch.training.resume import check_compatible, check_resumable
from audio_diffusion_pytorch.training.run_folder import (
    find_checkpoint,
    lock_folder,
    prepare_run_folder,
    resume_arguments,
)


class Module(nn.Linear):
    def __init__(
        self, name: str = "flute", codec: str = "small", sigma_max: float = 10.0, width: int = 2
    ):
        super().__init__(width, 1)
        self.spec = InstrumentSpec(
            name, {"channels": width, "factors": [2]}, codec, sigma_max=sigma_max
        )
        self.hparams = {}

    def describe(self) -> dict:
        return asdict(self.spec)


class Data:
    def __init__(self, **state):
        self.state = {"batch_size": 4, "recordings": "12 files, 1f0c2a", **state}

    def state_dict(self) -> dict:
        return self.state


def save(path, **content):
    torch.save(
        {"state_dict": Module().state_dict(), "optimizer_states": [], "loops": {}, **content}, path
    )
    return path


def test_the_configuration_is_written_and_leftovers_go(tmp_path):
    run = tmp_path / ODD_NAME
    prepare_run_folder(run, run / "checkpoints", "name: né\n")
    (run / "checkpoints").mkdir()
    for name in (".last.123.tmp.ckpt", "last.ckpt"):
        (run / "checkpoints" / name).touch()
    prepare_run_folder(run, run / "checkpoints", "name: new\n")
    assert (run / "config.yaml").read_text(encoding="utf-8") == "name: new\n"
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"cannot write to .*run: Not a directory"),
        lock_folder(tmp_path / "file" / "run"),
    ):
        pass


@pytest.fixture
def forked():
    """Run `function(started)` in a process until the test ends; return it once `started` is set."""
    context, processes = multiprocessing.get_context("fork"), []

    def run(function):
        started = context.Event()
        processes.append(context.Process(target=function, args=(started,), daemon=True))
        processes[-1].start()
        assert started.wait(60)
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.join(60)


def test_two_runs_do_not_share_a_folder(tmp_path, forked):
    def other(started):
        with lock_folder(run):
            started.set()
            time.sleep(600)

    run = tmp_path / ODD_NAME
    process = forked(other)
    with (
        pytest.raises(InputError, match=f"another run .process {process.pid} on .* uses "),
        lock_folder(run),
    ):
        pass
    process.kill()
    process.join(60)
    with lock_folder(run):  # the system has freed it
        pass


def test_a_process_that_outlives_the_run_holds_no_lock(tmp_path, forked):
    """A loader's process notices only after seconds that it is alone."""

    def worker(started):
        started.set()
        time.sleep(600)

    with lock_folder(tmp_path / "run"):
        process = forked(worker)
    with lock_folder(tmp_path / "run"):
        assert process.is_alive()


def test_a_refused_start_leaves_no_folder(tmp_path):
    for name, left in (("empty", []), ("used", ["last.ckpt"])):
        run = tmp_path / name
        with pytest.raises(ZeroDivisionError), lock_folder(run):
            for file in left:
                (run / file).touch()
            1 / 0  # noqa: B018
        assert [p.name for p in run.glob("[!.]*")] == left and run.exists() == bool(left)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.warns(UserWarning, match="cannot be locked .Operation not supported.: start no"),
        lock_folder(tmp_path / "a"),
    ):
        pass


def test_names_of_checkpoints(tmp_path):
    assert find_checkpoint(None, tmp_path) is None
    with pytest.raises(
        InputError, match=r"no such checkpoint: lst; give a file, or last, best or auto"
    ):
        find_checkpoint("lst", tmp_path)
    (tmp_path / "a.ckpt").touch()
    assert find_checkpoint(f"{tmp_path}/a.ckpt", tmp_path) == f"{tmp_path}/a.ckpt"
    assert find_checkpoint("auto", tmp_path) is None
    for name in ("best", "last"):
        with pytest.raises(
            InputError, match=f"ckpt={name}: .*{name}.ckpt does not exist; name the run"
        ):
            find_checkpoint(name, tmp_path)
        (tmp_path / f"{name}.ckpt").touch()
        assert (
            find_checkpoint(name, tmp_path)
            == find_checkpoint("auto", tmp_path)
            == str(tmp_path / f"{name}.ckpt")
        )


def test_best_before_a_validation(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(
        InputError, match=r"ckpt=best: .* has not run a validation yet: use ckpt=last"
    ):
        find_checkpoint("best", tmp_path)


def test_what_a_resume_adds_to_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("DIR_LOGS", f"{tmp_path}/logs")
    logs = tmp_path / "logs"
    for tag, says in (
        ("a", "exp_tag=a"),
        ("b/c", "exp_tag=b/c"),
        (ODD_NAME, shlex.quote(f"exp_tag={ODD_NAME}")),
    ):
        assert resume_arguments(logs / tag, logs / tag / "checkpoints", logs) == f"{says} ckpt=last"
    other = tmp_path / "other"
    assert (
        resume_arguments(other / "a", other / "a/checkpoints", other)
        == f"exp_tag=a ckpt=last logs_dir={other}"
    )
    assert (
        resume_arguments(other / "a", other / "a/checkpoints", logs)
        == f"ckpt={other}/a/checkpoints/last.ckpt"
    )
    assert resume_arguments(logs / "a", other, logs) == f"ckpt={other}/last.ckpt"


def test_what_can_be_resumed_from(tmp_path, recwarn):
    path = str(
        save(tmp_path / "a.ckpt", instrument=asdict(Module().spec), Datamodule=Data().state_dict())
    )
    saved = check_resumable(path)
    assert saved.shapes == {"weight": (1, 2), "bias": (1,)}
    check_compatible(saved, Module(), Data(), path)
    check_compatible(
        check_resumable(str(save(tmp_path / "b.ckpt"))), Module(codec="encodec"), Data(), "b.ckpt"
    )
    assert not recwarn.list
    with pytest.raises(InputError, match="trained on the codec small, not encodec"):
        check_compatible(saved, Module(codec="encodec"), Data(), path)
    with pytest.raises(
        InputError, match=r"a model of the flute, but this run trains the violin.*init_from=FILE"
    ):
        check_compatible(saved, Module("violin"), Data(), path)
    with pytest.raises(
        InputError, match=r"1 tensors differ, for example weight, \[1, 2\] there, \[1, 3\] here"
    ):
        check_compatible(saved, Module(width=3), Data(), path)
    saved.shapes["extra"] = torch.Size([1])
    with pytest.raises(InputError, match=r"for example extra, \[1\] there, absent here"):
        check_compatible(saved, Module(), Data(), path)


@pytest.mark.parametrize(
    ("module", "data", "says"),
    [
        ({}, {"batch_size": 8}, "batch_size 4 there, 8 here"),
        (
            {},
            {"recordings": "11 files, aaaaaa"},
            "recordings 12 files, 1f0c2a there, 11 files, aaaaaa here",
        ),
        ({"sigma_max": 80.0}, {}, "sigma_max 10.0 there, 80.0 here"),
    ],
)
def test_what_makes_it_another_run(module, data, says, tmp_path):
    path = str(
        save(tmp_path / "a.ckpt", instrument=asdict(Module().spec), Datamodule=Data().state_dict())
    )
    with pytest.warns(
        UserWarning,
        match=f"different settings .{says}.: training continues",
    ):
        check_compatible(check_resumable(path), Module(**module), Data(**data), path)


def test_settings_of_the_training_that_changed(tmp_path, recwarn):
    settings = {"lr": 1e-3, "ema_beta": 0.9, "total_steps": 10}
    content = {"hyper_parameters": settings, "trainer": {"accumulate_grad_batches": 1}}
    saved, module = check_resumable(str(save(tmp_path / "a.ckpt", **content))), Module()
    module.hparams = {"lr": 1e-3, "ema_beta": 0.9, "total_steps": 20}
    check_compatible(saved, module, Data(), "a.ckpt", {"accumulate_grad_batches": 1})
    assert not recwarn.list
    module.hparams = {"lr": 1e-6, "ema_beta": 0.5}
    check_compatible(saved, module, Data(), "a.ckpt", {"accumulate_grad_batches": 2})
    others, optimiser = (str(warning.message) for warning in recwarn.list)
    assert (
        "(accumulate_grad_batches 1 there, 2 here, ema_beta 0.9 there, 0.5 here): training "
        "continues" in others
    )
    assert (
        "training continues with the optimiser of the checkpoint, not of the configuration (lr "
        "0.001 there, 1e-06 here)" in optimiser
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("seed", -1, "seed=-1 must be a whole number from 0 to 4294967295"),
        ("length", 8000.5, "length=8000.5 must be a whole number of at least 1"),
        ("ckpt_every_n_steps", 0, "ckpt_every_n_steps=0 must be a whole number of at least 1"),
        ("log_every_n_steps", True, "log_every_n_steps=true must be a whole number of at least 1"),
        ("model.lr", "abc", "model.lr=abc must be a number of at least 0"),
        ("model.ema_beta", 2, "model.ema_beta=2 must be a number from 0 to 1"),
    ],
)
def test_numbers_that_make_no_sense(key, value, says):
    good = {
        "seed": 1,
        "length": 9600,
        "ckpt_every_n_steps": 10,
        "model": {"lr": 1e-3, "ema_beta": 1},
        "other": -1,
    }
    check_numbers(OmegaConf.create(good))
    cfg = OmegaConf.create(good)
    OmegaConf.update(cfg, key, value)
    with pytest.raises(InputError, match=re.escape(says) + "$"):
        check_numbers(cfg)


def test_what_cannot_be_resumed_from(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        check_resumable(str(tmp_path / "none.ckpt"))
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="no optimiser state"):
        check_resumable(str(tmp_path / "a.ckpt"))
