"""Callbacks: samples on TensorBoard, and a checkpoint that a run goes on from as if it had never stopped."""

import os
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY_UNET
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Dataset

from audio_diffusion_pytorch.callbacks import LastCheckpoint, SampleLogger
from audio_diffusion_pytorch.checkpoint import load_checkpoint
from audio_diffusion_pytorch.datamodule import Datamodule
from audio_diffusion_pytorch.denoiser import KDistribution
from audio_diffusion_pytorch.module import InstrumentModule
from audio_diffusion_pytorch.trainer import make_trainer
from audio_diffusion_pytorch.unet import UNet1d


class Noise(Dataset):
    """Crops that depend on the epoch, as those of `InstrumentDataset` do."""

    epoch = 0

    def __len__(self) -> int:
        return 20

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def split(self, share: float, seed: int):
        return self, Noise()

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng([self.epoch, index]).standard_normal((1, 1280), np.float32)) / 4


class Recorder(pl.Callback):
    """Keeps the losses by step, and presses Ctrl-C once where it is told to."""

    def __init__(self, interrupt: tuple[str, int] | None = None):
        self.losses: dict[int, float] = {}
        self.interrupt = interrupt

    def _visit(self, trainer: pl.Trainer, where: str) -> None:
        if self.interrupt == (where, trainer.global_step):
            self.interrupt = None
            os.kill(os.getpid(), signal.SIGTERM if where == "terminate" else signal.SIGINT)

    def on_train_batch_start(self, trainer, *args) -> None:
        self._visit(trainer, "start")
        self._visit(trainer, "terminate")

    def on_train_batch_end(self, trainer, module, outputs, *args) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])

    def on_validation_batch_start(self, trainer, *args) -> None:
        self._visit(trainer, "validation")

    def on_train_epoch_end(self, trainer, module) -> None:
        self._visit(trainer, "epoch")


def fit(folder, codec, steps, interrupt=None, ckpt=None, num_workers=0, precision="32-true"):
    torch.manual_seed(0)
    module = InstrumentModule(UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), length=1280, total_steps=100)
    module.mean.fill_(-6)
    module.level.fill_(0.1)
    recorder = Recorder(interrupt)
    trainer = make_trainer(
        gpus=0,
        max_steps=steps,
        callbacks=[LastCheckpoint(str(folder), 1000), ModelCheckpoint(folder, "best", monitor="valid_loss"), recorder],
        precision=precision,
        logger=False,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = Datamodule(Noise(), batch_size=4, num_workers=num_workers, max_valid_items=8)
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except SystemExit:
        assert interrupt is not None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored
    return recorder.losses, module


@pytest.fixture(scope="module")
def whole(tmp_path_factory, codec):
    return fit(tmp_path_factory.mktemp("whole"), codec, 13)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("where", "step", "workers"),
    [
        *(("start", 1, 0), ("start", 4, 0), ("start", 5, 0), ("start", 6, 2), ("start", 9, 0), ("epoch", 5, 0)),
        *(("terminate", 2, 0), ("validation", 3, 0), ("validation", 6, 0), ("validation", 9, 2)),
        *((None, 5, 0), (None, 7, 0), ("best", 4, 0)),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(where, step, workers, whole, tmp_path, codec):
    """Ctrl-C anywhere, or (None) an end that was put off: five steps an epoch, a validation after every third."""
    steps = step if where in (None, "best") else 1000
    first, _ = fit(tmp_path, codec, steps, (where, step), num_workers=workers)
    last = tmp_path / ("best.ckpt" if where == "best" else "last.ckpt")
    stopped = load_checkpoint(last)["global_step"]
    if where == "best":
        assert stopped == 3
        del first[4]
    assert stopped == max(first) == (step if where in ("validation", None) else 3 if where == "best" else step + 1)

    second, module = fit(tmp_path, codec, 13, ckpt=last, num_workers=workers)
    assert list(second) == list(range(stopped + 1, 14))
    assert {**first, **second} == whole[0]
    state = module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole[1].state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_signal_handlers_are_put_back(tmp_path, codec):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    fit(tmp_path, codec, 1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.filterwarnings("ignore")
def test_samples_are_logged_from_the_averaged_weights(tmp_path, codec):
    module = InstrumentModule(UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), length=1300)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = SampleLogger(num_items=2, sampling_steps=[2, 3], length=1300, every_n_validations=2)
    trainer = pl.Trainer(logger=logger, accelerator="cpu", callbacks=[callback], enable_progress_bar=False)
    module.trainer = trainer
    for _ in range(3):  # the first and the third are not its turn
        callback.on_validation_epoch_end(trainer, module)
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path), size_guidance={"audio": 0, "images": 0}).Reload()
    expected = [f"samples/{steps:03d}_steps/{index}" for steps in (2, 3) for index in (0, 1)]
    assert sorted(events.Tags()["audio"]) == sorted(events.Tags()["images"]) == expected
    clips = [clip for tag in expected for clip in events.Audio(tag)]
    assert [(clip.sample_rate, clip.length_frames) for clip in clips] == [(24000, 1300)] * 4
    assert all(image.height == 160 for image in events.Images(expected[0]))
