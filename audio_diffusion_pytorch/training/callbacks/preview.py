"""Sound in a run's logs, and now and then a recording that the model in training sends to another instrument."""

import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import (
    load_instrument,
    other_shipped,
)
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.training.loggers import log_sound, shows_sound


class BridgePreview(pl.Callback):
    """After the first validation and some others, plays one recording of the trained instrument on another.

    Args:
        other: the other instrument's model, as `load_instrument` takes it. None: one that ships; where none is trained
            on this run's codec, there is no preview.
        clip: recording of the instrument in training. None: one that ships, else the first for validation.
        seconds: of the clip that are played.
        every_n_validations: 1 is after each; 5 is after the first, the sixth ...
        sigma, num_steps: see `Bridge`.

    Raises:
        InputError: `other` or `clip` cannot be read, or, when training starts, does not fit.
    """

    def __init__(
        self,
        other: str | None = None,
        clip: str | None = None,
        seconds: float = 10.0,
        every_n_validations: int = 5,
        sigma: float | None = None,
        num_steps: int = 32,
    ):
        self.clip, self.seconds, self.every_n_validations = clip, seconds, every_n_validations
        self.sigma, self.num_steps, self.validations = sigma, num_steps, 0
        self.other: InstrumentModel | None = None if other is None else load_instrument(other)
        self.model: InstrumentModel | None = (
            None  # the one that is used: `other`, one that ships, or none
        )
        if clip is not None:
            audio.info(clip)

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if (
            Labels(module.labels).instruments
            or not trainer.is_global_zero
            or not any(map(shows_sound, trainer.loggers))
        ):
            return  # (a model of several instruments would have to be told which it is)
        try:
            self._prepare(trainer, module)
        except InputError as error:
            if self.other is not None or self.clip is not None:
                raise
            warnings.warn(f"no bridge preview in this run: {error}", stacklevel=2)
            self.model = None

    def _prepare(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        name, codec = module.spec.name, module.spec.codec
        self.model = self.other or other_shipped(name, codec)
        clip = self.clip or next(iter(sorted((ASSETS / "clips").glob(f"*_{name}.flac"))), None)
        if clip is None:
            valid = trainer.datamodule.valid_set
            clip = next(
                iter(getattr(getattr(valid, "dataset", valid), "wavs", ())), None
            )  # or of a `Subset`
        if clip is None or self.model is None:
            self.model = None
            return
        header = audio.info(clip)
        frames = min(header.frames, round(self.seconds * header.sample_rate))
        self.wav, self.sample_rate = audio.read_mono(clip, 0, frames)
        self._bridge(module)  # fails here, not hours later, where the two do not fit

    def _bridge(self, module: pl.LightningModule) -> Bridge:
        settings = {"codec": module.codec, "device": module.device, "batch_size": 1}
        return Bridge(module.instrument(), self.model, self.sigma, self.num_steps, **settings)

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.model is None or (self.validations - 1) % self.every_n_validations:
            return
        tag = f"preview/{module.spec.name}_to_{self.model.spec.name}"
        with tqdm(
            total=1, desc=f"preview on the {self.model.spec.name}", unit="clip", leave=False
        ) as bar:
            played = self._bridge(module)(self.wav, self.sample_rate)
            bar.update()
        for name, wav in ((f"{tag}/input", self.wav), (f"{tag}/output", played)):
            log_sound(trainer.loggers, name, wav, self.sample_rate, trainer.global_step)
