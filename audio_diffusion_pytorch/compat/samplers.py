"""Schedules and samplers of the original system (Mancusi et al. 2025, arXiv 2409.06096)."""

from collections.abc import Callable

import torch
from torch import Tensor

from audio_diffusion_pytorch.diffusion.sampling import (
    ancestral_euler,
    ancestral_midpoint,
    append_zero,
    heun,
    karras_schedule,
    linear_schedule,
)


class KarrasSchedule:
    """Schedule of Karras et al. 2022, eq. 5.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        rho: spacing.
    """

    def __init__(self, sigma_min: float = 0.1, sigma_max: float = 100.0, rho: float = 7.0):
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.rho = rho

    def __call__(self, num_steps: int, device: torch.device | str | None = None) -> Tensor:
        """Return [num_steps + 1] sigmas, float32; the last one is 0."""
        sigmas = karras_schedule(self.sigma_min, self.sigma_max, self.rho, num_steps)
        return append_zero(sigmas).float().to(device)


class LinearSchedule:
    """Evenly spaced schedule from `start` towards 0, which is excluded."""

    def __init__(self, start: float = 1.0):
        self.start = start

    def __call__(self, num_steps: int, device: torch.device | str | None = None) -> Tensor:
        """Return [num_steps] sigmas, float32."""
        return linear_schedule(self.start, num_steps).float().to(device)


class KarrasSampler:
    """Sampler with num_steps - 1 Heun steps over the first `num_steps` sigmas, without the final 0.

    The original sets the churn to 0, so s_tmin, s_tmax, s_churn and s_noise have no effect.

    Args:
        s_tmin: without effect.
        s_tmax: without effect.
        s_churn: without effect.
        s_noise: without effect.
        bridge: use the input unchanged; False: multiply it by the first sigma.
    """

    def __init__(
        self,
        s_tmin: float = 0,
        s_tmax: float = float("inf"),
        s_churn: float = 0.0,
        s_noise: float = 1.0,
        bridge: bool = True,
    ):
        self.bridge = bridge

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        """Map noise [B, C, T] at `sigmas[0]` towards data."""
        x = noise if self.bridge else sigmas[0] * noise
        return heun(_by_name(fn), x, sigmas[:num_steps])


class KarrasSamplerReverse(KarrasSampler):
    """`KarrasSampler` in the opposite direction, from data to noise."""

    def __init__(
        self,
        s_tmin: float = 0,
        s_tmax: float = float("inf"),
        s_churn: float = 0.0,
        s_noise: float = 1.0,
    ):
        super().__init__(s_tmin, s_tmax, s_churn, s_noise)

    def __call__(self, x: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        """Map data x [B, C, T] to noise at `sigmas[0]`."""
        return heun(_by_name(fn), x, sigmas[:num_steps].flip(0))


class ADPM2Sampler:
    """`sampling.ancestral_midpoint` without its noise term.

    Args:
        bridge: use the input unchanged; False: multiply it by the first sigma.
        rho: see `sampling.ancestral_midpoint`.
    """

    def __init__(self, bridge: bool = False, rho: float = 1.0):
        self.bridge = bridge
        self.rho = rho

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        """Map noise [B, C, T] at `sigmas[0]` towards data."""
        x = noise if self.bridge else sigmas[0] * noise
        return ancestral_midpoint(_by_name(fn), x, sigmas[:num_steps], noise=None, rho=self.rho)


class AEulerSampler:
    """`sampling.ancestral_euler`, with the input multiplied by the first sigma."""

    def __call__(self, noise: Tensor, fn: Callable, sigmas: Tensor, num_steps: int) -> Tensor:
        """Map standard normal noise [B, C, T] towards data."""
        return ancestral_euler(_by_name(fn), sigmas[0] * noise, sigmas[:num_steps])


def _by_name(fn: Callable) -> Callable:
    return lambda x, sigma: fn(x, sigma=sigma)
