"""Stop a run whose loss diverges."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError

_AVERAGED = 100  # steps in the running average of the loss


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
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Any,
        index: int,
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
