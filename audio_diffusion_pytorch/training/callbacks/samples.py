"""Samples on TensorBoard: audio and mel pictures at several step counts."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from audio_diffusion_pytorch.diffusion.sampling import SOLVERS, karras_schedule
from audio_diffusion_pytorch.models.instrument import select_condition, select_instrument
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.training.loggers import log_sound, shows_sound

_STEPS = (3, 5, 10, 25, 50, 100)


class SampleLogger(pl.Callback):
    """After the first validation and others, draws samples from noise with the averaged weights.

    Args:
        num_items: samples for each step count.
        sampling_steps: points of the schedule. None: 3, 5, 10, 25, 50 and 100, of which a run that validates often
            draws the quick ones only: those of up to a quarter of the batches between two validations.
        length: samples of audio.
        every_n_validations: 1 is after each; 5 is after the first, the sixth ...
        solver: name in `sampling.SOLVERS`.
    """

    def __init__(
        self,
        num_items: int = 1,
        sampling_steps: Sequence[int] | None = None,
        length: int = 409600,
        every_n_validations: int = 1,
        solver: str = "heun",
    ):
        self.num_items, self.sampling_steps, self.length = num_items, sampling_steps, length
        self.every_n_validations, self.solve, self.validations = (
            every_n_validations,
            SOLVERS.find(solver),
            0,
        )

    def state_dict(self) -> dict:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict) -> None:
        self.validations = state_dict["validations"]

    def _steps(self, trainer: pl.Trainer) -> Sequence[int]:
        interval = trainer.val_check_interval
        if self.sampling_steps is not None:
            return self.sampling_steps
        return [
            steps for steps in _STEPS if not isinstance(interval, int) or 4 * steps <= interval
        ] or _STEPS[:1]

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.validations += 1
        loggers = [logger for logger in trainer.loggers if shows_sound(logger)]
        if (
            not loggers
            or trainer.sanity_checking
            or (self.validations - 1) % self.every_n_validations
        ):
            return
        instrument, spec = module.instrument().eval(), module.spec
        several = Labels(spec.labels).instruments
        instrument = select_condition(
            select_instrument(instrument, several[0]) if several else instrument, "plain"
        )
        factor = instrument.denoiser.net.downsample_factor
        frames = -(-module.codec.num_frames(self.length) // factor) * factor
        generator = torch.Generator().manual_seed(
            0
        )  # the same noise each time, so that progress can be heard
        noise = torch.randn(self.num_items, module.mean.shape[-1], frames, generator=generator).to(
            module.device
        )
        for steps in tqdm(self._steps(trainer), desc="samples", unit="schedule", leave=False):
            sigmas = karras_schedule(spec.sigma_min, spec.sigma_max, spec.rho, steps)
            latents = instrument.denormalise(
                self.solve(instrument.denoiser, noise * spec.sigma_max, sigmas)
            )
            for index, wav in enumerate(module.codec.decode(latents, self.length)):
                tag = f"samples/{steps:03d}_steps/{index}"
                log_sound(loggers, tag, wav, module.codec.sample_rate, trainer.global_step)
