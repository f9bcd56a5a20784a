"""Write `best.ckpt` and `last.ckpt`, from which a run resumes bit for bit."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from audio_diffusion_pytorch.errors import Interrupted
from audio_diffusion_pytorch.training import lightning_internals as internals
from audio_diffusion_pytorch.training.trainer import settings_of


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the best score, also after the run folder was moved or copied."""

    def on_load_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        """Remember the resumed file: Lightning calls this hook before `load_state_dict`."""
        self._resumed = Path(trainer.ckpt_path)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score; translate its paths into this run's folder."""
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
    """Write `last.ckpt` at an interval of optimiser steps, at the end of training, and on a signal.

    SIGINT (Ctrl-C), SIGTERM and, in a SLURM job, SIGUSR1 let the step in progress end, so that the
    checkpoint holds the state between two steps; then `Interrupted` is raised. A second signal ends
    the process at once.

    The callback adds to every checkpoint, also to the checkpoints of other callbacks, four states
    that Lightning omits: a validation that is due or was interrupted (the resumed run repeats it
    whole), the gradients of an unfinished accumulation, the values that Lightning logs just after
    writing the checkpoint, and the settings of the trainer.

    Args:
        dirpath: folder of `last.ckpt`.
        every_n_train_steps: interval in optimiser steps.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int):
        self.dirpath = dirpath
        self.every_n_train_steps = every_n_train_steps
        self.path = Path(dirpath) / "last.ckpt"
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._saved_batch = -1  # batches of the whole run at the last save
        self._validated = False  # after the latest batch
        self._unlogged: dict[str, Any] | None = None
        self._loaded: dict[str, Any] = {}

    # Signals.

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Restore accumulated gradients and install the signal handlers."""
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
        if internals.acknowledge_sigterm(trainer):
            self._signal = signal.SIGTERM

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _interrupted(self, trainer: pl.Trainer) -> bool:
        """Return whether any process received a signal; all processes must call this together."""
        if trainer.world_size > 1:
            number = torch.tensor(int(self._signal), device=trainer.strategy.root_device)
            self._signal = int(trainer.strategy.reduce(number, reduce_op="max"))
        return self._signal != 0

    def _stop(self, trainer: pl.Trainer) -> None:
        raise Interrupted(self._signal, f"stopped at step {trainer.global_step}")

    def on_exception(self, trainer: pl.Trainer, *args: Any) -> None:
        """Restore the signal handlers and let Lightning end the workers of the training loop."""
        self._restore_handlers()
        # Lightning ends the active loop's workers only; the workers of a paused training loop would
        # delay the exit by seconds each.
        trainer.training = True

    # When to save.

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any
    ) -> None:
        """Save if a signal arrived, the interval is complete, or training ends."""
        # Later hooks count the epoch as complete, even if it was interrupted. The end of training
        # is therefore saved here and not in `on_train_end`; or after the last validation, because a
        # run resumed at its end ends at once.
        stepped = not internals.is_accumulating(trainer)
        last = self._is_last(trainer)
        due = trainer.global_step % self.every_n_train_steps == 0 or last
        validation_saves = last and internals.is_validation_due(trainer)
        if self._interrupted(trainer) or (stepped and due and not validation_saves):
            if stepped:
                self._unlogged = internals.pending_log_values(trainer)
            self._save(trainer)
            self._unlogged = None

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop an interrupted run here: Lightning has now logged the values of the last step."""
        self._validated = False
        internals.mark_epoch_started(trainer)
        # Lightning has already counted the batch that starts here.
        if self._signal and self._saved_batch == internals.batches_started(trainer) - 1:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop an interrupted run of one process within its validation."""
        # The shares of several processes may differ by a batch.
        if trainer.world_size == 1:
            self._stop_in_validation(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Mark the validation as complete, or stop an interrupted run."""
        if not trainer.sanity_checking:
            self._stop_in_validation(trainer)
            self._validated = True
            internals.reset_validation_progress(trainer)

    def _stop_in_validation(self, trainer: pl.Trainer) -> None:
        if self._interrupted(trainer):
            self._save(trainer)
            # The last validation runs to its end: a resumed run would not repeat it.
            if not self._is_last(trainer):
                self._stop(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save after the last validation of the run."""
        if self._validated and self._is_last(trainer):
            self._saved_batch = -1  # replaces the checkpoint of an interrupted validation
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save the end of training and restore the signal handlers."""
        self._save(trainer)
        self._restore_handlers()

    def _is_last(self, trainer: pl.Trainer) -> bool:
        """Return whether training ends after the latest batch."""
        loop = trainer.fit_loop
        limited = loop.max_epochs not in (-1, None)
        last_epoch = limited and trainer.current_epoch + 1 >= loop.max_epochs
        last_batch = last_epoch and loop.epoch_loop.batch_progress.is_last_batch
        stepped = not internals.is_accumulating(trainer)
        last_step = stepped and trainer.global_step == trainer.max_steps
        return trainer.should_stop or last_step or last_batch

    def _save(self, trainer: pl.Trainer) -> None:
        batches = internals.batches_started(trainer)
        if self._saved_batch != batches:
            trainer.save_checkpoint(self.path)
            self._saved_batch = batches

    # What to save.

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Add the states that Lightning omits, see the class."""
        checkpoint["trainer"] = settings_of(trainer)
        if internals.is_accumulating(trainer):
            checkpoint["gradients"] = {
                name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
                for name, parameter in module.named_parameters()
                if parameter.grad is not None
            }
        if self._unlogged is not None:
            checkpoint["unlogged"] = self._unlogged
        if not self._validated and internals.is_validation_due(trainer):
            internals.mark_validation_pending(checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Keep the added states until training starts."""
        self._loaded = {
            key: checkpoint[key] for key in ("gradients", "unlogged") if key in checkpoint
        }

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the values that the interrupted run had not logged."""
        unlogged = self._loaded.pop("unlogged", None)
        if unlogged is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics(unlogged["values"], unlogged["step"])
