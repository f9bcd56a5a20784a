"""What a run shows while it trains: loss by noise level, speed, gradients; and what ends it."""

import math
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler
from torch import Tensor

BANDS = (
    0.001,
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    100.0,
)  # edges of noise levels, the same in every run
_FETCH = "[_TrainingEpochLoop].train_dataloader_next"  # what Lightning calls its wait for a batch
_REFRESH = 1.0  # seconds after which a terminal's bar moves, however slow the steps are


class WaitClock(Profiler):
    """The profiler of a run, for one figure: seconds that training has waited for its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = self._since = 0.0

    def start(self, action_name: str) -> None:
        if action_name == _FETCH:
            self._since = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name == _FETCH:
            self.waited += time.perf_counter() - self._since


class TrainingMonitor(pl.Callback):
    """Logs, every so many optimiser steps, what is no part of a training step.

    - `train_loss_by_sigma/LOW-HIGH`: this process's samples since the last time, by their noise level.
    - `gradient_norm` before clipping, and `ema_decay`.
    - `samples_per_s` of all processes, and `data_wait`, the share of the time spent waiting for batches; validation
      does not count.
    """

    def __init__(self, every_n_steps: int = 20):
        self.every_n_steps = every_n_steps
        self.shown: dict[str, str] = {}  # in the progress bar
        self._shows_all = False  # the figures of a whole interval
        self._bands: Tensor | None = None  # [2, bands]: sums of losses, samples
        self._logged = self._samples = 0
        self._gradients = math.nan
        self._mark = self._waited = self._paused = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._edges = torch.tensor(BANDS[1:-1], device=module.device)
        resumed = self._bands
        self._start_again(trainer)
        if resumed is not None:
            self._bands += resumed.to(module.device)

    def state_dict(self) -> dict[str, Any]:
        return {"bands": self._bands, "logged": self._logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._bands, self._logged = state_dict["bands"], state_dict["logged"]

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._mark += time.perf_counter() - self._paused

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            gradients = [
                p.grad
                for group in optimizer.param_groups
                for p in group["params"]
                if p.grad is not None
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
            self._logged, self._shows_all = step, True
            self._start_again(trainer)
        elif not self._shows_all:  # the first figures come with the first step
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
        if hasattr(module, "ema"):
            values["ema_decay"] = module.ema.decay
        return values

    def _start_again(self, trainer: pl.Trainer) -> None:
        self._bands = torch.zeros(2, len(BANDS) - 1, device=self._edges.device)
        self._samples, self._mark = 0, time.perf_counter()
        self._waited = getattr(trainer.profiler, "waited", 0.0)
