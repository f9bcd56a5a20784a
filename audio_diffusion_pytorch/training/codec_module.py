"""Train the small mel codec with spectral losses, without a discriminator."""

from torch import Tensor

from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.ema import EMA
from audio_diffusion_pytorch.training.losses import SpectralLoss


class CodecModule(TrainingModule):
    """Train a mel codec: wav -> codec.encode -> codec.synthesise -> spectral loss -> AdamW -> EMA.

    Args:
        codec: the codec to train; only its decoder has weights.
        lr: learning rate of AdamW, the peak of a one-cycle learning rate.
        lr_beta1: decay of AdamW's first moment.
        lr_beta2: decay of AdamW's second moment.
        lr_weight_decay: weight decay of AdamW.
        ema_beta: highest decay of the average, see `EMA`.
        ema_power: exponent of the warm-up of the average, see `EMA`.
        total_steps: steps of a one-cycle learning rate; None: constant.
    """

    ema: EMA[MelCodec]

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

    @property
    def trained(self) -> MelCodec:
        """The codec in training."""
        return self.codec

    def training_step(self, wav: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch wav [B, 1, T]."""
        decoded = self.codec.synthesise(self.codec.encode(wav))[..., : wav.shape[-1]]
        loss = self.loss(decoded.squeeze(1), wav.squeeze(1))
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, wav: Tensor, batch_idx: int) -> None:
        """Log loss and log-mel distance of a batch wav [B, 1, T], with the averaged weights."""
        decoded = self.ema.model.synthesise(self.codec.encode(wav))[..., : wav.shape[-1]]
        decoded = decoded.squeeze(1)
        target = wav.squeeze(1)
        loss = self.loss(decoded, target)
        distance = log_mel_distance(decoded, target, self.codec.sample_rate).mean()
        self.log("valid_loss", loss, prog_bar=True, batch_size=len(wav), sync_dist=True)
        self.log("valid_log_mel_l1", distance, prog_bar=True, batch_size=len(wav), sync_dist=True)
