"""Samples on TensorBoard: audio and mel pictures at several step counts; the checkpoint to resume from."""

import signal
import threading
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from audio_diffusion_pytorch.preview import log_sound, shows_sound
from audio_diffusion_pytorch.sampling import SOLVERS, karras_schedule


class SampleLogger(pl.Callback):
    """After validation, draws samples from noise with the averaged weights.

    Args:
        num_items: samples for each step count.
        sampling_steps: points of the schedule.
        length: samples of audio.
        every_n_validations: 1 is after each.
        solver: name in `sampling.SOLVERS`.
    """

    def __init__(
        self,
        num_items: int = 1,
        sampling_steps: Sequence[int] = (3, 5, 10, 25, 50, 100),
        length: int = 409600,
        every_n_validations: int = 1,
        solver: str = "heun",
    ):
        self.num_items, self.sampling_steps, self.length = num_items, sampling_steps, length
        self.every_n_validations, self.solve, self.validations = every_n_validations, SOLVERS[solver], 0

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.validations += 1
        loggers = [logger for logger in trainer.loggers if shows_sound(logger)]
        if not loggers or trainer.sanity_checking or self.validations % self.every_n_validations:
            return
        instrument, spec = module.instrument().eval(), module.spec
        factor = instrument.denoiser.net.downsample_factor
        frames = -(-module.codec.num_frames(self.length) // factor) * factor
        generator = torch.Generator().manual_seed(0)  # the same noise each time, so that progress can be heard
        noise = torch.randn(self.num_items, len(module.mean), frames, generator=generator).to(module.device)
        for steps in self.sampling_steps:
            sigmas = karras_schedule(spec.sigma_min, spec.sigma_max, spec.rho, steps)
            latents = instrument.denormalise(self.solve(instrument.denoiser, noise * spec.sigma_max, sigmas))
            for index, wav in enumerate(module.codec.decode(latents, self.length)):
                tag = f"samples/{steps:03d}_steps/{index}"
                log_sound(loggers, tag, wav, module.codec.sample_rate, trainer.global_step)


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: every so many steps, at the end of training, and when Ctrl-C or SIGTERM interrupts it.

    The first signal lets the running step end, so that what is saved is the state between two steps; a second one
    does not wait.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int):
        super().__init__(
            dirpath,
            "last",
            every_n_train_steps=every_n_train_steps,
            save_top_k=1,
            enable_version_counter=False,
        )
        self._interrupted = self._saved = False
        self._handlers = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_start(trainer, module)
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_exception(self, trainer: pl.Trainer, *args) -> None:
        self._restore()
        # Lightning ends the active loop's workers only; those of a paused training loop would hold up the exit for
        # seconds each.
        trainer.training = True

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _on_signal(self, number: int, frame) -> None:
        self._interrupted = True
        self._restore()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args) -> None:
        super().on_train_batch_end(trainer, module, *args)
        loop = trainer.fit_loop
        last_epoch = loop.max_epochs not in (-1, None) and trainer.current_epoch + 1 >= loop.max_epochs
        if trainer.global_step == trainer.max_steps or (last_epoch and loop.epoch_loop.batch_progress.is_last_batch):
            self._save_now(trainer)  # later hooks count the epoch as done, even if max_steps cut it short
        if self._interrupted and not loop.epoch_loop._should_accumulate():
            self._save_now(trainer)
            self._saved = True

    def on_train_batch_start(self, trainer: pl.Trainer, *args) -> None:
        if self._saved:  # only now, when this step's values have been logged
            raise KeyboardInterrupt

    def on_validation_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args) -> None:
        if self._interrupted:
            self._save_now(trainer)
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_now(trainer)
        self._restore()

    def _save_now(self, trainer: pl.Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
