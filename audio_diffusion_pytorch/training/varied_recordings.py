"""Varied copies of recordings: other rooms and microphones, and double stops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from audio_diffusion_pytorch.audio import to_mono
from audio_diffusion_pytorch.bridge.fit_windows import Recording
from audio_diffusion_pytorch.data.augment import RecordingAugment

SOFTER = (6.0, 20.0)  # dB by which the second voice is softer than the first


def vary(
    recordings: Sequence[Recording],
    augment: RecordingAugment,
    second_voice: float,
    rng: np.random.Generator,
) -> list[Recording]:
    """Make a varied copy of each recording, with one channel.

    Args:
        recordings: recordings of one instrument.
        augment: variation of level, tuning, tone, room and noise floor.
        second_voice: share of the copies with a second, softer recording among `recordings`.
        rng: source of all random numbers.
    """
    copies = []
    for recording in recordings:
        wav = to_mono(recording.wav).numpy()
        other = recordings[rng.integers(len(recordings))]
        if rng.random() < second_voice and other.sample_rate == recording.sample_rate:
            second = to_mono(other.wav).numpy()[:, : wav.shape[-1]]
            softer = 10 ** (-rng.uniform(*SOFTER) / 20) * _rms(wav) / max(_rms(second), 1e-9)
            wav = wav + softer * np.pad(second, ((0, 0), (0, wav.shape[-1] - second.shape[-1])))
        length = wav.shape[-1] - augment.margin(wav.shape[-1])
        if length > 0:
            varied = augment(wav, length, recording.sample_rate, rng)
            copies.append(Recording(torch.from_numpy(varied), recording.sample_rate))
    return copies


def _rms(wav: np.ndarray) -> float:
    return float(np.sqrt(np.square(wav).mean()))
