"""`last.ckpt`: a resumed run equals the uninterrupted run, wherever it was killed."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, TINY_UNET
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers.logger import DummyLogger
from tolerances import NETWORK
from torch.utils.data import Dataset

import audio_diffusion_pytorch.commands.train  # noqa: F401, registers the resolvers
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from audio_diffusion_pytorch.training.callbacks.divergence import StopOnDivergence
from audio_diffusion_pytorch.training.callbacks.monitor import TrainingMonitor
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.processes import requeue
from audio_diffusion_pytorch.training.schedule import ScheduledValidation
from audio_diffusion_pytorch.training.trainer import AtomicCheckpointIO, make_trainer
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 11
SPEEDS = {"samples_per_s", "data_wait"}  # another in every run


class Noise(Dataset):
    """Crops that depend on the epoch, like those of `InstrumentDataset`."""

    epoch = 0

    def __len__(self) -> int:
        return 20

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def split(self, share: float, seed: int):
        return self, Noise()

    def __getitem__(self, index: int) -> torch.Tensor:
        return (
            torch.from_numpy(
                np.random.default_rng([self.epoch, index]).standard_normal((1, 1280), np.float32)
            )
            / 4
        )


class Memory(DummyLogger):
    """Everything that is logged: {(name, step): [values]}."""

    def __init__(self, values: dict[tuple[str, int], list[float]]):
        super().__init__()
        self.values = values

    def log_metrics(self, metrics, step=None) -> None:
        for name, value in metrics.items():
            if name not in SPEEDS:
                self.values.setdefault((name, step), []).append(float(value))


class Sender(pl.Callback):
    """Send this process a signal once, at a given point."""

    def __init__(self, where: str | None, step: int, number: int):
        self.due, self.number = (where, step), number

    def _visit(self, trainer: pl.Trainer, where: str) -> None:
        if self.due == (where, trainer.global_step):
            self.due = None
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *args) -> None:
        self._visit(trainer, "batch")

    def on_validation_batch_start(self, trainer, *args) -> None:
        self._visit(trainer, "validation")

    def on_validation_epoch_end(self, trainer, *args) -> None:
        self._visit(trainer, "samples")

    def on_train_epoch_end(self, trainer, *args) -> None:
        self._visit(trainer, "epoch")


class Kill(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


class KillingIO(AtomicCheckpointIO):
    """Kill the run after a number of checkpoints."""

    def __init__(self, writes: int):
        self.writes, self.path = writes, None

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        super().save_checkpoint(checkpoint, path)
        self.writes -= 1
        if self.writes == 0:
            self.path = path
            raise Kill


def fit(
    folder,
    codec,
    ckpt=None,
    sender=None,
    logged=None,
    num_workers=0,
    batch_size=4,
    every=1,
    schedule=None,
    **settings,
):
    """Train with five batches an epoch; return the values that this and earlier runs logged."""
    scheduled = [ScheduledValidation(schedule[1])] if schedule else []
    for callback in scheduled:
        callback.first = schedule[0]
    torch.manual_seed(0)
    module = InstrumentModule(
        UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), length=1280, total_steps=100
    )
    module.mean.fill_(-6)
    module.level.fill_(0.1)
    logger = Memory({} if logged is None else logged)
    trainer = make_trainer(
        gpus=0,
        callbacks=[
            *scheduled,
            LastCheckpoint(str(folder), every),
            BestCheckpoint(folder, "best", monitor="valid_loss", enable_version_counter=False),
            LearningRateMonitor("step"),
            TrainingMonitor(every_n_steps=4),
            StopOnDivergence(),
            *([sender] if sender else []),
        ],
        logger=logger,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"max_steps": STEPS, "val_check_interval": 3, **settings},
    )
    data = Datamodule(Noise(), batch_size=batch_size, num_workers=num_workers, max_valid_items=8)
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except Kill:
        pass
    except Interrupted as interrupt:
        assert sender is not None and interrupt.signal == sender.number
        assert str(interrupt) == f"stopped at step {trainer.global_step}"
    return logger.values


def state(folder: Path) -> dict:
    """Everything in `last.ckpt` that the rest of the run depends on."""
    content = load_checkpoint(folder / "last.ckpt")
    best = next(
        value for key, value in content["callbacks"].items() if key.startswith("BestCheckpoint")
    )
    kept = {
        key: content[key]
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    }
    loops = {
        key: value for key, value in content["loops"]["fit_loop"].items() if "val_loop" not in key
    }
    callbacks = {key: content["callbacks"][key] for key in ("TrainingMonitor", "StopOnDivergence")}
    return kept | callbacks | {"best": best["best_model_score"], "loops": loops}


def differences(a, b, where: str = "") -> list[str]:
    """Where two states are not equal to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{where}.{key} is in one only" for key in a.keys() ^ b.keys()]
        return missing + [
            d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}.{key}")
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            d
            for i, pair in enumerate(zip(a, b, strict=True))
            for d in differences(*pair, f"{where}.{i}")
        ]
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if equal else [f"{where}: {a}, {b}"[:200]]


