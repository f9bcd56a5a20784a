"""`trainer.gpus`, which Lightning 2 no longer knows, and atomic writing of checkpoints."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO

from audio_diffusion_pytorch.checkpoint import load_checkpoint
from audio_diffusion_pytorch.errors import InputError, replacing


def make_trainer(gpus: int = -1, **kwargs) -> pl.Trainer:
    """A Lightning Trainer.

    Args:
        gpus: -1 takes all GPUs, and the CPU with a warning where there is none; 0 the CPU; n exactly n GPUs.
        **kwargs: arguments of `pytorch_lightning.Trainer`.

    Raises:
        InputError: more GPUs are asked for than there are.
    """
    available = torch.cuda.device_count()
    if gpus > available or gpus < -1:
        raise InputError(f"trainer.gpus={gpus}, but this machine has {available}; use trainer.gpus=0 for the CPU")
    if gpus == -1 and available == 0:
        warnings.warn("no GPU found: training on the CPU (trainer.gpus=0 says so without this warning)", stacklevel=2)
    on_gpu = available > 0 and gpus != 0
    device = {"accelerator": "gpu", "devices": gpus} if on_gpu else {"accelerator": "cpu", "devices": 1}
    return pl.Trainer(**{**device, "plugins": [AtomicCheckpointIO()], **kwargs})


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints, written to a temporary file in the same folder, flushed and renamed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replacing(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's writer says so when the disk is full
                raise OSError(str(error).splitlines()[0]) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> dict:
        return load_checkpoint(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
