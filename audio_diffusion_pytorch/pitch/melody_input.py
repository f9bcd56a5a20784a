"""Melody input of the networks: posteriors of the pitches, at the frame rate of the latents."""

from __future__ import annotations

import torch
from basic_pitch_torch import SAMPLE_RATE
from basic_pitch_torch.model import CONTOUR_BINS
from torch import Tensor

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.pitch.tracker import _tracker, frame_seconds
from audio_diffusion_pytorch.utils.devices import exact_device

MELODY_CHANNELS = CONTOUR_BINS  # three for each semitone from A0 upwards


@torch.no_grad()
def melody_input(wav: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """Compute the pitch posteriors of each latent frame.

    The contour of Basic Pitch (Bittner et al. 2022) is trained on many instruments, so it tells
    little about the timbre. Its frames are interpolated linearly to the centres of the latents'.

    Args:
        wav: mono clips [B, T].
        sample_rate: sample rate in Hz.
        hop_length: samples of one latent frame.

    Returns:
        [B, MELODY_CHANNELS, ceil(T / hop_length)], from 0 to 1, on the device of wav.
    """
    frames = -(-wav.shape[-1] // hop_length)
    model = _tracker(exact_device(wav.device))
    # 0.1 s of silence after the sound, because the tracker drops incomplete frames at the end.
    padded = torch.nn.functional.pad(wav.float(), (0, sample_rate // 10))
    contour = model.predict(resample(padded, sample_rate, SAMPLE_RATE), contour_only=True)
    posteriors = contour["contour"]
    given = torch.from_numpy(frame_seconds(posteriors.shape[1])).float()
    wanted = (torch.arange(frames) + 0.5) * (hop_length / sample_rate)
    after = torch.searchsorted(given, wanted).clamp(1, len(given) - 1)
    share = ((wanted - given[after - 1]) / (given[after] - given[after - 1])).clamp(0, 1)
    after, share = after.to(wav.device), share.to(wav.device)[:, None]
    return torch.lerp(posteriors[:, after - 1], posteriors[:, after], share).transpose(1, 2)
