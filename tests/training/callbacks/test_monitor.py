"""Figures and progress of a run, and its end by divergence or signals."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY_SMALL, TINY_UNET
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_checkpoints import Noise

from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, KDistribution
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.callbacks.checkpoints import LastCheckpoint
from audio_diffusion_pytorch.training.callbacks.divergence import StopOnDivergence
from audio_diffusion_pytorch.training.callbacks.monitor import TrainingMonitor
from audio_diffusion_pytorch.training.callbacks.progress_bar import Parts, ProgressBar
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.trainer import make_trainer


class Log(pl.loggers.logger.DummyLogger):
    """Store logged values by step."""

    def __init__(self):
        super().__init__()
        self.values: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics, step=None) -> None:
        self.values.setdefault(step, {}).update(metrics)


class Bars(pl.Callback):
    """The progress bar as it stands after every batch, and at the start."""

    def __init__(self):
        self.seen: list[tuple[int, int, int, str]] = []

    def on_train_batch_start(self, trainer, *args) -> None:
        bar = trainer.progress_bar_callback.train_progress_bar
        self.seen.append((bar.initial, bar.n, bar.total, bar.desc))


@pytest.mark.filterwarnings("ignore")
def test_one_bar_for_the_whole_run_also_after_a_resume(codec, tmp_path):
    """Four batches an epoch, two to a step."""
    bars, data = Bars(), Datamodule(Noise(), batch_size=5)
    bar = {"enable_progress_bar": True, "accumulate_grad_batches": 2, "data": data}
    fit(codec, ProgressBar(), bars, steps=4, **bar)
    assert bars.seen == [(0, batch // 2, 4, f"Epoch {batch // 4}: ") for batch in range(8)]
    bars.seen.clear()
    fit(codec, ProgressBar(), bars, steps=-1, max_epochs=1, **bar)
    assert [total for _, _, total, _ in bars.seen] == [2] * 4
    saving = bar | {"enable_checkpointing": True}
    # The run ends in the middle of an epoch.
    fit(codec, ProgressBar(), LastCheckpoint(str(tmp_path), 100), steps=3, **saving)
    bars.seen.clear()
    fit(codec, ProgressBar(), bars, steps=6, ckpt=str(tmp_path / "last.ckpt"), **bar)
    assert bars.seen == [(3, batch // 2, 6, f"Epoch {batch // 4}: ") for batch in range(6, 12)]


@pytest.mark.filterwarnings("ignore")
def test_the_bar_moves_with_the_first_step(codec, capfd):
    """The bar shows loss, speed, wait and steps, even if it is drawn rarely."""
    bars = Bars()
    monitor = TrainingMonitor(every_n_steps=100)
    fit(codec, monitor, ProgressBar(refresh_rate=10), bars, steps=25, enable_progress_bar=True)
    assert [n for _, n, _, _ in bars.seen] == [0] + [1] * 9 + [10] * 10 + [20] * 5
    drawn = capfd.readouterr().out.split("\r")
    first = next(line for line in drawn if " 1/25 [" in line)
    assert all(f"{name}=" in first for name in ("train_loss", "samples/s", "wait")) and "<" in first


@pytest.mark.filterwarnings("ignore")
def test_the_bar_shows_the_step_of_a_validation(codec):
    class Seen(pl.Callback):
        def on_validation_end(self, trainer, *args) -> None:
            seen.append(trainer.progress_bar_callback.train_progress_bar.n)

    seen: list[int] = []
    settings = {"limit_val_batches": 1, "val_check_interval": 3, "check_val_every_n_epoch": None}
    fit(codec, ProgressBar(refresh_rate=100), Seen(), steps=7, enable_progress_bar=True, **settings)
    assert seen == [3, 6]


class Stop(pl.Callback):
    def on_train_batch_end(self, *args) -> None:
        raise Interrupted(2, "stopped")


@pytest.mark.filterwarnings("ignore")
def test_the_bar_of_a_run_that_ends_early_is_closed(codec):
    """One that is open is drawn once more below the last message, when Python ends."""
    progress = ProgressBar()
    with pytest.raises(Interrupted):
        fit(codec, progress, Stop(), enable_progress_bar=True)
    # `close` disables the bar.
    assert progress.train_progress_bar.n == 1 and progress.train_progress_bar.disable


@pytest.mark.filterwarnings("ignore")
def test_a_run_lists_what_has_parameters(codec, caplog):
    caplog.set_level("INFO", "audio_diffusion_pytorch")
    module, _, _ = fit(codec, Parts(max_depth=2), steps=1, enable_model_summary=True)
    (shown,) = [
        record.message for record in caplog.records if record.name.endswith(".progress_bar")
    ]
    *lines, last = shown.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["denoiser", "Denoiser"],
        ["denoiser.net", "UNet1d"],
        ["ema", "EMA"],
        ["ema.model", "Denoiser"],
    ]
    thousands = round(sum(p.numel() for p in module.denoiser.parameters()) / 1000)
    assert last == f"{thousands} K parameters are trained, of {2 * thousands} K"


class Located(Noise):
    def locate(self, index: int) -> str:
        return f"file {index} in epoch {self.epoch}"


def fit(codec, *callbacks, steps=4, data=None, ckpt=None, **settings):
    torch.manual_seed(0)
    module = InstrumentModule(UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), length=1280)
    module.mean.fill_(-6)
    log = Log()
    quiet = dict(
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    settings = {"enable_progress_bar": False, "log_every_n_steps": 1, **quiet, **settings}
    trainer = make_trainer(0, max_steps=steps, callbacks=list(callbacks), logger=log, **settings)
    trainer.fit(module, data or Datamodule(Noise(), batch_size=4), ckpt_path=ckpt)
    return module, log.values, trainer


def break_loss(monkeypatch, step: int, item: int, value: float) -> None:
    """Multiply the loss of one item in one step by `value`."""
    plain, calls = Denoiser.loss, []

    def loss(self, *args, **settings):
        losses = plain(self, *args, **settings)
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == step:
                losses = losses * torch.ones(len(losses)).index_fill(0, torch.tensor(item), value)
        return losses

    monkeypatch.setattr(Denoiser, "loss", loss)


@pytest.mark.filterwarnings("ignore")
def test_what_is_logged_beside_the_loss(codec):
    seen = []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            seen.append((outputs["sigma"], outputs["losses"]))

        def on_before_zero_grad(self, trainer, module, optimizer):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            seen.append(torch.nn.utils.get_total_norm(gradients)) if gradients else None

    monitor = TrainingMonitor(every_n_steps=2)
    module, values, trainer = fit(
        codec, monitor, Record(), accumulate_grad_batches=2, gradient_clip_val=1e-3
    )
    assert {step for step, logged in values.items() if "gradient_norm" in logged} == {2, 4}
    batches = [entry for entry in seen if isinstance(entry, tuple)][:4]  # two steps of two batches
    sigmas, losses = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for low, high in ((0.01, 0.03), (0.1, 0.3), (1, 3), (3, 10)):
        inside = (sigmas > low) & (sigmas <= high)
        logged = values[2].get(f"train_loss_by_sigma/{low}-{high}")
        assert logged == (pytest.approx(float(losses[inside].mean())) if inside.any() else None)
    assert values[2]["gradient_norm"] > 1e-2  # before it is clipped
    assert values[4]["ema_decay"] == module.ema.decay and values[4]["samples_per_s"] > 0
    assert 0 <= values[4]["data_wait"] < 1 and set(monitor.shown) == {"samples/s", "wait"}
    assert monitor.shown.items() <= ProgressBar().get_metrics(trainer, module).items()


@pytest.mark.filterwarnings("ignore")
def test_waiting_for_data_is_seen(codec):
    import time

    class Slow(Noise):
        def __getitem__(self, index):
            time.sleep(0.2)
            return super().__getitem__(index)

    _, values, _ = fit(
        codec, TrainingMonitor(every_n_steps=2), steps=2, data=Datamodule(Slow(), batch_size=4)
    )
    assert values[2]["data_wait"] > 0.5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_a_loss_that_diverges_ends_the_run_with_the_files_named(value, codec, monkeypatch):
    """Step 8, the third batch of the second epoch: not saved; the worst item comes first."""
    break_loss(monkeypatch, step=8, item=2, value=value)
    start, expected = InstrumentModule.training_step, []

    def step(self, batch, index):
        expected[:] = self.trainer.datamodule.training_items(index)
        return start(self, batch, index)

    monkeypatch.setattr(InstrumentModule, "training_step", step)
    monkeypatch.setattr("audio_diffusion_pytorch.training.callbacks.divergence._AVERAGED", 5)
    with pytest.raises(InputError) as error:
        fit(codec, StopOnDivergence(), steps=20, data=Datamodule(Located(), batch_size=4))
    message = str(error.value)
    assert "at step 8 (epoch 1, batch 2)" in message and "Lower model.lr" in message
    assert f"Recordings of the batch: file {expected[2]} in epoch 1 (loss " in message
    assert all(f"file {item} in epoch 1" in message for item in expected)


def test_a_recording_that_breaks_the_loss_is_found(command, recordings, tmp_path, monkeypatch):
    """With the real data set; and nothing diverged is in a checkpoint."""
    break_loss(monkeypatch, step=3, item=0, value=float("nan"))
    start, items = InstrumentModule.training_step, []

    def step(self, batch, index):
        items.append(batch[0].clone())
        return start(self, batch, index)

    monkeypatch.setattr(InstrumentModule, "training_step", step)
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=4",
    )
    settings = (*settings, "exp_tag=a", "ckpt_every_n_steps=1", "callbacks.monitor.every_n_steps=1")
    result = command("train.py", *settings, "datamodule.dataset.augment=null")
    error = result.error()
    assert "the loss is not a finite number at step 3 (epoch 0, batch 2)" in error
    name, seconds = (
        error.partition("Recordings of the batch: ")[2].split(" (loss nan)")[0].rsplit(" at ", 1)
    )
    assert (
        name.startswith(str(recordings / "flute_"))
        and 0 <= float(seconds.removesuffix(" s")) <= 0.6
    )
    import soundfile

    wav, _ = soundfile.read(name, dtype="float32")
    crop = items[2][0].numpy()
    start = round(float(seconds.removesuffix(" s")) * 24000)
    assert any(
        (wav[at : at + 9600] == crop).all() for at in range(max(0, start - 1300), start + 1300)
    )
    (file,) = (tmp_path / "logs/a/tensorboard").glob("events*")
    tags = EventAccumulator(str(file)).Reload().Tags()["scalars"]
    assert {"gradient_norm", "samples_per_s", "data_wait", "ema_decay"} <= set(tags)
    state = torch.load(tmp_path / "logs/a/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 2 and all(
        value.isfinite().all() for value in state["state_dict"].values()
    )
