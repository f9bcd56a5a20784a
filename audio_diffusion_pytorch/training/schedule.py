"""When a run validates, where its configuration leaves that open: by the run's length, and a first time early."""

import pytorch_lightning as pl

_VALIDATIONS = 5  # of a short run
_LONGEST = 1000  # batches between two validations of a long one
_EARLIEST = 10  # batches before the first: fewer say nothing


def validation_interval(batches: float) -> int:
    """Batches between two validations of a run of so many batches (infinity: nothing ends it)."""
    return int(max(1, min(batches / _VALIDATIONS, _LONGEST)))


def first_validation(interval: int) -> int:
    """Batches before the first validation, which shows early that all is well."""
    return min(interval, max(_EARLIEST, interval // 10))


class ScheduledValidation(pl.Callback):
    """Validates after `first_validation(interval)` batches, and after every `interval` batches.

    The numbers of batches are those of the whole run: one that resumes validates where it would have.
    """

    def __init__(self, interval: int):
        self.interval, self.first = interval, first_validation(interval)

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        trainer.val_check_interval = self.interval

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._choose(trainer)  # a resumed run asks before its first batch

    def on_train_batch_start(self, trainer: pl.Trainer, *args) -> None:
        self._choose(trainer)

    def _choose(self, trainer: pl.Trainer) -> None:
        early = trainer.fit_loop.epoch_loop.total_batch_idx < self.first
        trainer.val_check_batch = self.first if early else self.interval
