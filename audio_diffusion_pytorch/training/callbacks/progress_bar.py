"""Progress bar and model summary."""

import logging
import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary, TQDMProgressBar
from pytorch_lightning.utilities.model_summary import get_human_readable_count

from audio_diffusion_pytorch.training.callbacks.monitor import _REFRESH, TrainingMonitor


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
        self.train_progress_bar.initial = self.train_progress_bar.n = (
            trainer.global_step
        )  # a resumed run goes on
        self.on_train_epoch_start(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        bar, step = self.train_progress_bar, trainer.global_step
        if (
            not bar.disable
            and step != bar.n
            and (self._should_update(step, bar.total) or self._is_late())
        ):
            bar.n, self._drawn = step, time.monotonic()
            bar.set_postfix(self.get_metrics(trainer, module))  # draws it, too

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._train_progress_bar is not None:
            self._train_progress_bar.n = (
                trainer.global_step
            )  # the bar is drawn again after the validation
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
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args,
        **kwargs,
    ) -> None:
        columns = dict(summary_data)
        cells = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        parts = [part for part in cells if part[2].strip() != "0"]
        widths = [max(map(len, cells)) for cells in zip(*parts, strict=True)]
        lines = ["  ".join(map(str.ljust, part, widths)).rstrip() for part in parts]
        trained, total = (
            get_human_readable_count(n).strip() for n in (trainable_parameters, total_parameters)
        )
        logging.getLogger(__name__).info(
            "\n".join([*lines, f"{trained} parameters are trained, of {total}"])
        )
