"""Compare the level of two sounds over time."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 0.050  # seconds of sound for one level
_RANGE = 60.0  # dB below the loudest block of a sound: lower levels count as this level


def level_envelope(wav: Tensor, sample_rate: int) -> Tensor:
    """Return the RMS of each 50 ms of wav [T] in dB: [ceil(T / 50 ms)]."""
    size = round(BLOCK * sample_rate)
    blocks = F.pad(wav.double(), (0, -len(wav) % size)).unflatten(0, (-1, size))
    level = 10 * blocks.square().mean(1).clamp_min(1e-12).log10()
    return level.clamp_min(float(level.max()) - _RANGE)


def level_correlation(a: Tensor, b: Tensor, sample_rate: int) -> float:
    """Return Pearson's correlation of the level envelopes of two sounds.

    Args:
        a: sound [T].
        b: sound [T].
        sample_rate: rate of both in Hz.

    Returns:
        The correlation, from -1 to 1; NaN if a level is constant.
    """
    levels = torch.stack([level_envelope(wav, sample_rate) for wav in (a, b)])
    if min(levels.amax(1) - levels.amin(1)) < 1e-6:
        return math.nan
    return float(torch.corrcoef(levels)[0, 1])
