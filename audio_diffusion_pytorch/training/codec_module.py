"""Training of the small mel codec: spectral losses, no discriminator."""

from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.losses import SpectralLoss
from audio_diffusion_pytorch.training.optim import adamw, follow_configured_length


class CodecModule(pl.LightningModule):
    """wav -> codec.encode -> codec.decode -> spectral loss -> AdamW -> EMA.

    Args:
        codec: the codec to train; only its decoder has weights.
        total_steps: steps of the one-cycle learning rate.
    """

    def __init__(
        self,
        codec: MelCodec,
        lr: float = 1e-3,
        lr_beta1: float = 0.9,
        lr_beta2: float = 0.99,
        lr_weight_decay: float = 1e-3,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["codec"])
        self.codec = codec
        self.ema = EMA(codec, ema_beta, ema_power)
        self.loss = SpectralLoss(codec.sample_rate)

    def training_step(self, wav: Tensor, batch_idx: int) -> Tensor:
        decoded = self.codec.synthesise(self.codec.encode(wav))[..., : wav.shape[-1]]
        loss = self.loss(decoded.squeeze(1), wav.squeeze(1))
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, wav: Tensor, batch_idx: int) -> None:
        decoded = self.ema.model.synthesise(self.codec.encode(wav))[..., : wav.shape[-1]]
        loss = self.loss(decoded.squeeze(1), wav.squeeze(1))
        distance = log_mel_distance(
            decoded.squeeze(1), wav.squeeze(1), self.codec.sample_rate
        ).mean()
        self.log("valid_loss", loss, prog_bar=True, batch_size=len(wav), sync_dist=True)
        self.log("valid_log_mel_l1", distance, prog_bar=True, batch_size=len(wav), sync_dist=True)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.codec)

    def configure_optimizers(self) -> dict:
        h = self.hparams
        parameters = [p for p in self.codec.parameters() if p.requires_grad]
        return adamw(
            parameters,
            h.lr,
            (h.lr_beta1, h.lr_beta2),
            1e-8,
            h.lr_weight_decay,
            h.total_steps,
            warmup=0.05,
        )

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        follow_configured_length(checkpoint)

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Nothing to prepare: the mel front end needs no statistics."""

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision."""
        self.ema.model.save(path, {"step": str(self.global_step)})
