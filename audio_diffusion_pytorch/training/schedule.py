"""Derive the validation interval from the length of a run, with an early first validation."""

from typing import Any

import pytorch_lightning as pl

_VALIDATIONS = 5  # of a short run
_LONGEST = 1000  # batches between two validations of a long run
_EARLIEST = 10  # batches before the first validation: fewer batches are not informative


def validation_interval(batches: float) -> int:
    """Return the batches between two validations of a run of `batches` batches; infinity: no limit."""
    return int(max(1, min(batches / _VALIDATIONS, _LONGEST)))


def first_validation(interval: int) -> int:
    """Return the batches before the first validation, which detects problems early."""
    return min(interval, max(_EARLIEST, interval // 10))


class ScheduledValidation(pl.Callback):
    """Validate after `first_validation(interval)` batches, then at every multiple of `interval` batches.

    The batches are counted over the whole run, so that a resumed run validates at the same batches.

    Args:
        interval: batches between two validations.
    """

    def __init__(self, interval: int):
        self.interval = interval
        self.first = first_validation(interval)

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Set the interval that other callbacks read."""
        trainer.val_check_interval = self.interval

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Set the next validation before the first batch, which a resumed run requires."""
        self._choose(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Set the next validation."""
        self._choose(trainer)

    def _choose(self, trainer: pl.Trainer) -> None:
        early = trainer.fit_loop.epoch_loop.total_batch_idx < self.first
        trainer.val_check_batch = self.first if early else self.interval
