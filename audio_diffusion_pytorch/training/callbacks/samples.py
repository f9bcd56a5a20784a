"""Log audio samples of the model in training, at several step counts."""

from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from audio_diffusion_pytorch.diffusion.sampling import SOLVERS, karras_schedule
from audio_diffusion_pytorch.models.instrument import (
    InstrumentModel,
    select_condition,
    select_instrument,
)
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.training.loggers import log_sound, shows_sound

_STEPS = (3, 5, 10, 25, 50, 100)


class SampleLogger(pl.Callback):
    """Sample from noise with the averaged weights at an interval of validations.

    The first samples follow the first validation.

    Args:
        num_items: samples for each step count.
        sampling_steps: points of the noise schedule. None: 3, 5, 10, 25, 50 and 100; a run with a
            short validation interval uses the step counts up to a quarter of the batches between
            two validations.
        length: length of a sample, in audio samples.
        every_n_validations: interval; 1: after each validation; 5: after the first, the sixth ...
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
        self.num_items = num_items
        self.sampling_steps = sampling_steps
        self.length = length
        self.every_n_validations = every_n_validations
        self.solve = SOLVERS.find(solver)
        self.validations = 0

    def state_dict(self) -> dict:
        """Return the number of validations for checkpoints."""
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the number of validations."""
        self.validations = state_dict["validations"]

    def _steps(self, trainer: pl.Trainer) -> Sequence[int]:
        if self.sampling_steps is not None:
            return self.sampling_steps
        interval = trainer.val_check_interval
        if not isinstance(interval, int):
            return _STEPS
        return [steps for steps in _STEPS if 4 * steps <= interval] or _STEPS[:1]

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Draw and log samples if they are due."""
        self.validations += 1
        loggers = [logger for logger in trainer.loggers if shows_sound(logger)]
        due = (self.validations - 1) % self.every_n_validations == 0
        if not loggers or trainer.sanity_checking or not due:
            return
        spec = module.spec
        instrument = _first_instrument(module.instrument().eval())
        factor = instrument.denoiser.net.downsample_factor
        frames = -(-module.codec.num_frames(self.length) // factor) * factor
        generator = torch.Generator().manual_seed(0)  # fixed noise makes validations comparable
        shape = (self.num_items, module.mean.shape[-1], frames)
        noise = torch.randn(shape, generator=generator).to(module.device)
        for steps in tqdm(self._steps(trainer), desc="samples", unit="schedule", leave=False):
            sigmas = karras_schedule(spec.sigma_min, spec.sigma_max, spec.rho, steps)
            z = self.solve(instrument.denoiser, noise * spec.sigma_max, sigmas)
            latents = instrument.denormalise(z)
            for index, wav in enumerate(module.codec.decode(latents, self.length)):
                tag = f"samples/{steps:03d}_steps/{index}"
                log_sound(loggers, tag, wav, module.codec.sample_rate, trainer.global_step)


def _first_instrument(model: InstrumentModel) -> InstrumentModel:
    """Select the first of several instruments, and the condition "plain"."""
    names = Labels(model.spec.labels).instruments
    return select_condition(select_instrument(model, names[0]) if names else model, "plain")
