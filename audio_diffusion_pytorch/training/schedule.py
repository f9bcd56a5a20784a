"""Length of a run, and the interval of its validations, with an early first one."""

import math
from typing import Any

import pytorch_lightning as pl

_VALIDATIONS = 5  # of a short run
_LONGEST = 1000  # batches between two validations of a long run
_EARLIEST = 10  # batches before the first validation: fewer batches are not informative


def planned_steps(datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> tuple[int, float]:
    """Compute the length of a run in optimiser steps.

    Args:
        datamodule: data of the run.
        trainer: trainer of the run.

    Returns:
        Steps of an epoch, and of the whole run; infinity without a limit.
    """
    batches = len(datamodule.train_set) // (datamodule.batch_size * trainer.world_size)
    limit = trainer.limit_train_batches  # a number, or a share
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = -(-batches // trainer.accumulate_grad_batches)
    by_epochs = math.inf if trainer.max_epochs in (-1, None) else steps * trainer.max_epochs
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    return steps, min(by_epochs, by_steps)


def planned_batches(datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> float:
    """Compute the batches of the whole run in each process; infinity without a limit.

    Args:
        datamodule: data of the run; only `max_steps` limits a datamodule without `train_set`.
        trainer: trainer of the run.
    """
    if hasattr(datamodule, "train_set"):
        steps = planned_steps(datamodule, trainer)[1]
    else:
        steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    return steps * trainer.accumulate_grad_batches


def validation_interval(batches: float) -> int:
    """Return the batches between two validations of a run of `batches` batches, or infinity."""
    return int(max(1, min(batches / _VALIDATIONS, _LONGEST)))


def first_validation(interval: int) -> int:
    """Return the batches before the first validation, which detects problems early."""
    return min(interval, max(_EARLIEST, interval // 10))


class ScheduledValidation(pl.Callback):
    """Validate after `first_validation(interval)` batches, then at multiples of `interval` batches.

    The count covers the whole run, so a resumed run validates at the same batches.

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
