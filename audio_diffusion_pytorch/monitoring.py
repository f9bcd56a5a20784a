"""What a run shows while it trains: loss by noise level, speed, gradients; and what ends it."""

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelSummary, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.utilities.model_summary import get_human_readable_count
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from audio_diffusion_pytorch.errors import InputError

BANDS = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # edges of noise levels, the same in every run
_FETCH = "[_TrainingEpochLoop].train_dataloader_next"  # what Lightning calls its wait for a batch
_REFRESH = 1.0  # seconds after which a terminal's bar moves, however slow the steps are
_AVERAGED = 100  # steps in the running average of the loss


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

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._gradients = float(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Mapping[str, Tensor], batch: Any, index: int
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


def log_config(loggers: Iterable[Logger], config: Mapping[str, Any], text: str) -> None:
    """Log the resolved configuration as hyper-parameters, on TensorBoard also as a text.

    Lightning's own way to TensorBoard writes none without a metric's first value, which would stand in its curve.
    """
    for logger in loggers:
        if not hasattr(logger.experiment, "add_text"):
            logger.log_hyperparams(config)
            continue
        logger.experiment.add_text("config", f"```yaml\n{text}\n```")
        for part in hparams(dict(_flat(config)), {"valid_loss": 0.0}):
            logger.experiment._get_file_writer().add_summary(part)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str | bool]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, (bool, int, float, str)) else str(value)


class ProgressBar(TQDMProgressBar):
    """One bar for the whole run, in optimiser steps, with the speed and the wait that a `TrainingMonitor` measures.

    It moves with the first step, on a terminal every second, and every `refresh_rate` steps.
    """

    _drawn = 0.0  # when a step was shown last

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        super().on_train_start(trainer, *args)
        self._drawn = 0.0
        steps = trainer.estimated_stepping_batches
        self.train_progress_bar.total = None if steps == math.inf else steps
        self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step  # a resumed run goes on
        self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        bar, step = self.train_progress_bar, trainer.global_step
        if not bar.disable and step != bar.n and (self._should_update(step, bar.total) or self._is_late()):
            bar.n, self._drawn = step, time.monotonic()
            bar.set_postfix(self.get_metrics(trainer, module))  # draws it, too

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._train_progress_bar is not None:
            self._train_progress_bar.n = trainer.global_step  # the bar is drawn again after the validation
        super().on_validation_start(trainer, *args)

    def _is_late(self) -> bool:
        if self._drawn == 0.0:
            return True
        # each time is a line in a file of messages
        return sys.stdout.isatty() and time.monotonic() - self._drawn > _REFRESH

    def on_exception(self, *args: Any) -> None:
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()  # or it would be drawn once more below the last message

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)  # a piece of a logger's name
        for callback in trainer.callbacks:
            if isinstance(callback, TrainingMonitor):
                items |= callback.shown
        return items


class Parts(ModelSummary):
    """The parts of a model that have parameters, and how many; not operations, which Lightning does not count here."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]], total_parameters: int, trainable_parameters: int, *args, **kwargs
    ) -> None:
        columns = dict(summary_data)
        parts = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        parts = [part for part in parts if part[2].strip() != "0"]
        widths = [max(map(len, cells)) for cells in zip(*parts, strict=True)]
        lines = ["  ".join(map(str.ljust, part, widths)).rstrip() for part in parts]
        trained, total = (get_human_readable_count(n).strip() for n in (trainable_parameters, total_parameters))
        logging.getLogger(__name__).info("\n".join([*lines, f"{trained} parameters are trained, of {total}"]))


class StopOnDivergence(pl.Callback):
    """Ends a run whose loss is not finite, or far above its running average, before anything of it is saved.

    Args:
        factor: how many times the average of about the last 100 steps is too much.

    Raises:
        InputError: names the step, the batch, and the recordings in it.
    """

    def __init__(self, factor: float = 100.0):
        self.factor, self.average, self.steps = factor, 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average, self.steps = state_dict["average"], state_dict["steps"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Mapping[str, Tensor], batch: Any, index: int
    ) -> None:
        # what is logged is the average of all processes: they stop together
        loss = float(trainer.callback_metrics.get("train_loss", outputs["loss"]))
        if math.isfinite(loss) and (self.steps < _AVERAGED or loss <= self.factor * self.average):
            self.steps += 1
            self.average += (loss - self.average) / min(self.steps, _AVERAGED)
            return
        listing = self._recordings(trainer, index, outputs.get("losses"))
        if trainer.world_size > 1:
            gathered: list[list[str]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, listing)
            listing = [line for lines in gathered for line in lines]
        what = f"{loss:g}" if math.isfinite(loss) else "not a finite number"
        before = f", after an average of {self.average:.3g}" if self.steps else ""
        raise InputError(
            f"the loss is {what} at step {trainer.global_step} (epoch {trainer.current_epoch}, batch {index}){before}. "
            f"In the batch: {'; '.join(listing) or 'no files known'}. Lower model.lr, set "
            "trainer.gradient_clip_val=1.0, or take out what is wrong with a recording; checkpoints are of before"
        )

    def _recordings(self, trainer: pl.Trainer, index: int, losses: Tensor | None) -> list[str]:
        """Where the batch's items come from, the worst first, at most eight."""
        data = trainer.datamodule
        if not hasattr(getattr(data, "train_set", None), "locate"):
            return []
        items = data.training_items(index)
        values = [math.nan] * len(items) if losses is None else losses.tolist()
        order = sorted(range(len(items)), key=lambda i: (math.isfinite(values[i]), -values[i]))
        suffix = "" if losses is None else " (loss {:.3g})"
        return [data.train_set.locate(items[i]) + suffix.format(values[i]) for i in order[:8]]
