"""Melody input of the networks: posteriors of the pitches, at the frame rate of the latents."""

from __future__ import annotations

import torch
from basic_pitch_torch import SAMPLE_RATE
from basic_pitch_torch.model import CONTOUR_BINS, HOP
from torch import Tensor

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.pitch.tracker import _tracker, frame_seconds
from audio_diffusion_pytorch.utils.devices import exact_device

MELODY_CHANNELS = CONTOUR_BINS  # three for each semitone from A0 upwards
CHANNELS_PER_OCTAVE = 36
PIECE = 4.0  # seconds of a clip that passes through Basic Pitch in one piece
PITCHED = 0.5  # posterior that a pitch reaches: noise and drums stay below 0.4, notes exceed 0.8


@torch.no_grad()
def melody_input(wav: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """Compute the pitch posteriors of each latent frame.

    The contour of Basic Pitch (Bittner et al. 2022) is trained on many instruments, so it tells
    little about the timbre. Its frames are interpolated linearly to the centres of the latents'.
    Short clips, such as the windows of a bridge, pass through it in one piece: its own windows
    overlap, cost twice as much, and find almost the same pitches.

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
    padded = resample(padded, sample_rate, SAMPLE_RATE)
    if padded.shape[-1] <= PIECE * SAMPLE_RATE:
        posteriors = model(padded, until="contour")["contour"]
        given = torch.arange(posteriors.shape[1]) * (HOP / SAMPLE_RATE)
    else:
        posteriors = model.predict(padded, until="contour")["contour"]
        given = torch.from_numpy(frame_seconds(posteriors.shape[1])).float()
    wanted = (torch.arange(frames) + 0.5) * (hop_length / sample_rate)
    after = torch.searchsorted(given, wanted).clamp(1, len(given) - 1)
    share = ((wanted - given[after - 1]) / (given[after] - given[after - 1])).clamp(0, 1)
    after, share = after.to(wav.device), share.to(wav.device)[:, None]
    return torch.lerp(posteriors[:, after - 1], posteriors[:, after], share).transpose(1, 2)


def move_melody(melody: Tensor, octaves: int) -> Tensor:
    """Move a melody [M, L] by octaves; pitches beyond the ends are lost."""
    channels = CHANNELS_PER_OCTAVE * octaves
    moved = melody.roll(channels, 0)
    lost = slice(channels) if octaves > 0 else slice(len(melody) + channels, None)
    moved[lost] = 0
    return moved


def drop_melody(melody: Tensor, dropped: Tensor) -> Tensor:
    """Set the melody of some samples to 0.

    Args:
        melody: melody [B, M, L].
        dropped: whether to drop the melody of each sample [B].

    Returns:
        [B, M + 1, L]; the last channel is 0 where the melody is dropped and 1 elsewhere.
    """
    given = (~dropped).to(melody.dtype)[:, None, None]
    return torch.cat([melody * given, given.expand_as(melody[:, :1])], dim=1)


def drop_unpitched(melody: Tensor) -> Tensor:
    """Drop the melody of clips without a pitch, such as noise and drums.

    Args:
        melody: melody [B, M, L].

    Returns:
        [B, M + 1, L], see `drop_melody`.
    """
    return drop_melody(melody, melody.amax((1, 2)) < PITCHED)
