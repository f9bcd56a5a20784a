"""The noise that the source's model hands to the target's, made like the noise that the target's model knows."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.bridge import Bridge


HANDOFFS = ("auto", "matched", "plain")
_BANDS = 2  # standard deviation of the Gaussian that smooths over neighbouring channels
_FRAMES = 16  # of sound at which a window's own statistics and the known ones count alike


def match(noise: Tensor, sounding: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Noise whose averages over time are those of the target's own recordings.

    A perfect model would take its instrument's latents to Gaussian noise, alike in every channel. A real one leaves
    some of the recording's average spectrum in it, most where the recording is unlike its training data, and the
    target's model then plays that. Here each channel is shifted and scaled to the mean and deviation that the
    target's recordings have as noise. A recording's own are those of its frames that sound, smoothed over neighbouring
    channels: single partials, the melody, stay.

    Args:
        noise: [B, D, L], of latents whose channels are neighbouring frequency bands.
        sounding: [B, L] 1 in the frames that hold sound, 0 in silence.
        mean, std: [D] of the target's recordings, at the noise's level.

    Returns:
        [B, D, L].
    """
    weights = sounding[:, None].to(noise)
    count = weights.sum(-1, keepdim=True) + _FRAMES
    mean, std = mean[:, None], std[:, None]
    own = _smooth(((noise * weights).sum(-1, keepdim=True) + _FRAMES * mean) / count)
    power = ((noise - own).square() * weights).sum(-1, keepdim=True) + _FRAMES * std.square()
    return (noise - own) * (std / _smooth(power / count).sqrt()) + mean


def interpolate_statistics(
    statistics: Mapping[str, Sequence], sigma: float
) -> tuple[Tensor, Tensor]:
    """What `noise_statistics` gave -> mean and standard deviation [D] at a noise level, between those measured."""
    levels = [math.log(level) for level in statistics["sigma"]]
    at = min(max(math.log(sigma), levels[0]), levels[-1])
    above = next(i for i, level in enumerate(levels) if level >= at - 1e-9)
    below = max(above - 1, 0)
    share = (at - levels[below]) / (levels[above] - levels[below]) if above > below else 0.0
    mean, relative = (torch.tensor(statistics[name]) for name in ("mean", "std"))
    mean, relative = (torch.lerp(x[below], x[above], share) for x in (mean, relative))
    return mean, relative * math.sqrt(sigma**2 + 1)


def _sums(bridge: "Bridge", wav: Tensor, sample_rate: int) -> Tensor:
    """Sounding frames of a recording, and over them sums of its noise and of the noise's squares: [3, D]."""
    encoded = bridge.encode(wav, sample_rate)
    sounding = torch.stack([window.sounding for window in encoded.windows])[:, None].double()
    noise = encoded.noise.cpu().double()
    sums = sounding.expand_as(noise), sounding * noise, sounding * noise.square()
    return torch.stack([x.sum((0, 2)) for x in sums])


def _smooth(x: Tensor) -> Tensor:
    """Gaussian average over neighbouring channels of [B, D, 1]; at the edges of those that are there."""
    offsets = torch.arange(-3 * _BANDS, 3 * _BANDS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / _BANDS) ** 2)[None, None]
    x = x.transpose(1, 2)
    pad = kernel.shape[-1] // 2
    return (
        F.conv1d(x, kernel, padding=pad) / F.conv1d(torch.ones_like(x), kernel, padding=pad)
    ).transpose(1, 2)
