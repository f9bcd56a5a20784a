"""Compute the losses of the codec."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralLoss(nn.Module):
    """Average log-mel L1, log-magnitude L1 and spectral convergence over several window sizes.

    Sources: multi-resolution STFT loss (Yamamoto et al. 2020, eq. 3-6), multi-scale mel loss (Kumar et al. 2023, 3.4).
    """

    def __init__(
        self, sample_rate: int, n_ffts: tuple[int, ...] = (2048, 1280, 640, 320), n_mels: int = 128
    ):
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
        """Return the loss [] of wav [B, T] against target [B, T]."""
        loss = 0.0
        for n_fft in self.n_ffts:
            got = self._magnitude(wav, n_fft)
            with torch.no_grad():
                wanted = self._magnitude(target, n_fft)
            filters = getattr(self, f"filters_{n_fft}")
            mel = F.l1_loss(torch.log(filters @ got + 1e-4), torch.log(filters @ wanted + 1e-4))
            log_magnitude = F.l1_loss(torch.log(got + 1e-4), torch.log(wanted + 1e-4))
            error = torch.linalg.vector_norm(got - wanted, dim=(1, 2))
            convergence = (
                error / torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp_min(1e-3)
            ).mean()
            loss = loss + 2.0 * mel + 0.5 * log_magnitude + 0.5 * convergence
        return loss / len(self.n_ffts)

    def _magnitude(self, wav: Tensor, n_fft: int) -> Tensor:
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(
            wav, n_fft, n_fft // 4, window=window, return_complex=True, pad_mode="constant"
        )
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
