"""`best.ckpt`; `last.ckpt`, from which a run goes on bit for bit, saved at intervals and when a signal ends the run."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from audio_diffusion_pytorch.errors import Interrupted
from audio_diffusion_pytorch.training.trainer import settings_of


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which also remembers the best score of a run whose folder was moved or copied."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, *args
    ) -> None:  # comes before `load_state_dict`
        self._resumed = Path(trainer.ckpt_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(self.dirpath)
        best = here / Path(state_dict["best_model_path"]).name
        if self._resumed.resolve().parent == here.resolve() and best.is_file():
            models = {
                str(here / Path(path).name): score
                for path, score in state_dict["best_k_models"].items()
            }
            paths = {
                key: str(here / Path(state_dict[key]).name)
                for key in ("best_model_path", "kth_best_model_path")
            }
            state_dict = {**state_dict, **paths, "best_k_models": models, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)


class LastCheckpoint(Checkpoint):
    """`last.ckpt`: every so many optimiser steps, at the end of training, and when a signal interrupts it.

    SIGINT (Ctrl-C), SIGTERM and in a SLURM job SIGUSR1 let the running step end, so that what is saved is the state
    between two steps; `Interrupted` is raised then. A second signal does not wait.

    To every checkpoint, also those of other callbacks, it adds what Lightning leaves out: a validation that is due or
    was cut short (it is run again, whole), gradients of an accumulation that has not ended, the values that are
    logged just after the checkpoint is written, and the trainer's settings.

    Args:
        dirpath: folder of `last.ckpt`.
        every_n_train_steps: interval in optimiser steps.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int):
        self.dirpath, self.every_n_train_steps = dirpath, every_n_train_steps
        self.path = Path(dirpath) / "last.ckpt"
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._saved_batch = -1  # batches of the whole run when it was saved
        self._validated = False  # after the batch that ran last
        self._unlogged: dict[str, Any] | None = None
        self._loaded: dict[str, Any] = {}

    # Signals.

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        gradients = self._loaded.pop("gradients", {})
        for name, parameter in module.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter.device)
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1"):
            numbers.append(signal.SIGUSR1)
        self._handlers = {number: signal.signal(number, self._on_signal) for number in numbers}
        if trainer.received_sigterm:  # by Lightning's handler, which would end the run unsaved
            self._signal, trainer._signal_connector.received_sigterm = signal.SIGTERM, False

    def _on_signal(self, number: int, frame) -> None:
        self._signal = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _interrupted(self, trainer: pl.Trainer) -> bool:
        """Whether any process got a signal; all of them have to ask at the same point."""
        if trainer.world_size > 1:
            number = torch.tensor(int(self._signal), device=trainer.strategy.root_device)
            self._signal = int(trainer.strategy.reduce(number, reduce_op="max"))
        return self._signal != 0

    def _stop(self, trainer: pl.Trainer) -> None:
        raise Interrupted(self._signal, f"stopped at step {trainer.global_step}")

    def on_exception(self, trainer: pl.Trainer, *args) -> None:
        self._restore_handlers()
        # Lightning ends the active loop's workers only; those of a paused training loop would hold up the exit for
        # seconds each.
        trainer.training = True

    # When to save.

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args) -> None:
        # Later hooks count the epoch as done, even if it is cut short: the end is saved here, not in `on_train_end`; or
        # after the last validation, because a run that resumes at its end ends at once.
        stepped, last = not trainer.fit_loop._should_accumulate(), self._is_last(trainer)
        due = trainer.global_step % self.every_n_train_steps == 0 or last
        if self._interrupted(trainer) or (
            stepped and due and not (last and self._validation_follows(trainer))
        ):
            logs = trainer._logger_connector
            if stepped and logs.should_update_logs:
                values = {name: float(value) for name, value in logs.metrics["log"].items()}
                values["epoch"] = trainer.current_epoch
                self._unlogged = {
                    "step": trainer.fit_loop.epoch_loop._batches_that_stepped,
                    "values": values,
                }
            self._save(trainer)
            self._unlogged = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args) -> None:
        self._validated = False
        for epochs in (
            trainer.fit_loop.epoch_progress.total,
            trainer.fit_loop.epoch_progress.current,
        ):
            epochs.ready = epochs.started = (
                epochs.processed + 1
            )  # Lightning forgets to, resuming at an epoch's edge
        if (
            self._signal and self._saved_batch == self._batches(trainer) - 1
        ):  # this batch is counted already
            self._stop(trainer)  # only now, when the last step's values have been logged

    def on_validation_batch_end(self, trainer: pl.Trainer, *args) -> None:
        if trainer.world_size == 1:  # the processes' shares may differ by a batch
            self._stop_in_validation(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, *args) -> None:
        if not trainer.sanity_checking:
            self._stop_in_validation(trainer)
            self._validated = True
            # One that was begun before a resume has counted a batch twice, and would look cut short for ever.
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def _stop_in_validation(self, trainer: pl.Trainer) -> None:
        if self._interrupted(trainer):
            self._save(trainer)
            if not self._is_last(
                trainer
            ):  # the last one is run to its end: after a resume it would not be
                self._stop(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *args) -> None:
        if self._validated and self._is_last(trainer):
            self._saved_batch = -1  # also where an interrupted one has been saved
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, *args) -> None:
        self._save(trainer)
        self._restore_handlers()

    def _is_last(self, trainer: pl.Trainer) -> bool:
        """Whether training ends after the batch that has run."""
        loop = trainer.fit_loop
        last_epoch = (
            loop.max_epochs not in (-1, None) and trainer.current_epoch + 1 >= loop.max_epochs
        )
        stepped = not loop._should_accumulate() and trainer.global_step == trainer.max_steps
        return (
            trainer.should_stop
            or stepped
            or (last_epoch and loop.epoch_loop.batch_progress.is_last_batch)
        )

    def _validation_follows(self, trainer: pl.Trainer) -> bool:
        return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)

    def _batches(self, trainer: pl.Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _save(self, trainer: pl.Trainer) -> None:
        if self._saved_batch != self._batches(trainer):
            trainer.save_checkpoint(self.path)
            self._saved_batch = self._batches(trainer)

    # What to save.

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict
    ) -> None:
        loop, progress = trainer.fit_loop, checkpoint["loops"]["fit_loop"]
        checkpoint["trainer"] = settings_of(trainer)
        if loop._should_accumulate():
            gradients = {
                name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None
            }
            checkpoint["gradients"] = {
                n: trainer.strategy.reduce(g, reduce_op="mean") for n, g in gradients.items()
            }
        if self._unlogged is not None:
            checkpoint["unlogged"] = self._unlogged
        if not self._validated and self._validation_follows(trainer):
            # As Lightning's loops stand when the first batch of the validation has not ended.
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            for key in ("total", "current"):
                batches = progress["epoch_loop.batch_progress"][key]
                batches["completed"] = batches["processed"]
                progress["epoch_loop.val_loop.batch_progress"][key] = dict(begun)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self._loaded = {
            key: checkpoint[key] for key in ("gradients", "unlogged") if key in checkpoint
        }

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        unlogged = self._loaded.pop("unlogged", None)
        for logger in trainer.loggers if unlogged else ():
            logger.log_metrics(unlogged["values"], unlogged["step"])
