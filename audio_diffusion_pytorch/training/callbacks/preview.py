"""Log transfers of one recording from the model in training to another instrument."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import load_instrument, other_shipped
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.training.loggers import log_sound, shows_sound


class BridgePreview(pl.Callback):
    """Transfer one recording to another instrument at an interval of validations.

    The first transfer follows the first validation.

    Args:
        other: model of the other instrument, in any form that `load_instrument` accepts. None: a
            shipped model on the codec of this run; without such a model there is no preview.
        clip: recording of the instrument in training. None: a shipped clip, else the first
            validation recording.
        seconds: length of the excerpt in seconds.
        every_n_validations: interval; 1: after each validation; 5: after the first, the sixth ...
        sigma: noise level of the hand-off, see `Bridge`.
        num_steps: solver steps, see `Bridge`.

    Attributes:
        model: the target model in use; None: no preview.

    Raises:
        InputError: `other` or `clip` is unreadable, or does not fit the run when training starts.
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
        self.clip = clip
        self.seconds = seconds
        self.every_n_validations = every_n_validations
        self.sigma = sigma
        self.num_steps = num_steps
        self.validations = 0
        self.other: InstrumentModel | None = None if other is None else load_instrument(other)
        self.model: InstrumentModel | None = None
        if clip is not None:
            audio.info(clip)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of validations for checkpoints."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of validations."""
        self.validations = state_dict["validations"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Load the clip and check that both models fit, before hours of training."""
        if not trainer.is_global_zero or not any(map(shows_sound, trainer.loggers)):
            return
        if Labels(module.labels).instruments:
            return  # a model of several instruments needs a choice of one
        try:
            self._prepare(trainer, module)
        except InputError as error:
            if self.other is not None or self.clip is not None:
                raise
            warnings.warn(f"no bridge preview in this run: {error}", stacklevel=2)
            self.model = None

    def _prepare(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        name = module.spec.name
        self.model = self.other or other_shipped(name, module.spec.codec)
        clip = self.clip or _shipped_clip(name) or _first_recording(trainer.datamodule.valid_set)
        if clip is None or self.model is None:
            self.model = None
            return
        header = audio.info(clip)
        frames = min(header.frames, round(self.seconds * header.sample_rate))
        self.wav, self.sample_rate = audio.read_mono(clip, 0, frames)
        self._bridge(module, self.model)  # raises an error if the two models do not fit

    def _bridge(self, module: pl.LightningModule, target: InstrumentModel) -> Bridge:
        return Bridge(
            module.instrument(),
            target,
            self.sigma,
            self.num_steps,
            codec=module.codec,
            device=module.device,
            batch_size=1,
        )

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Transfer and log the recording if the preview is due."""
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.model is None or (self.validations - 1) % self.every_n_validations:
            return
        target = self.model.spec.name
        with tqdm(total=1, desc=f"preview on the {target}", unit="clip", leave=False) as bar:
            output = self._bridge(module, self.model)(self.wav, self.sample_rate)
            bar.update()
        tag = f"preview/{module.spec.name}_to_{target}"
        for name, wav in (("input", self.wav), ("output", output)):
            log_sound(trainer.loggers, f"{tag}/{name}", wav, self.sample_rate, trainer.global_step)


def _shipped_clip(instrument: str) -> Path | None:
    return next(iter(sorted((ASSETS / "clips").glob(f"*_{instrument}.flac"))), None)


def _first_recording(valid_set: Any) -> str | None:
    """Return the first file of a validation set or its `Subset`; None for a set without files."""
    dataset = getattr(valid_set, "dataset", valid_set)
    return next(iter(getattr(dataset, "wavs", ())), None)
