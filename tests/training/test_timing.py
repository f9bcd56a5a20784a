"""The estimated duration of a training: the timed steps change nothing."""

import re

import pytest
import pytorch_lightning as pl
import torch
from conftest import RATE, TINY_SMALL, TINY_UNET, melody
from test_datamodule import few

from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training import timing
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.timing import duration, time_batch, time_report
from audio_diffusion_pytorch.training.trainer import make_trainer


def module_of(codec, labels=None) -> InstrumentModule:
    torch.manual_seed(0)
    unet = UNet1d(**TINY_UNET, num_labels=0 if labels is None else 2)
    return InstrumentModule(
        unet, codec, KDistribution(0.01, 10.0), length=4800, total_steps=100, labels=labels
    )


@pytest.mark.parametrize(
    ("labels", "cache"), [(None, False), (["plain", "varied"], False), (None, True)]
)
def test_timed_steps_change_nothing(labels, cache, codec, tmp_path):
    module = module_of(codec, labels)
    module.level.fill_(0.1)  # NaN would differ from itself
    before = {name: value.clone() for name, value in module.state_dict().items()}
    data = few(tmp_path, 3, labels=labels, cache=cache, cache_dir=tmp_path / "cache")
    trainer = make_trainer(
        0, max_steps=100, logger=False, accumulate_grad_batches=2, gradient_clip_val=1.0
    )
    first, *more = time_report(module, data, trainer, 100, 60.0 if cache else 0.0)
    assert re.match(
        r"time:       about [\d.]+ (s|min) for 100 steps, [\d.e-]+ s a step on the CPU", first
    )
    assert ["to encode the recordings" in line for line in more] == [True] * cache
    after = module.state_dict()
    assert (
        all(torch.equal(value, after[name]) for name, value in before.items())
        and not module.takes_latents
    )
    assert sorted(path.suffix for path in tmp_path.rglob("*")) == [".wav"] * 3


class Slow(pl.LightningModule):
    """Advance a simulated clock by 3 s for each sample, and by 5 s after the gradients."""

    def __init__(self, clock):
        super().__init__()
        self.weight, self.clock = torch.nn.Parameter(torch.ones(1)), clock

    def training_step(self, batch, index):
        self.clock[0] += 3.0 * len(batch)
        return (self.weight * batch).mean()

    def optimizer_step(self, *args, **settings):
        super().optimizer_step(*args, **settings)
        self.clock[0] += 5.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_the_time_of_a_batch_is_extrapolated_from_a_part(seconds, monkeypatch):
    """One second of work is timed; the whole batch would take minutes."""
    clock, sizes = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "_SECONDS", seconds)

    def make(count: int) -> torch.Tensor:
        sizes.append(count)
        return torch.ones(count)

    module = Slow(clock)
    whole = time_batch(module, make, 100, make_trainer(0, max_steps=1, logger=False))
    assert whole == pytest.approx(100 * 3 + 5) and max(sizes) == (2 if seconds == 1 else 13)
    assert module.weight.tolist() == [1.0]


@pytest.mark.long
def test_a_dry_run_estimates_the_duration(command, tmp_path):
    import soundfile

    (tmp_path / "own").mkdir()
    for index in range(3):
        soundfile.write(tmp_path / f"own/flute_{index}.wav", melody(2, seed=index), RATE)
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={tmp_path}/own",
        "dry_run=true",
        "total_steps=50",
    )
    result = command("train.py", *settings)
    assert result.code == 0 and not result.err, result.err
    assert "16 per epoch, batch 16, 128 crops of each file; 50 in total" in result.out
    assert re.search(r"^time:       about [\d.]+ (s|min) for 50 steps", result.out, re.MULTILINE)
    assert not list((tmp_path / "logs").rglob("*"))
    assert (
        "time:       unlimited, "
        in command("train.py", *settings[:-1], "total_steps=null", "trainer.max_steps=-1").out
    )
    assert "torch.compile takes minutes" in command("train.py", *settings, "compile=true").out


def test_durations():
    assert [duration(seconds) for seconds in (1, 90, 7200, 86400 * 2)] == [
        "1.0 s",
        "1.5 min",
        "2.0 h",
        "2.0 days",
    ]
