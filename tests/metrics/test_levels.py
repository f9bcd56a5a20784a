"""The correlation of levels finds the same dynamics in other sounds."""

import math

import pytest
import torch

from audio_diffusion_pytorch.metrics.levels import level_correlation, level_envelope

RATE = 24000


def noise(decibels: torch.Tensor, seed: int) -> torch.Tensor:
    """Noise with a level for each 50 ms."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(len(decibels), 1200, generator=generator)
        .mul(10 ** (decibels[:, None] / 20))
        .flatten()
    )


def test_levels_are_those_of_each_block():
    levels = torch.tensor([-10.0, -30.0, -20.0, -90.0])
    # The power of 1,200 random numbers scatters by sqrt(2 / 1200) = 4 %, 0.18 dB.
    expected = pytest.approx([-10, -30, -20, -70], abs=0.7)
    assert level_envelope(noise(levels, 0), RATE).tolist() == expected
    assert len(level_envelope(torch.ones(1201), RATE)) == 2


def test_other_sounds_of_the_same_dynamics_correlate():
    levels = -20 + 15 * torch.sin(torch.arange(100) / 5)
    given, same, flat = (noise(x, i) for i, x in enumerate((levels, levels - 20, levels * 0 - 20)))
    assert level_correlation(given, given, RATE) == pytest.approx(1)
    assert level_correlation(given, same, RATE) > 0.99
    # Of 100 blocks without common dynamics: a standard deviation of 0.1.
    assert abs(level_correlation(given, flat, RATE)) < 0.4
    assert level_correlation(given, noise(-40 - levels, 3), RATE) < -0.99


def test_silence_has_no_correlation():
    wav = noise(-20 * torch.rand(10), 0)
    assert math.isnan(level_correlation(wav, torch.zeros(len(wav)), RATE))
