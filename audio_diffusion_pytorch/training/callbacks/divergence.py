"""Stop a run whose loss diverges."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError

_AVERAGED = 100  # steps in the running average of the loss
_MOST_LISTED = 8  # recordings in the message


class StopOnDivergence(pl.Callback):
    """End a run before its next checkpoint if the loss is not finite or far above its average.

    Args:
        factor: highest accepted ratio of the loss to the average of about the last 100
            checked steps.
        every_n_steps: interval of the checks; reading the loss of each step would wait for a GPU.

    Raises:
        InputError: the loss diverges; the message lists the step, the batch, and the recordings of
            the batch.
    """

    def __init__(self, factor: float = 100.0, every_n_steps: int = 1):
        self.factor = factor
        self.every_n_steps = every_n_steps
        self.average = 0.0
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the running average for checkpoints."""
        return {"average": self.average, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the running average."""
        self.average = state_dict["average"]
        self.steps = state_dict["steps"]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Any,
        index: int,
    ) -> None:
        """Check the loss of the step and update the average."""
        if trainer.global_step % self.every_n_steps:
            return
        # The logged value is the average of all processes: they stop together.
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
        value = f"{loss:g}" if math.isfinite(loss) else "not a finite number"
        before = f", after an average of {self.average:.3g}" if self.steps else ""
        raise InputError(
            f"the loss is {value} at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"batch {index}){before}. Recordings of the batch: {'; '.join(listing) or 'unknown'}. "
            "Lower model.lr, set trainer.gradient_clip_val=1.0, or remove defective recordings; "
            "the checkpoints precede this step"
        )

    def _recordings(self, trainer: pl.Trainer, index: int, losses: Tensor | None) -> list[str]:
        """Locate the items of the batch, in descending order of loss, at most eight."""
        data = trainer.datamodule
        if not hasattr(getattr(data, "train_set", None), "locate"):
            return []
        items = data.training_items(index)
        if losses is None:
            return [data.train_set.locate(item) for item in items[:_MOST_LISTED]]
        ranked = sorted(
            zip(items, losses.tolist(), strict=True),
            key=lambda pair: (math.isfinite(pair[1]), -pair[1]),
        )
        return [
            f"{data.train_set.locate(item)} (loss {value:.3g})"
            for item, value in ranked[:_MOST_LISTED]
        ]
