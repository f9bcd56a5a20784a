"""Keep vibrato: straighten the pitch of a recording before the models, and bend the output's.

The models blur the partials of notes with vibrato. Without vibrato they play steady notes, which
then receive the vibrato of the recording. Both directions are changes of speed that last less than
a period of vibrato, so no sample moves by more than about two milliseconds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import convolve1d, map_coordinates, uniform_filter1d
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.pitch.melody_input import CHANNELS_PER_OCTAVE

CENTS_PER_CHANNEL = 1200 / CHANNELS_PER_OCTAVE
VOICED = 0.3  # posterior from which a frame has a pitch
NEAR = 2  # channels around the strongest one whose mean is the pitch
JUMP = 80.0  # cents from frame to frame at which another note begins
CENTRE = 0.31  # seconds of a moving average, around which the pitch moves
LARGEST = 60.0  # cents
FOUND = 0.83  # share of a vibrato's extent that the melody shows above D3; less below
SETTLED = 0.3  # seconds of each of two moving averages to which the time returns
SPLINE = 5  # order: its error is below -80 dB up to 4 kHz


def bend_of(melody: Tensor, frame_seconds: float) -> Tensor:
    """Return the vibrato in cents [L], 0 where there is none.

    It is the movement of a note's pitch around its mean, if a sinusoid explains half of it.

    Args:
        melody: pitch posteriors of one window [M, L], see `melody_input`.
        frame_seconds: seconds of a frame.
    """
    from audio_diffusion_pytorch.metrics.pitch_tracks import SHORTEST_NOTE, fit_vibrato

    strongest = melody.argmax(0)
    near = (strongest + torch.arange(-NEAR, NEAR + 1)[:, None]).clamp(0, len(melody) - 1)
    weights = melody.gather(0, near)
    pitch = (weights * near).sum(0) / weights.sum(0).clamp_min(1e-6) * CENTS_PER_CHANNEL
    cents = pitch.double().numpy()
    voiced = (melody.amax(0) > VOICED).numpy()
    starts = ~voiced[1:] | ~voiced[:-1] | (np.abs(np.diff(cents)) > JUMP)
    bend = np.zeros(len(cents))
    kernel = np.hanning(2 * (round(CENTRE / frame_seconds) // 2) + 3)[1:-1]
    kernel /= kernel.sum()
    for frames in np.split(np.arange(len(cents)), np.flatnonzero(starts) + 1):
        note = cents[frames]
        if len(frames) * frame_seconds < SHORTEST_NOTE or not voiced[frames[0]]:
            continue
        if fit_vibrato(note, frame_seconds) is not None:
            movement = note - convolve1d(note, kernel, mode="mirror")
            bend[frames] = (movement / FOUND).clip(-LARGEST, LARGEST)
    return torch.from_numpy(convolve1d(bend, [0.25, 0.5, 0.25], mode="constant")).float()


def straighten(window: Window, melody: Tensor, sample_rate: int) -> tuple[Window, Tensor]:
    """Remove the vibrato of a window, and remember it for `bend`.

    Args:
        window: the window.
        melody: its pitch posteriors [M + 1, L], see `drop_unpitched`.
        sample_rate: rate of its sound in Hz.

    Returns:
        The window and its melody without vibrato.
    """
    pitches = melody[:-1].cpu()
    hop = window.wav.shape[-1] // pitches.shape[-1]
    cents = bend_of(pitches, hop / sample_rate)
    if not cents.any():
        return window, melody
    straight = replace(window, wav=_straight(window.wav, cents, sample_rate), bend=cents)
    moved = torch.cat([_shifted(pitches, cents / CENTS_PER_CHANNEL), melody[-1:].cpu()])
    return straight, moved.to(melody.device)


def bend(wav: Tensor, cents: Tensor, sample_rate: int) -> Tensor:
    """Give sound the vibrato that `straighten` removed.

    Args:
        wav: [C, samples].
        cents: movement of the pitch in each frame [C, L].
        sample_rate: in Hz.

    Returns:
        [C, samples].
    """
    if not cents.any():
        return wav
    moved = _displacement(cents, wav.shape[-1], sample_rate) + np.arange(wav.shape[-1])
    return torch.stack([_read(one, by) for one, by in zip(wav, moved, strict=True)])


def _straight(wav: Tensor, cents: Tensor, sample_rate: int) -> Tensor:
    """Invert `bend` for sound [samples] and cents [L]."""
    times = np.arange(len(wav))
    moved = _displacement(cents[None], len(wav), sample_rate)[0]
    return _read(wav, times - map_coordinates(moved, [times - moved], order=1, mode="nearest"))


def _displacement(cents: Tensor, length: int, sample_rate: int) -> np.ndarray:
    """Return by how many samples [C, length] the sound moves, for the cents [C, L] of its frames.

    It is the sum of the changes of speed, around its mean. It depends on the cents of `SETTLED`
    seconds on both sides only, so blocks with context have no seams.
    """
    smooth = F.interpolate(cents[:, None], size=length, mode="linear")[:, 0]
    moved = np.cumsum(2 ** (smooth.double().numpy() / 1200) - 1, axis=-1)
    mean = moved
    for _ in range(2):
        mean = uniform_filter1d(mean, round(SETTLED * sample_rate), axis=-1, mode="nearest")
    return moved - mean


def _read(wav: Tensor, positions: np.ndarray) -> Tensor:
    """Read sound [samples] at positions between its samples; silence lies around it."""
    return torch.from_numpy(map_coordinates(wav.numpy(), [positions], order=SPLINE))


def _shifted(pitches: Tensor, channels: Tensor) -> Tensor:
    """Move posteriors [M, L] down by channels [L], interpolated linearly."""
    wanted = torch.arange(len(pitches))[:, None] + channels
    below = wanted.floor()
    share = wanted - below
    low, high = ((below.long() + step).clamp(0, len(pitches) - 1) for step in (0, 1))
    return torch.lerp(pitches.gather(0, low), pitches.gather(0, high), share)
