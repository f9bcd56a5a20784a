"""Log-mel distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.melody import _check_pair
from audio_diffusion_pytorch.utils.devices import exact_device

MEL_RATE, MEL_BANDS, MEL_FFT, MEL_HOP = 24000, 128, 1280, 320
MEL_FLOOR = 1e-4  # -80 dB re a sine at full scale


def log_mel_distance(a: Tensor, b: Tensor, sample_rate: int) -> Tensor:
    """Mean absolute difference of natural-log mel spectrograms, [B] float32.

    a, b [B, T] mono at sample_rate, compared at 24 kHz (128 bands, n_fft 1280, hop 320) as they lie, with no search for
    a time lag; levels below -80 dB re full scale count as -80 dB. 1 is a factor of e, 8.7 dB.

    Raises:
        InputError: audio that is empty, not [B, T], not finite, or of different shapes.
    """
    _check_pair(a, b, sample_rate)
    if a.shape != b.shape:
        raise InputError(
            f"the clips must have one length, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return (_log_mel(a, sample_rate) - _log_mel(b, sample_rate)).abs().mean(dim=(1, 2))


def _log_mel(wav: Tensor, sample_rate: int) -> Tensor:
    """[B, T] -> [B, 128, 1 + T // 320]: a sine at full scale reaches about 0."""
    wav = resample(wav.to(exact_device(wav.device)).float(), sample_rate, MEL_RATE)
    window = torch.hann_window(MEL_FFT, device=wav.device)
    spectrum = torch.stft(
        wav, MEL_FFT, MEL_HOP, window=window, pad_mode="constant", return_complex=True
    ).abs()
    bands = melscale_fbanks(
        MEL_FFT // 2 + 1, 0.0, MEL_RATE / 2, MEL_BANDS, MEL_RATE, None, "slaney"
    ).to(wav.device)
    return ((bands.T @ spectrum) * (2 / window.sum())).clamp(min=MEL_FLOOR).log()
