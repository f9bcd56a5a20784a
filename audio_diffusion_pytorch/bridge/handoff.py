"""Hand-off: match the source's noise to the noise statistics of the target's own recordings."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

HANDOFFS = ("auto", "matched", "plain")
_BANDS = 2  # standard deviation, in channels, of the Gaussian that smooths the statistics
_FRAMES = 16  # active frames at which a window's own statistics and the target's weigh the same


def match_moments(noise: Tensor, active: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Match the mean and standard deviation of each channel to those of the target's recordings.

    A perfect model maps latents of its instrument to Gaussian noise with equal statistics in every
    channel. A real model leaves part of the recording's average spectrum in the noise, most for
    recordings unlike its training data, and the target model plays that remainder. Matching removes
    it. The window's own statistics cover its active frames and are smoothed over neighbouring
    channels, so single partials, and with them the melody, stay.

    Args:
        noise: [B, D, L], of latents whose channels are neighbouring frequency bands.
        active: [B, L] 1 in frames with sound, 0 in silence.
        mean: [D] of the target's recordings at the noise level of `noise`.
        std: [D] likewise.

    Returns:
        [B, D, L].
    """
    weights = active[:, None].to(noise)
    count = weights.sum(-1, keepdim=True) + _FRAMES
    mean, std = mean[:, None], std[:, None]
    own = _smooth(((noise * weights).sum(-1, keepdim=True) + _FRAMES * mean) / count)
    power = ((noise - own).square() * weights).sum(-1, keepdim=True) + _FRAMES * std.square()
    return (noise - own) * (std / _smooth(power / count).sqrt()) + mean


def interpolate_statistics(
    statistics: Mapping[str, Sequence], sigma: float
) -> tuple[Tensor, Tensor]:
    """Interpolate measured noise statistics at `sigma`.

    Args:
        statistics: output of `noise_statistics`.
        sigma: noise level; levels outside the measured ones use the nearest.

    Returns:
        Mean [D] and standard deviation [D].
    """
    levels = [math.log(level) for level in statistics["sigma"]]
    at = min(max(math.log(sigma), levels[0]), levels[-1])
    above = next(i for i, level in enumerate(levels) if level >= at - 1e-9)
    below = max(above - 1, 0)
    share = (at - levels[below]) / (levels[above] - levels[below]) if above > below else 0.0
    mean, relative = (torch.tensor(statistics[name]) for name in ("mean", "std"))
    mean, relative = (torch.lerp(x[below], x[above], share) for x in (mean, relative))
    return mean, relative * math.sqrt(sigma**2 + 1)


def _smooth(x: Tensor) -> Tensor:
    """Average [B, D, 1] over neighbouring channels with a Gaussian, normalised at the edges."""
    offsets = torch.arange(-3 * _BANDS, 3 * _BANDS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / _BANDS) ** 2)[None, None]
    x = x.transpose(1, 2)
    pad = kernel.shape[-1] // 2
    total = F.conv1d(torch.ones_like(x), kernel, padding=pad)
    return (F.conv1d(x, kernel, padding=pad) / total).transpose(1, 2)
