"""Losses of the codec."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FLOOR = 1e-4  # added to magnitudes before the logarithm


class SpectralLoss(nn.Module):
    """Average log-mel L1, log-magnitude L1 and spectral convergence over several window sizes.

    Sources: multi-resolution STFT loss (Yamamoto et al. 2020, eq. 3-6), multi-scale mel loss (Kumar
    et al. 2023, 3.4).

    Args:
        sample_rate: rate of the audio in Hz.
        n_ffts: window sizes in samples.
        n_mels: highest number of mel bands; shorter windows have fewer.
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
        loss = wav.new_zeros(())
        for n_fft in self.n_ffts:
            output = self._magnitude(wav, n_fft)
            with torch.no_grad():
                reference = self._magnitude(target, n_fft)
            filters = getattr(self, f"filters_{n_fft}")
            mel = _log_l1(filters @ output, filters @ reference)
            log_magnitude = _log_l1(output, reference)
            error = torch.linalg.vector_norm(output - reference, dim=(1, 2))
            norm = torch.linalg.vector_norm(reference, dim=(1, 2)).clamp_min(1e-3)
            convergence = (error / norm).mean()
            loss = loss + 2.0 * mel + 0.5 * log_magnitude + 0.5 * convergence
        return loss / len(self.n_ffts)

    def _magnitude(self, wav: Tensor, n_fft: int) -> Tensor:
        window = getattr(self, f"window_{n_fft}")
        spectrum = torch.stft(
            wav, n_fft, n_fft // 4, window=window, return_complex=True, pad_mode="constant"
        )
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()


def _log_l1(output: Tensor, reference: Tensor) -> Tensor:
    return F.l1_loss(torch.log(output + _FLOOR), torch.log(reference + _FLOOR))
