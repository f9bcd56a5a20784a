"""`trainer.gpus`, which Lightning 2 no longer knows, training in several processes, atomic writing of checkpoints."""

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.callbacks.monitor import WaitClock
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint, save_checkpoint

_WHOLE = (
    "gpus",
    "max_steps",
    "max_epochs",
    "accumulate_grad_batches",
    "log_every_n_steps",
    "num_nodes",
)


def make_trainer(gpus: int = -1, timeout_minutes: float = 120, **kwargs) -> pl.Trainer:
    """A Lightning Trainer.

    Args:
        gpus: -1 takes all GPUs, and the CPU with a warning where there is none; 0 the CPU; n exactly n GPUs (of each
            node, with `num_nodes`).
        timeout_minutes: how long one of several processes waits for the others before it gives up.
        **kwargs: arguments of `pytorch_lightning.Trainer`; with `gpus=0`, `devices` is the number of processes.

    Raises:
        InputError: more GPUs are asked for than there are, a precision that the device lacks, or no whole number where
            one is needed.
    """
    for key, value in {"gpus": gpus, **kwargs}.items():
        if (
            key in _WHOLE
            and value is not None
            and (isinstance(value, bool) or not isinstance(value, int))
        ):
            raise InputError(f"trainer.{key}={value} must be a whole number")
    available = torch.cuda.device_count()
    if gpus > available or gpus < -1:
        raise InputError(
            f"trainer.gpus={gpus}, but this machine has {available}; use trainer.gpus=0 for the CPU"
        )
    if gpus == -1 and available == 0:
        warnings.warn(
            "no GPU found: training on the CPU (trainer.gpus=0 says so without this warning)",
            stacklevel=2,
        )
    on_gpu = available > 0 and gpus != 0
    if not on_gpu and str(kwargs.get("precision")).startswith("16"):
        raise InputError(
            f"trainer.precision={kwargs['precision']} needs a GPU; the CPU knows 32 and bf16-mixed"
        )
    plugins: list[Any] = [AtomicCheckpointIO()]
    if (
        SLURMEnvironment.detect()
    ):  # `LastCheckpoint` saves between two steps; Lightning would in the middle of one
        plugins.append(SLURMEnvironment(auto_requeue=False))
    settings = {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": gpus if on_gpu else 1,
        "plugins": plugins,
        "profiler": WaitClock(),
        "use_distributed_sampler": False,  # the datamodule's own gives no item twice
        **kwargs,
    }
    devices = available if settings["devices"] == -1 else settings["devices"]
    several = settings.get("num_nodes", 1) > 1 or (isinstance(devices, int) and devices > 1)
    if settings.get("strategy", "auto") == "ddp" or (
        several and settings.get("strategy", "auto") == "auto"
    ):
        settings["strategy"] = DDPStrategy(
            timeout=timedelta(minutes=timeout_minutes),
            gradient_as_bucket_view=True,
            broadcast_buffers=False,  # they are equal; and processes may validate unequal numbers of batches
        )
    return pl.Trainer(**settings)


def settings_of(trainer: pl.Trainer) -> dict[str, Any]:
    """What a step's result depends on, kept in checkpoints."""
    return {
        key: getattr(trainer, key)
        for key in ("accumulate_grad_batches", "gradient_clip_val", "precision")
    }


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints, written to a temporary file in the same folder, flushed and renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict:
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
