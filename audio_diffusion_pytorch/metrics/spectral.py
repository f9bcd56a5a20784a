"""Log-mel distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.melody import check_pair
from audio_diffusion_pytorch.utils.devices import exact_device

MEL_RATE, MEL_BANDS, MEL_FFT, MEL_HOP = 24000, 128, 1280, 320
MEL_FLOOR = 1e-4  # -80 dB re a sine at full scale


def log_mel_distance(a: Tensor, b: Tensor, sample_rate: int) -> Tensor:
    """Compute the mean absolute difference of log mel spectrograms; 1 is a factor of e, 8.7 dB.

    The spectrograms have 128 bands (24 kHz, n_fft 1280, hop 320). Levels below -80 dB re full scale
    count as -80 dB. The clips are not aligned in time.

    Args:
        a: mono clips [B, T].
        b: mono clips [B, T].
        sample_rate: rate of the clips in Hz.

    Returns:
        The distance of each pair [B], float32.

    Raises:
        InputError: the clips are empty, not [B, T], not finite, or differ in shape.
    """
    check_pair(a, b, sample_rate)
    if a.shape != b.shape:
        raise InputError(
            f"the clips must have one length, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return (_log_mel(a, sample_rate) - _log_mel(b, sample_rate)).abs().mean(dim=(1, 2))


def _log_mel(wav: Tensor, sample_rate: int) -> Tensor:
    """Compute log-mel spectrograms [B, 128, 1 + T // 320] of clips [B, T].

    A full-scale sine reaches about 0.
    """
    wav = resample(wav.to(exact_device(wav.device)).float(), sample_rate, MEL_RATE)
    window = torch.hann_window(MEL_FFT, device=wav.device)
    spectrum = torch.stft(
        wav, MEL_FFT, MEL_HOP, window=window, pad_mode="constant", return_complex=True
    ).abs()
    bands = melscale_fbanks(
        MEL_FFT // 2 + 1, 0.0, MEL_RATE / 2, MEL_BANDS, MEL_RATE, None, "slaney"
    ).to(wav.device)
    return ((bands.T @ spectrum) * (2 / window.sum())).clamp(min=MEL_FLOOR).log()
