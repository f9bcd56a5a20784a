"""Show the progress of a run and the parts of its model."""

import logging
import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary, TQDMProgressBar
from pytorch_lightning.utilities.model_summary import get_human_readable_count

from audio_diffusion_pytorch.training import lightning_internals as internals
from audio_diffusion_pytorch.training.callbacks.monitor import TrainingMonitor

_REFRESH_SECONDS = 1.0  # interval of a terminal's bar, however slow the steps are


class ProgressBar(TQDMProgressBar):
    """Show one bar for the whole run, in optimiser steps, with the figures of a `TrainingMonitor`.

    The bar moves after the first step, every `refresh_rate` steps, and on a terminal every second.
    """

    _drawn = 0.0  # time of the latest update; 0: none yet

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Set the bar's length to the steps of the whole run; a resumed run starts at its step."""
        super().on_train_start(trainer, *args)
        self._drawn = 0.0
        steps = trainer.estimated_stepping_batches
        bar = self.train_progress_bar
        bar.total = None if steps == math.inf else steps
        bar.initial = trainer.global_step
        bar.n = trainer.global_step
        self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Show the number of the epoch."""
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        """Move the bar if an update is due."""
        bar = self.train_progress_bar
        step = trainer.global_step
        if bar.disable or step == bar.n:
            return
        if internals.is_refresh_due(self, step, bar.total) or self._is_late():
            bar.n = step
            self._drawn = time.monotonic()
            bar.set_postfix(self.get_metrics(trainer, module))  # redraws the bar

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Update the step: the bar is redrawn after the validation."""
        bar = internals.training_bar(self)
        if bar is not None:
            bar.n = trainer.global_step
        super().on_validation_start(trainer, *args)

    def _is_late(self) -> bool:
        if self._drawn == 0.0:
            return True
        # In a log file every update is a line.
        return sys.stdout.isatty() and time.monotonic() - self._drawn > _REFRESH_SECONDS

    def on_exception(self, *args: Any) -> None:
        """Close the bars: tqdm would redraw them below the error message."""
        for bar in internals.open_bars(self):
            bar.close()

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """Return the logged values and the figures of the monitor."""
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)  # the end of a logger's version name
        if "train_loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["train_loss"])
            items = {"train_loss": loss, **items}
        for callback in trainer.callbacks:
            if isinstance(callback, TrainingMonitor):
                items |= callback.shown
        return items


class Parts(ModelSummary):
    """Log the parts of a model that have parameters, and their numbers of parameters."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Log one line for each part, and the totals.

        Args:
            summary_data: columns of Lightning's table: heading, cells.
            total_parameters: number of parameters.
            trainable_parameters: number of trained parameters.
            *args: further figures of Lightning's table, not shown.
            **kwargs: further figures of Lightning's table, not shown.
        """
        columns = dict(summary_data)
        rows = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        parts = [row for row in rows if row[2].strip() != "0"]
        widths = [max(map(len, cells)) for cells in zip(*parts, strict=True)]
        lines = ["  ".join(map(str.ljust, part, widths)).rstrip() for part in parts]
        trained = get_human_readable_count(trainable_parameters).strip()
        total = get_human_readable_count(total_parameters).strip()
        lines.append(f"{trained} parameters are trained, of {total}")
        logging.getLogger(__name__).info("\n".join(lines))
