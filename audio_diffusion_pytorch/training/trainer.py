"""Build the Lightning trainer: `trainer.gpus`, several processes, atomic checkpoints."""

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
    """Build a Lightning Trainer.

    Args:
        gpus: number of GPUs (of each node, with `num_nodes`); -1: all GPUs, or with a warning the
            CPU; 0: the CPU.
        timeout_minutes: longest wait of a process for the other processes.
        **kwargs: arguments of `pytorch_lightning.Trainer`; with `gpus=0`, `devices` is the number
            of processes.

    Raises:
        InputError: the machine has fewer GPUs, the device does not support the precision, or a
            number is not whole.
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
            "no GPU found: training on the CPU (set trainer.gpus=0 to omit this warning)",
            stacklevel=2,
        )
    on_gpu = available > 0 and gpus != 0
    if not on_gpu and str(kwargs.get("precision")).startswith("16"):
        raise InputError(
            f"trainer.precision={kwargs['precision']} needs a GPU; the CPU supports 32 and "
            "bf16-mixed"
        )
    plugins: list[Any] = [AtomicCheckpointIO()]
    # Lightning would save in the middle of a step; `LastCheckpoint` saves between two steps.
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    settings = {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": gpus if on_gpu else 1,
        "plugins": plugins,
        "profiler": WaitClock(),
        "use_distributed_sampler": False,  # the datamodule's sampler repeats no item
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
            # Buffers are equal; a broadcast would block if processes validate unequal numbers of
            # batches.
            broadcast_buffers=False,
        )
    return pl.Trainer(**settings)


def settings_of(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the settings that change the result of a step; checkpoints store them."""
    return {
        key: getattr(trainer, key)
        for key in ("accumulate_grad_batches", "gradient_clip_val", "precision")
    }


class AtomicCheckpointIO(CheckpointIO):
    """Write each checkpoint to a temporary file in the same folder, flush and rename the file."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint atomically."""
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict:
        """Read a checkpoint without unpickling code."""
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint if it exists."""
        Path(path).unlink(missing_ok=True)
