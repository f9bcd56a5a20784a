"""Train the network of the small mel codec, which predicts amplitudes from mel bands."""

from typing import cast

import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.mel import QUIET, MelCodec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.denoised_latents import DenoisedLatents
from audio_diffusion_pytorch.training.ema import EMA

Batch = Tensor | tuple[Tensor, Tensor]  # wav [B, 1, T], or wav and labels [B]


class CodecModule(TrainingModule):
    """Train a mel codec: wav -> codec.encode -> codec.log_amplitudes -> loss -> AdamW -> EMA.

    Args:
        codec: the codec to train; only its decoder has weights.
        denoised: latents that training also decodes; None: only those of the recordings. Batches
            then have labels.
        lr: learning rate of AdamW, the peak of a one-cycle learning rate.
        lr_beta1: decay of AdamW's first moment.
        lr_beta2: decay of AdamW's second moment.
        lr_weight_decay: weight decay of AdamW.
        ema_beta: highest decay of the average, see `EMA`.
        ema_power: exponent of the warm-up of the average, see `EMA`.
        total_steps: steps of a one-cycle learning rate; None: constant.

    Raises:
        InputError: the codec predicts sound: codecs of the first version cannot be trained.
    """

    ema: EMA[MelCodec]

    def __init__(
        self,
        codec: MelCodec,
        denoised: DenoisedLatents | None = None,
        lr: float = 1e-3,
        lr_beta1: float = 0.9,
        lr_beta2: float = 0.99,
        lr_weight_decay: float = 1e-3,
        ema_beta: float = 0.995,
        ema_power: float = 0.7,
        total_steps: int | None = None,
    ):
        super().__init__()
        if codec.config["predicts"] != "amplitudes":
            raise InputError("codec.predicts=sound cannot be trained: leave it out")
        self.save_hyperparameters(ignore=["codec", "denoised"])
        self.codec = codec
        self.ema = EMA(codec, ema_beta, ema_power)
        self._denoised = [denoised]  # a list hides its model from checkpoints

    @property
    def trained(self) -> MelCodec:
        """The codec in training."""
        return self.codec

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        wav, label = _split(batch)
        latents = self.codec.encode(wav)
        denoised = self._denoised[0]
        if denoised is not None:
            step, rank = self.trainer.global_step, self.global_rank
            latents = denoised(latents, cast(Tensor, label), step, rank)
        loss = self._loss(self.codec, latents, wav)
        self.log("train_loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and log-mel distance of a batch, with the averaged weights."""
        wav, _ = _split(batch)
        codec = self.ema.model
        latents = codec.encode(wav)
        decoded = codec.decode(latents, wav.shape[-1])
        scores = {
            "valid_loss": self._loss(codec, latents, wav),
            "valid_log_mel_l1": log_mel_distance(
                decoded[:, 0], wav[:, 0], codec.sample_rate
            ).mean(),
        }
        self.log_dict(scores, prog_bar=True, batch_size=len(wav), sync_dist=True)

    @staticmethod
    def _loss(codec: MelCodec, latents: Tensor, wav: Tensor) -> Tensor:
        """Compare log amplitudes by their mean difference, and amplitudes by the relative error.

        Source: log-magnitude L1 and spectral convergence of Yamamoto et al. 2020, eq. 4 and 5.
        """
        predicted = codec.log_amplitudes(latents).exp()
        true = codec.phase.spectra(wav[:, 0].float()).abs()
        difference = ((predicted + QUIET).log() - (true + QUIET).log()).abs().mean()
        norm = torch.linalg.vector_norm(true, dim=(1, 2)).clamp_min(1e-3)
        error = torch.linalg.vector_norm(predicted - true, dim=(1, 2)) / norm
        return difference + error.mean()


def _split(batch: Batch) -> tuple[Tensor, Tensor | None]:
    return (batch, None) if isinstance(batch, Tensor) else batch
