"""The noise that the source's model hands to the target's, made what the target's model expects noise to be."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

HANDOFFS = ("auto", "standard", "plain")
_BANDS = 4  # standard deviation of the Gaussian that smooths over neighbouring channels
_FRAMES = 16  # of sound at which a window's own statistics and those of perfect noise count alike


def standardise(noise: Tensor, sounding: Tensor, sigma: float, sigma_data: float = 1.0) -> Tensor:
    """Noise whose average over time says nothing about the instrument that it comes from.

    A perfect model would take its instrument's latents to Gaussian noise, with mean 0 and standard deviation
    sqrt(sigma^2 + sigma_data^2) in every channel. A real one leaves some of the recording's average spectrum in it,
    most where the recording is unlike its training data, and the target's model then plays that. Here each channel is
    shifted and scaled to what it would be. Mean and deviation are those of the frames that sound, and smooth over
    neighbouring channels: single partials, the melody, stay.

    Args:
        noise: [B, D, L] at the level sigma, of latents whose channels are neighbouring frequency bands.
        sounding: [B, L] 1 in the frames that hold sound, 0 in silence.
        sigma: noise level.
        sigma_data: standard deviation of the normalised latents.

    Returns:
        [B, D, L].
    """
    weights = sounding[:, None].to(noise)
    count = weights.sum(-1, keepdim=True)
    mean = _smooth((noise * weights).sum(-1, keepdim=True) / (count + _FRAMES))
    expected = sigma**2 + sigma_data**2
    power = ((noise - mean).square() * weights).sum(-1, keepdim=True) + _FRAMES * expected
    return (noise - mean) * (math.sqrt(expected) / _smooth(power / (count + _FRAMES)).sqrt())


def _smooth(x: Tensor) -> Tensor:
    """Gaussian average over neighbouring channels of [B, D, 1]; at the edges of those that are there."""
    offsets = torch.arange(-3 * _BANDS, 3 * _BANDS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / _BANDS) ** 2)[None, None]
    x = x.transpose(1, 2)
    pad = kernel.shape[-1] // 2
    return (F.conv1d(x, kernel, padding=pad) / F.conv1d(torch.ones_like(x), kernel, padding=pad)).transpose(1, 2)
