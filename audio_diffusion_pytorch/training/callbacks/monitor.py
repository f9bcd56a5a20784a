"""Log loss by noise level, speed and gradient norm during training."""

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch import Tensor

from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.lightning_internals import FETCH_ACTION

# Edges of the bands of noise levels; equal in every run, so that runs compare.
BANDS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


class WaitClock(Profiler):
    """Measure the seconds that training waits for its batches.

    Attributes:
        waited: seconds of waiting since the start of the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Start the clock if the action fetches a batch."""
        if action_name == FETCH_ACTION:
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Stop the clock if the action fetches a batch."""
        if action_name == FETCH_ACTION:
            self.waited += time.perf_counter() - self._since


class TrainingMonitor(pl.Callback):
    """Log figures that the training step does not compute, at an interval of optimiser steps.

    - `train_loss_by_sigma/LOW-HIGH`: mean loss of this process's samples since the last log, by
      noise level.
    - `gradient_norm` before clipping, and `ema_decay`.
    - `samples_per_s` of all processes, and `data_wait`, the share of the time spent waiting for
      batches; both exclude validation.

    Args:
        every_n_steps: interval in optimiser steps.

    Attributes:
        shown: figures for the progress bar, formatted.
    """

    def __init__(self, every_n_steps: int = 20):
        self.every_n_steps = every_n_steps
        self.shown: dict[str, str] = {}
        self._interval_shown = False
        self._bands: Tensor | None = None  # [2, bands]: sums of losses, numbers of samples
        self._logged = 0
        self._samples = 0
        self._gradients = math.nan
        self._mark = 0.0
        self._waited = 0.0
        self._paused = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start an interval; a resumed run keeps the sums of the interrupted interval."""
        self._edges = torch.tensor(BANDS[1:-1], device=module.device)
        resumed = self._bands
        self._start_interval(trainer)
        if resumed is not None:
            self._bands = resumed.to(module.device, copy=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the interval in progress for checkpoints."""
        return {"bands": self._bands, "logged": self._logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the sums of the interval in progress."""
        self._bands = state_dict["bands"]
        self._logged = state_dict["logged"]

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Pause the measurement of speed."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Resume the measurement of speed."""
        self._mark += time.perf_counter() - self._paused

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Measure the gradient norm of a step that is logged."""
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            gradients = [
                parameter.grad
                for group in optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            self._gradients = float(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Any,
        index: int,
    ) -> None:
        """Accumulate the losses by noise level; log at the end of an interval."""
        self._samples += len(batch if isinstance(batch, Tensor) else batch[0]) * trainer.world_size
        if "sigma" in outputs:
            band = torch.bucketize(outputs["sigma"], self._edges)
            losses = outputs["losses"].float()
            self._bands.index_add_(1, band, torch.stack([losses, torch.ones_like(losses)]))
        step = trainer.global_step
        if step % self.every_n_steps == 0 and step != self._logged:
            values = self._values(trainer, module)
            self._show(values)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
            self._logged = step
            self._interval_shown = True
            self._start_interval(trainer)
        elif not self._interval_shown:
            self._show(self._speed(trainer))

    def _show(self, values: Mapping[str, float]) -> None:
        self.shown = {"samples/s": f"{values['samples_per_s']:.3g}"}
        if "data_wait" in values:
            self.shown["wait"] = f"{values['data_wait']:.0%}"

    def _speed(self, trainer: pl.Trainer) -> dict[str, float]:
        seconds = time.perf_counter() - self._mark
        values = {"samples_per_s": self._samples / seconds}
        if isinstance(trainer.profiler, WaitClock):
            values["data_wait"] = (trainer.profiler.waited - self._waited) / seconds
        return values

    def _values(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        sums, counts = self._bands.tolist()
        names = [f"train_loss_by_sigma/{low:g}-{high:g}" for low, high in pairwise(BANDS)]
        values = {name: sums[i] / counts[i] for i, name in enumerate(names) if counts[i]}
        values |= {"gradient_norm": self._gradients, **self._speed(trainer)}
        if isinstance(module, TrainingModule):
            values["ema_decay"] = module.ema.decay
        return values

    def _start_interval(self, trainer: pl.Trainer) -> None:
        self._bands = torch.zeros(2, len(BANDS) - 1, device=self._edges.device)
        self._samples = 0
        self._mark = time.perf_counter()
        profiler = trainer.profiler
        self._waited = profiler.waited if isinstance(profiler, WaitClock) else 0.0
