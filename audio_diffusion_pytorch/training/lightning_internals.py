"""Name the private attributes of Lightning that training depends on.

Lightning has no public interface for these states, and each minor release may rename them:
pyproject.toml therefore bounds its version. No other file accesses them.
"""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from tqdm import tqdm

# Profiler action that covers the wait for a training batch.
FETCH_ACTION = "[_TrainingEpochLoop].train_dataloader_next"


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Return whether the batch in progress accumulates gradients without an optimiser step."""
    return trainer.fit_loop._should_accumulate()


def is_validation_due(trainer: pl.Trainer) -> bool:
    """Return whether a validation follows the training batch in progress."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def batches_started(trainer: pl.Trainer) -> int:
    """Return the number of training batches of the whole run, the batch in progress included."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def pending_log_values(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Return the values and step that Lightning logs after the `on_train_batch_end` hooks, or None.

    Returns:
        `{"step": int, "values": {name: float}}`; None if this step is not logged.
    """
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return None
    values = {name: float(value) for name, value in connector.metrics["log"].items()}
    values["epoch"] = trainer.current_epoch
    return {"step": trainer.fit_loop.epoch_loop._batches_that_stepped, "values": values}


def acknowledge_sigterm(trainer: pl.Trainer) -> bool:
    """Return whether Lightning's handler received SIGTERM, and clear its flag.

    Lightning would otherwise end the run without a checkpoint.
    """
    received = trainer.received_sigterm
    if received:
        trainer._signal_connector.received_sigterm = False
    return received


def mark_epoch_started(trainer: pl.Trainer) -> None:
    """Set the epoch counters to "started": Lightning omits this at the edge of an epoch."""
    for progress in (
        trainer.fit_loop.epoch_progress.total,
        trainer.fit_loop.epoch_progress.current,
    ):
        started = progress.processed + 1
        progress.ready = started
        progress.started = started


def reset_validation_progress(trainer: pl.Trainer) -> None:
    """Equalise the counters of the validation loop.

    A validation that began before a resume has counted a batch twice, and would count as
    interrupted forever.
    """
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def mark_validation_pending(checkpoint: dict[str, Any]) -> None:
    """Edit a checkpoint's loop counters so that a resumed run repeats the whole validation.

    The counters are those of a run whose first validation batch has started and not ended.
    """
    progress = checkpoint["loops"]["fit_loop"]
    for key in ("total", "current"):
        batches = progress["epoch_loop.batch_progress"][key]
        batches["completed"] = batches["processed"]
        progress["epoch_loop.val_loop.batch_progress"][key] = {
            "ready": 1,
            "started": 1,
            "processed": 0,
            "completed": 0,
        }


def attached_trainer(module: pl.LightningModule) -> pl.Trainer | None:
    """Return the module's trainer, or None: the public property raises an error instead."""
    return module._trainer


def launched_processes(trainer: pl.Trainer) -> list[Any]:
    """Return the processes that this process launched for the other ranks."""
    return list(getattr(trainer.strategy.launcher, "procs", ()))


def open_bars(callback: TQDMProgressBar) -> list[tqdm]:
    """Return the open bars of validation and training, in this order."""
    bars = (callback._val_progress_bar, callback._train_progress_bar)
    return [bar for bar in bars if bar is not None]


def training_bar(callback: TQDMProgressBar) -> tqdm | None:
    """Return the training bar, or None before it exists, where the public property fails."""
    return callback._train_progress_bar


def is_refresh_due(callback: TQDMProgressBar, step: int, total: int | float | None) -> bool:
    """Return whether the callback's refresh rate draws `step` of `total` steps."""
    return callback._should_update(step, total)
