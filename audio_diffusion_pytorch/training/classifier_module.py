"""Training of the instrument classifier."""

from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.optim import adamw, follow_configured_length


class ClassifierModule(pl.LightningModule):
    """wav, label -> some through the codec -> classifier -> cross-entropy -> AdamW -> EMA.

    Args:
        network: the classifier.
        codec: what the transfers that it will judge are decoded with; frozen, and no part of the checkpoints.
        codec_share: share of each batch that it hears through the codec.
        label_smoothing: share of the target's probability that is spread over all instruments.
        total_steps: steps of the one-cycle learning rate.
    """

    def __init__(
        self,
        network: InstrumentClassifier,
        codec: Codec,
        codec_share: float = 0.25,
        label_smoothing: float = 0.05,
        lr: float = 2e-3,
        lr_beta1: float = 0.9,
        lr_beta2: float = 0.99,
        lr_weight_decay: float = 1e-2,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
    ):
        super().__init__()
        self.save_hyperparameters(ignore=["network", "codec"])
        self.network = network
        self.ema = EMA(network, ema_beta, ema_power)
        self._codec = [
            codec.freeze()
        ]  # in a list, so that it is no submodule and stays out of the checkpoints

    @property
    def codec(self) -> Codec:
        return self._codec[0]

    def on_fit_start(self) -> None:
        self.codec.to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        wav, label = batch
        count = round(self.hparams.codec_share * len(wav))  # the first ones: batches come shuffled
        wav = torch.cat([self._decoded(wav[:count]), wav[count:]]) if count else wav
        logits = self.network(wav.squeeze(1))
        loss = F.cross_entropy(logits, label, label_smoothing=self.hparams.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    @torch.no_grad()
    def _decoded(self, wav: Tensor) -> Tensor:
        """wav [B, 1, T] -> the same through the codec."""
        return self.codec.decode(self.codec.encode(wav), wav.shape[-1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Half as the files are, half through the codec."""
        wav, label = batch
        wav = torch.cat([self._decoded(wav[::2]), wav[1::2]])
        label = torch.cat([label[::2], label[1::2]])
        logits = self.ema.model(wav.squeeze(1))
        accuracy = (logits.argmax(-1) == label).float().mean()
        self.log(
            "valid_loss",
            F.cross_entropy(logits, label),
            prog_bar=True,
            batch_size=len(wav),
            sync_dist=True,
        )
        self.log("valid_accuracy", accuracy, prog_bar=True, batch_size=len(wav), sync_dist=True)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.network)

    def configure_optimizers(self) -> dict:
        h = self.hparams
        betas = h.lr_beta1, h.lr_beta2
        return adamw(
            self.network.parameters(),
            h.lr,
            betas,
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
        """Write the averaged weights."""
        self.ema.model.save(path, {"step": str(self.global_step)})
