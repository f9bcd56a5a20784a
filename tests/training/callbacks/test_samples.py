"""Samples on TensorBoard."""

import pytest
import pytorch_lightning as pl
from conftest import TINY_UNET
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.callbacks.samples import SampleLogger
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule


@pytest.mark.parametrize(
    ("interval", "steps"),
    [(1, [3]), (20, [3, 5]), (40, [3, 5, 10]), (1000, [3, 5, 10, 25, 50, 100]), (1.0, None)],
)
def test_a_run_that_validates_often_draws_quick_samples(interval, steps):
    trainer = pl.Trainer(
        logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False
    )
    trainer.val_check_interval = interval
    assert list(SampleLogger()._steps(trainer)) == (steps or [3, 5, 10, 25, 50, 100])
    assert list(SampleLogger(sampling_steps=[50])._steps(trainer)) == [50]  # as the user says


@pytest.mark.filterwarnings("ignore")
def test_samples_are_logged_from_the_averaged_weights(tmp_path, codec):
    module = InstrumentModule(UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), length=1300)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = SampleLogger(num_items=2, sampling_steps=[2, 3], length=1300, every_n_validations=2)
    trainer = pl.Trainer(
        logger=logger, accelerator="cpu", callbacks=[callback], enable_progress_bar=False
    )
    module.trainer = trainer
    for _ in range(3):  # the second is not its turn
        callback.on_validation_epoch_end(trainer, module)
    again = SampleLogger()
    again.load_state_dict(callback.state_dict())
    assert again.validations == 3  # a resumed run keeps its turns
    logger.experiment.flush()
    events = EventAccumulator(str(tmp_path), size_guidance={"audio": 0, "images": 0}).Reload()
    expected = [f"samples/{steps:03d}_steps/{index}" for steps in (2, 3) for index in (0, 1)]
    assert sorted(events.Tags()["audio"]) == sorted(events.Tags()["images"]) == expected
    clips = [clip for tag in expected for clip in events.Audio(tag)]
    assert [(clip.sample_rate, clip.length_frames) for clip in clips] == [(24000, 1300)] * 8
    assert all(image.height == 160 for image in events.Images(expected[0]))
