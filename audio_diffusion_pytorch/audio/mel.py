"""Log-mel spectrograms."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LogMel(nn.Module):
    """Compute log-mel spectrograms: wav [B, T] -> ln(mel + floor) [B, n_mels, T / hop_length].

    T is a multiple of hop_length. A full-scale sine has a spectral peak of 1.

    Args:
        sample_rate: in Hz.
        n_fft: length of the window in samples.
        hop_length: samples per frame.
        n_mels: number of bands.
        f_min: lower edge of the lowest band in Hz.
        floor: amplitude that is added before the logarithm.
        f_max: upper edge of the highest band in Hz; None: half of the rate.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        floor: float,
        f_max: float | None = None,
    ):
        super().__init__()
        self.window: Tensor
        self.filters: Tensor
        from torchaudio.functional import melscale_fbanks

        self.n_fft, self.hop_length, self.floor = n_fft, hop_length, floor
        window = torch.hann_window(n_fft)
        filters = melscale_fbanks(
            n_fft // 2 + 1, f_min, f_max or sample_rate / 2, n_mels, sample_rate
        )
        self.register_buffer("window", window / window.sum() * 2, persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the spectrogram [B, n_mels, T / hop_length] of wav [B, T]."""
        with torch.autocast(wav.device.type, enabled=False):
            # Frame i is centred on the middle of hop i, so L = T / hop and decoding needs no shift.
            wav = F.pad(wav.float(), ((self.n_fft - self.hop_length) // 2,) * 2)
            spectrum = torch.stft(
                wav,
                self.n_fft,
                self.hop_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            return torch.log(self.filters @ spectrum.abs() + self.floor)
