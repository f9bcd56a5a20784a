"""Share EMA, optimiser, checkpoint hooks and the frozen codec between the Lightning modules."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.optim import adamw, follow_configured_length


class TrainingModule(pl.LightningModule):
    """Train one network with AdamW and average its weights; `training/run.py` requires the class.

    A subclass defines `trained` and the steps, sets `ema`, and saves hyperparameters named `lr`,
    `lr_beta1`, `lr_beta2`, `lr_weight_decay`, `total_steps` and, optionally, `lr_eps`.

    Attributes:
        ema: average of `trained`.
        warmup: share of a one-cycle learning rate that rises.
        takes_latents: batches are latents [B, D, L] of a cache.
    """

    ema: EMA[Any]
    warmup = 0.05
    takes_latents = False

    @property
    def trained(self) -> nn.Module:
        """The network in training; `ema` averages its weights."""
        raise NotImplementedError

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Compute everything that training needs from the data; by default nothing.

        Args:
            datamodule: data of the run.
            run_dir: folder of the run.
            ckpt: checkpoint that the run resumes from; None: a new run.
        """

    def export(self, path: Path) -> None:
        """Write the averaged weights to `path`."""
        self.ema.model.save(path, {"step": str(self.global_step)})

    def wants_cache(self, datamodule: pl.LightningDataModule) -> bool:
        """Return whether training would read latents from the datamodule's cache."""
        return False

    def use_cache(self, datamodule: pl.LightningDataModule, device: torch.device) -> None:
        """Read latents from the datamodule's cache if configured; by default refuse `cache=true`.

        Args:
            datamodule: data of the run.
            device: device that encodes missing latents.

        Raises:
            InputError: the settings demand a cache that this module does not support.
        """
        if getattr(datamodule, "cache", None) is True:
            raise InputError(
                "datamodule.cache=true needs an experiment that trains an instrument on a frozen "
                "codec"
            )

    def describe(self) -> dict[str, Any]:
        """Describe the exported model; a resumed run must match. By default empty."""
        return {}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimiser, then update the average."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.trained)

    def configure_optimizers(self) -> dict:
        """Return AdamW, with a one-cycle learning rate over `total_steps`."""
        h = self.hparams
        return adamw(
            [p for p in self.trained.parameters() if p.requires_grad],
            h.lr,
            (h.lr_beta1, h.lr_beta2),
            h.get("lr_eps", 1e-8),
            h.lr_weight_decay,
            h.total_steps,
            warmup=self.warmup,
        )

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Set the end of a resumed learning-rate cycle to the configured `total_steps`."""
        follow_configured_length(checkpoint)


class FrozenCodecModule(TrainingModule):
    """Train a network on the latents or the audio of a frozen codec.

    The codec is not a submodule, so that checkpoints exclude its weights.

    Args:
        codec: the codec; the module freezes its weights.
    """

    def __init__(self, codec: Codec):
        super().__init__()
        # A list hides the codec from nn.Module, which would register it as a submodule.
        self._codec = [codec.freeze()]

    @property
    def codec(self) -> Codec:
        """The frozen codec."""
        return self._codec[0]

    @property
    def features(self) -> Codec:
        """Encoder of the items of a latent cache, by default the codec."""
        return self.codec

    def on_fit_start(self) -> None:
        """Move the codec to the device of the module."""
        self.codec.to(self.device)