def holes(logged: dict, whole: dict) -> list[str]:
    """Return values that only the whole run logged, and values of the resumed run that differ."""
    missing = [f"{key} is missing" for key in logged.keys() ^ whole.keys()]
    differing = [key for key in logged.keys() & whole.keys() if set(logged[key]) != set(whole[key])]
    return missing + [f"{key}: {logged[key]}, not {whole[key]}" for key in differing]


SETTINGS = {
    "plain": {},
    "validation at the epoch's edge": {"val_check_interval": 5},
    "validation after every batch": {"val_check_interval": 1},
    "accumulation": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
    "validation within an accumulation": {"accumulate_grad_batches": 3, "val_check_interval": 4},
    "a first validation before the others": {"schedule": (2, 6), "val_check_interval": 1},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, codec):
    """Make an uninterrupted run of each setting once: its folder, and its logged values."""
    made = {}

    def make(name: str):
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[name] = folder, fit(folder, codec, **SETTINGS[name])
        return made[name]

    return make


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_folder_that_was_moved_keeps_its_best(elsewhere, tmp_path, codec):
    """A run that resumes in another folder has its own best checkpoint."""
    old, new = tmp_path / "old", tmp_path / "new"
    fit(old, codec, max_steps=4)
    content = load_checkpoint(old / "last.ckpt")
    key = next(key for key in content["callbacks"] if key.startswith("BestCheckpoint"))
    best = content["callbacks"][key]
    # No loss reaches this value.
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], torch.tensor(-1.0))
    best["kth_value"] = best["best_model_score"] = torch.tensor(-1.0)
    save_checkpoint(content, old / "last.ckpt")
    if elsewhere:
        new.mkdir()
    else:
        old.rename(new)
    ckpt = (old if elsewhere else new) / "last.ckpt"
    before = (ckpt.parent / "best.ckpt").read_bytes()
    fit(new, codec, ckpt=str(ckpt), max_steps=7)
    assert ((new / "best.ckpt").read_bytes() == before) != elsewhere
    score = load_checkpoint(new / "last.ckpt")["callbacks"][key.replace(str(old), str(new))][
        "best_model_score"
    ]
    assert (score == -1) != elsewhere


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("plain", 4),
        ("validation within an accumulation", 3),
        ("a first validation before the others", 4),
        *(
            pytest.param(name, writes, marks=pytest.mark.long)
            for name, writes in [
                ("plain", 1),
                ("accumulation", 3),
                ("validation after every batch", 3),
                ("validation at the epoch's edge", 3),
            ]
        ),
    ],
)
def test_a_run_killed_again_and_again_goes_on_bit_for_bit(name, writes, whole, tmp_path, codec):
    """Kill each process after some writes of last.ckpt or best.ckpt; the next one resumes."""
    (folder, expected), logged, kills, ckpt = whole(name), {}, 0, None
    while True:
        io = KillingIO(writes)
        fit(tmp_path, codec, ckpt=ckpt, logged=logged, plugins=[io], **SETTINGS[name])
        ckpt = io.path
        if ckpt is None:
            break
        kills += 1
    assert kills >= STEPS // writes and holes(logged, expected) == []
    assert differences(state(tmp_path), state(folder)) == []


