"""Training of the small mel codec: spectral losses, no discriminator."""

from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.codec import MelCodec
from audio_diffusion_pytorch.ema import EMA
from audio_diffusion_pytorch.metrics import log_mel_distance
from audio_diffusion_pytorch.optim import adamw, follow_configured_length


class SpectralLoss(nn.Module):
    """Sum over window sizes of log-mel L1, log-magnitude L1 and spectral convergence.

    Sources: multi-resolution STFT loss (Yamamoto et al. 2020, eq. 3-6), multi-scale mel loss (Kumar et al. 2023, 3.4).
    """

    def __init__(self, sample_rate: int, n_ffts: tuple[int, ...] = (2048, 1280, 640, 320), n_mels: int = 128):
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.n_ffts = n_ffts
        for n_fft in n_ffts:
            bands = min(n_mels, n_fft // 10)
            filters = melscale_fbanks(n_fft // 2 + 1, 20.0, sample_rate / 2, bands, sample_rate)
            window = torch.hann_window(n_fft)
            self.register_buffer(f"filters_{n_fft}", filters.T.contiguous(), persistent=False)
            self.register_buffer(f"window_{n_fft}", window / window.sum() * 2, persistent=False)

    def forward(self, wav: Tensor, target: Tensor) -> Tensor:
        """wav, target [B, T] -> scalar."""
        loss = 0.0
        for n_fft in self.n_ffts:
            got = self._magnitude(wav, n_fft)
            with torch.no_grad():
                wanted = self._magnitude(target, n_fft)
            filters = getattr(self, f"filters_{n_fft}")
            mel = F.l1_loss(torch.log(filters @ got + 1e-4), torch.log(filters @ wanted + 1e-4))
            log_magnitude = F.l1_loss(torch.log(got + 1e-4), torch.log(wanted + 1e-4))
            error = torch.linalg.vector_norm(got - wanted, dim=(1, 2))
            convergence = (error / torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp_min(1e-3)).mean()
            loss = loss + 2.0 * mel + 0.5 * log_magnitude + 0.5 * convergence
        return loss / len(self.n_ffts)

    def _magnitude(self, wav: Tensor, n_fft: int) -> Tensor:
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(wav, n_fft, n_fft // 4, window=window, return_complex=True, pad_mode="constant")
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


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
        distance = log_mel_distance(decoded.squeeze(1), wav.squeeze(1), self.codec.sample_rate).mean()
        self.log("valid_loss", loss, prog_bar=True, batch_size=len(wav), sync_dist=True)
        self.log("valid_log_mel_l1", distance, prog_bar=True, batch_size=len(wav), sync_dist=True)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.codec)

    def configure_optimizers(self) -> dict:
        h = self.hparams
        parameters = [p for p in self.codec.parameters() if p.requires_grad]
        return adamw(parameters, h.lr, (h.lr_beta1, h.lr_beta2), 1e-8, h.lr_weight_decay, h.total_steps, warmup=0.05)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        follow_configured_length(checkpoint)

    def prepare(self, datamodule: pl.LightningDataModule, run_dir: Path, ckpt: str | None) -> None:
        """Nothing to prepare: the mel front end needs no statistics."""

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision."""
        self.ema.model.save(path, {"step": str(self.global_step)})
