"""Noise schedules and solvers of the probability-flow ODE: functions of (denoise, x, sigmas).

The ODE is dx/dsigma = (x - D(x; sigma)) / sigma (Karras et al. 2022, eq. 1 and 3, sigma(t) = t). Every solver goes
from the first sigma to the last: rising sigmas take data to noise, falling ones take noise to data. D is `denoise`,
a function of x [B, ...] and sigma [B]. The last sigma may be 0, where D is never evaluated.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int], None]


def karras_schedule(sigma_min: float, sigma_max: float, rho: float, num_steps: int) -> Tensor:
    """`num_steps` noise levels from sigma_max down to sigma_min, no final 0 (Karras et al. 2022, eq. 5).

    Returns:
        [num_steps], float64.

    Raises:
        ValueError: not 0 < sigma_min < sigma_max, rho not positive, or fewer than 2 steps.
    """
    if not (0 < sigma_min < sigma_max and rho > 0 and num_steps >= 2):
        raise ValueError(
            "need 0 < sigma_min < sigma_max, rho > 0 and num_steps >= 2, got "
            f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}, num_steps={num_steps}"
        )
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (start + ramp * (end - start)) ** rho


def linear_schedule(sigma_max: float, num_steps: int) -> Tensor:
    """`num_steps` noise levels, evenly spaced from sigma_max towards 0, which is left out.

    Returns:
        [num_steps], float64.

    Raises:
        ValueError: sigma_max not positive, or fewer than 2 steps.
    """
    if not (sigma_max > 0 and num_steps >= 2):
        raise ValueError(f"need sigma_max > 0 and num_steps >= 2, got sigma_max={sigma_max}, num_steps={num_steps}")
    return torch.linspace(sigma_max, 0, num_steps + 1, dtype=torch.float64)[:-1]


def append_zero(sigmas: Tensor) -> Tensor:
    """[N] -> [N + 1] with a final 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@torch.no_grad()
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Euler steps, order 1, one call of `denoise` each (Karras et al. 2022, algorithm 1 without lines 6 to 8).

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        x: [B, ...], at the noise level `sigmas[0]`.
        sigmas: [N], strictly rising or falling, positive (the last may be 0); N - 1 steps.
        callback: called as callback(steps done, N - 1) after each step.

    Returns:
        [B, ...], at the noise level `sigmas[-1]`.

    Raises:
        ValueError: sigmas as above are not given.
    """
    steps = _steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, _batch(sigma, x))) / sigma
        x = x + (sigma_next - sigma) * slope
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Heun steps, order 2, two calls of `denoise` each, one for a step to 0 (Karras et al. 2022, algorithm 1).

    Arguments, result and errors are those of `euler`.
    """
    steps = _steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, _batch(sigma, x))) / sigma
        x_next = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope_next = (x_next - denoise(x_next, _batch(sigma_next, x))) / sigma_next
            x_next = x + (sigma_next - sigma) * (slope + slope_next) / 2
        x = x_next
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """DPM-Solver++(2M), order 2, one call of `denoise` each step (Lu et al. 2022, DPM-Solver++, algorithm 2).

    In their terms alpha = 1 and lambda = -ln(sigma): x is carried over exactly, and D, extrapolated from the last two
    calls, is integrated over lambda. Nothing in this asks for the sign of a step, so rising sigmas will do as well. The
    first step and one to 0 are of order 1.

    Arguments, result and errors are those of `euler`.
    """
    steps = _steps(sigmas)
    denoised_last, ratio_last = None, None
    for i, (sigma, sigma_next) in enumerate(steps):
        denoised = target = denoise(x, _batch(sigma, x))
        ratio = sigma_next / sigma  # exp(-h)
        if denoised_last is not None and sigma_next > 0:
            weight = math.log(ratio) / math.log(ratio_last) / 2  # 1 / 2r, r = h_last / h
            target = denoised + weight * (denoised - denoised_last)
        x = ratio * x + (1 - ratio) * target
        denoised_last, ratio_last = denoised, ratio
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def ancestral_euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    noise: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Euler steps to below the next noise level, then fresh noise up to it: a sampler of the reverse SDE.

    A step from s to n goes to n^2 / s and adds noise of variance n^2 (1 - n^2 / s^2), as the ancestral sampling of
    DDPM does (Ho et al. 2020, eq. 6 and 7).

    Arguments, result and errors are those of `euler`, but sigmas fall; `noise` gives standard normal values like x.
    """
    steps = _falling_steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, _batch(sigma, x))) / sigma
        x = x + (sigma_next**2 / sigma - sigma) * slope
        if sigma_next > 0:
            x = x + noise(x) * (sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def ancestral_midpoint(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    noise: Callable[[Tensor], Tensor] | None = torch.randn_like,
    rho: float = 1.0,
) -> Tensor:
    """`ancestral_euler` with midpoint steps, two calls of `denoise` each.

    The midpoint of s and n^2 / s is taken in sigma^(1 / rho). `noise` None adds none, though steps still end below
    their noise level: that is the original's ADPM2Sampler, which smooths; `heun` solves the ODE.

    Arguments, result and errors are those of `ancestral_euler`.
    """
    steps = _falling_steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        sigma_down = sigma_next**2 / sigma
        sigma_mid = ((sigma ** (1 / rho) + sigma_down ** (1 / rho)) / 2) ** rho
        x_mid = x + (sigma_mid - sigma) * (x - denoise(x, _batch(sigma, x))) / sigma
        slope = (x_mid - denoise(x_mid, _batch(sigma_mid, x))) / sigma_mid
        x = x + (sigma_down - sigma) * slope
        if noise is not None and sigma_next > 0:
            x = x + noise(x) * (sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
        if callback is not None:
            callback(i + 1, len(steps))
    return x


# Those that solve the ODE, both ways: what a bridge is made of.
SOLVERS = {"heun": heun, "euler": euler, "dpmpp_2m": dpmpp_2m}


def _steps(sigmas: Tensor) -> list[tuple[float, float]]:
    """Pairs (sigma, sigma_next), checked; one transfer from the device, none later."""
    values = sigmas.tolist()
    steps = list(itertools.pairwise(values))
    if not steps or not all(math.isfinite(v) for v in values) or min(values[:-1]) <= 0 or values[-1] < 0:
        raise ValueError(f"sigmas must be 2 or more, finite and positive (the last may be 0), got {values}")
    if not (all(a < b for a, b in steps) or all(a > b for a, b in steps)):
        raise ValueError(f"sigmas must strictly rise or strictly fall, got {values}")
    return steps


def _falling_steps(sigmas: Tensor) -> list[tuple[float, float]]:
    steps = _steps(sigmas)
    if steps[0][0] < steps[0][1]:
        raise ValueError(f"ancestral steps go from noise to data: sigmas must fall, got {sigmas.tolist()}")
    return steps


def _batch(sigma: float, x: Tensor) -> Tensor:
    """The same sigma for every sample of x: [B], at least single precision."""
    return torch.full((x.shape[0],), sigma, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
