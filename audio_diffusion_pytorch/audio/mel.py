"""Log-mel spectrograms."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LogMel(nn.Module):
    """wav [B, T] -> ln(mel + floor) [B, n_mels, T / hop_length]; T a multiple of hop_length.

    Amplitudes are scaled so that a full-scale sine has a spectral peak of 1.
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
        with torch.autocast(wav.device.type, enabled=False):
            # Frame i is centred on hop i's middle, so that L = T / hop and decoding needs no shift.
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
