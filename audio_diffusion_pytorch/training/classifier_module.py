"""Train the instrument classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier
from audio_diffusion_pytorch.training.base_module import FrozenCodecModule
from audio_diffusion_pytorch.training.ema import EMA

Batch = tuple[Tensor, Tensor]  # wav [B, 1, T], instrument numbers [B]


class ClassifierModule(FrozenCodecModule):
    """Train a classifier by cross-entropy, on audio that partly passes through a codec.

    Args:
        network: the classifier.
        codec: codec of the transfers that the classifier will score; frozen and excluded from
            checkpoints.
        codec_share: share of each batch that passes through the codec.
        label_smoothing: share of the target's probability that is spread over all instruments.
        lr: learning rate of AdamW, the peak of a one-cycle learning rate.
        lr_beta1: decay of AdamW's first moment.
        lr_beta2: decay of AdamW's second moment.
        lr_weight_decay: weight decay of AdamW.
        ema_beta: highest decay of the average, see `EMA`.
        ema_power: exponent of the warm-up of the average, see `EMA`.
        total_steps: steps of a one-cycle learning rate; None: constant.
    """

    ema: EMA[InstrumentClassifier]

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
        super().__init__(codec)
        self.save_hyperparameters(ignore=["network", "codec"])
        self.network = network
        self.ema = EMA(network, ema_beta, ema_power)

    @property
    def trained(self) -> InstrumentClassifier:
        """The classifier in training."""
        return self.network

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss; the first items of the (shuffled) batch pass through the codec."""
        wav, label = batch
        count = round(self.hparams.codec_share * len(wav))
        if count:
            wav = torch.cat([self._decoded(wav[:count]), wav[count:]])
        logits = self.network(wav.squeeze(1))
        loss = F.cross_entropy(logits, label, label_smoothing=self.hparams.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    @torch.no_grad()
    def _decoded(self, wav: Tensor) -> Tensor:
        """Pass wav [B, 1, T] through the codec."""
        return self.codec.decode(self.codec.encode(wav), wav.shape[-1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy of the averaged weights; half of the items pass the codec."""
        wav, label = batch
        wav = torch.cat([self._decoded(wav[::2]), wav[1::2]])
        label = torch.cat([label[::2], label[1::2]])
        logits = self.ema.model(wav.squeeze(1))
        loss = F.cross_entropy(logits, label)
        accuracy = (logits.argmax(-1) == label).float().mean()
        self.log("valid_loss", loss, prog_bar=True, batch_size=len(wav), sync_dist=True)
        self.log("valid_accuracy", accuracy, prog_bar=True, batch_size=len(wav), sync_dist=True)