@pytest.mark.parametrize(
    ("where", "step", "number", "workers", "name"),
    [
        ("batch", 1, signal.SIGTERM, 0, "plain"),
        ("epoch", 5, signal.SIGINT, 0, "plain"),
        ("validation", 9, signal.SIGINT, 2, "plain"),
        ("batch", 1, signal.SIGUSR1, 0, "accumulation"),  # gradients of one batch of two are there
        ("validation", 1, signal.SIGTERM, 0, "validation within an accumulation"),
        ("samples", 6, signal.SIGINT, 0, "a first validation before the others"),
        *(
            pytest.param(*given, marks=pytest.mark.long)
            for given in [
                ("batch", 4, signal.SIGINT, 2, "plain"),  # the epoch's last
                ("batch", 5, signal.SIGTERM, 0, "plain"),  # a validation follows
                ("validation", 3, signal.SIGTERM, 0, "plain"),
                ("samples", 6, signal.SIGTERM, 0, "plain"),
                ("validation", 10, signal.SIGTERM, 0, "validation at the epoch's edge"),
                ("batch", 2, signal.SIGTERM, 0, "accumulation"),  # the epoch's last, alone
                ("validation", 2, signal.SIGTERM, 0, "a first validation before the others"),
            ]
        ),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    where, step, number, workers, name, whole, tmp_path, codec, monkeypatch
):
    if number == signal.SIGUSR1:
        for key, value in dict(
            JOB_ID=1, NTASKS=1, PROCID=0, LOCALID=0, NODEID=0, JOB_NAME="run"
        ).items():
            monkeypatch.setenv(f"SLURM_{key}", str(value))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    folder, expected = whole(name)
    sender = Sender(where, step, number)
    logged = fit(tmp_path, codec, sender=sender, num_workers=workers, every=1000, **SETTINGS[name])
    assert sender.due is None and [
        path.name for path in tmp_path.glob("*.ckpt") if path.stem != "best"
    ] == ["last.ckpt"]
    assert not list(tmp_path.glob("hpc*"))  # of Lightning's handler, in the middle of a step
    assert [
        signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    ] == handlers
    fit(
        tmp_path,
        codec,
        tmp_path / "last.ckpt",
        logged=logged,
        num_workers=workers,
        every=1000,
        **SETTINGS[name],
    )
    assert holes(logged, expected) == []
    assert differences(state(tmp_path), state(folder)) == []


def test_a_run_is_made_longer(whole, tmp_path, codec):
    """A run resumes from the last checkpoint of a finished run."""
    for steps in (5, 6):  # an epoch's edge; a validation
        logged = fit(tmp_path / str(steps), codec, max_steps=steps)
        fit(tmp_path / str(steps), codec, tmp_path / f"{steps}/last.ckpt", logged=logged)
        assert holes(logged, whole("plain")[1]) == []
        assert differences(state(tmp_path / str(steps)), state(whole("plain")[0])) == []


def test_accumulated_batches_are_one_large_batch(tmp_path, codec):
    """Equal noise and noise levels for equal samples give equal losses and weights."""
    halves = fit(
        tmp_path / "2 x 4", codec, max_steps=2, accumulate_grad_batches=2, val_check_interval=100
    )
    whole = fit(tmp_path / "1 x 8", codec, max_steps=2, batch_size=8, val_check_interval=100)
    assert halves["train_loss", 1] != whole["train_loss", 1]  # that of the second half
    first, second = (
        load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("2 x 4", "1 x 8")
    )
    assert all(torch.allclose(value, second[key], atol=NETWORK) for key, value in first.items())


def test_requeueing(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue().startswith("could not requeue the job") and requeue().endswith("ckpt=auto")
    script = tmp_path / "scontrol"
    for code, says in ((0, "requeued job 1234"), (1, "could not requeue the job (no): submit")):
        script.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\necho no >&2\nexit {code}\n")
        script.chmod(0o755)
        assert requeue().startswith(says) and (tmp_path / "asked").read_text() == "requeue 1234\n"


def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(
    tmp_path, codec, file_size_limit
):
    class Fill(pl.Callback):
        def on_train_batch_start(self, trainer, *args) -> None:
            if trainer.global_step == 2:
                stack.enter_context(file_size_limit((tmp_path / "last.ckpt").stat().st_size // 2))

    with (
        ExitStack() as stack,
        pytest.raises(InputError, match=r"cannot write .*last\.ckpt: File too large; .*free space"),
    ):
        fit(tmp_path, codec, sender=Fill())
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2


def test_a_checkpoint_holds_weights_average_and_optimiser_only(tmp_path, codec, monkeypatch):
    """That of the small model."""
    unet = OmegaConf.merge(
        *(OmegaConf.load(ROOT / f"exp/model/{name}.yaml").model for name in ("latent", "small"))
    )
    unet = {key: value for key, value in OmegaConf.to_container(unet).items() if key != "_target_"}
    monkeypatch.setitem(globals(), "TINY_UNET", {**unet, "num_labels": 0})  # derived from `labels`
    fit(tmp_path, codec, max_steps=1)
    content = load_checkpoint(tmp_path / "last.ckpt")
    weights = sum(v.numel() for k, v in content["state_dict"].items() if k.startswith("denoiser."))
    assert weights > 3_000_000
    assert (
        tmp_path / "last.ckpt"
    ).stat().st_size < 4 * 4 * weights * 1.01  # weights, average, AdamW's two moments
