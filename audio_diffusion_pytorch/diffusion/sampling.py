"""Noise schedules and solvers of the probability-flow ODE: functions of (denoise, x, sigmas).

The ODE is dx/dsigma = (x - D(x; sigma)) / sigma (Karras et al. 2022, eq. 1 and 3, sigma(t) = t).
Each solver integrates from the first sigma to the last: increasing sigmas map data to noise,
decreasing sigmas map noise to data. D is `denoise`, a function of x [B, ...] and sigma [B]. The
last sigma may be 0; D is never evaluated there.
"""

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from audio_diffusion_pytorch.utils.registry import Registry

Denoise = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, int], None]
Solver = Callable[..., Tensor]  # (denoise, x, sigmas, callback=None) -> x


def karras_schedule(sigma_min: float, sigma_max: float, rho: float, num_steps: int) -> Tensor:
    """Compute `num_steps` noise levels from sigma_max down to sigma_min, without a final 0.

    Source: Karras et al. 2022, eq. 5.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        rho: spacing; higher values concentrate steps at low noise levels.
        num_steps: number of noise levels.

    Returns:
        [num_steps], float64.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max, rho > 0 and num_steps >= 2.
    """
    if not (0 < sigma_min < sigma_max and rho > 0 and num_steps >= 2):
        raise ValueError(
            "need 0 < sigma_min < sigma_max, rho > 0 and num_steps >= 2, got "
            f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}, num_steps={num_steps}"
        )
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    start = sigma_max ** (1 / rho)
    end = sigma_min ** (1 / rho)
    return (start + ramp * (end - start)) ** rho


def linear_schedule(sigma_max: float, num_steps: int) -> Tensor:
    """Compute `num_steps` evenly spaced noise levels from sigma_max towards 0, which is excluded.

    Args:
        sigma_max: highest noise level.
        num_steps: number of noise levels.

    Returns:
        [num_steps], float64.

    Raises:
        ValueError: unless sigma_max > 0 and num_steps >= 2.
    """
    if not (sigma_max > 0 and num_steps >= 2):
        raise ValueError(
            f"need sigma_max > 0 and num_steps >= 2, got sigma_max={sigma_max}, "
            f"num_steps={num_steps}"
        )
    return torch.linspace(sigma_max, 0, num_steps + 1, dtype=torch.float64)[:-1]


def append_zero(sigmas: Tensor) -> Tensor:
    """Append a final 0 to sigmas [N]."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@torch.no_grad()
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Solve the ODE by Euler steps: order 1, one call of `denoise` each.

    Source: Karras et al. 2022, algorithm 1, lines 3 to 5.

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        x: [B, ...] at the noise level `sigmas[0]`.
        sigmas: [N], strictly increasing or decreasing, positive (the last may be 0); N - 1 steps.
        callback: called as callback(finished steps, N - 1) after each step.

    Returns:
        [B, ...] at the noise level `sigmas[-1]`.

    Raises:
        ValueError: the sigmas violate these conditions.
    """
    steps = steps_of(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, batch_sigma(sigma, x))) / sigma
        x = x + (sigma_next - sigma) * slope
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Solve the ODE by Heun steps: order 2, two calls of `denoise` each.

    Source: Karras et al. 2022, algorithm 1.

    A step to 0 is an Euler step. Arguments, result and errors as in `euler`.
    """
    steps = steps_of(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, batch_sigma(sigma, x))) / sigma
        x_next = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope_next = (x_next - denoise(x_next, batch_sigma(sigma_next, x))) / sigma_next
            x_next = x + (sigma_next - sigma) * (slope + slope_next) / 2
        x = x_next
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None
) -> Tensor:
    """Solve the ODE by DPM-Solver++(2M): order 2, one call of `denoise` each step.

    Source: Lu et al. 2022, algorithm 2.

    In the notation of the paper alpha = 1 and lambda = -ln(sigma): the linear part is exact, and D,
    extrapolated from the last two calls, is integrated over lambda. The derivation does not depend
    on the sign of a step, so it holds for increasing sigmas, too. The first step and a step to 0
    have order 1.

    Arguments, result and errors as in `euler`.
    """
    steps = steps_of(sigmas)
    denoised_last: Tensor | None = None
    ratio_last = 1.0
    for i, (sigma, sigma_next) in enumerate(steps):
        denoised = target = denoise(x, batch_sigma(sigma, x))
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
def dpmpp_3m(
    denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None
) -> Tensor:
    """Solve the ODE by a multistep exponential integrator: order 3, one call of `denoise` a step.

    Source: Lu et al. 2022.

    Unlike in `dpmpp_2m`, D is the parabola in lambda through the last three calls, integrated
    exactly. The first two steps have orders 1 and 2, a step to 0 has order 1.

    Arguments, result and errors as in `euler`.
    """
    return _multistep(denoise, x, sigmas, 3, False, callback)


@torch.no_grad()
def unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Solve the ODE by a predictor-corrector: order 4, one call of `denoise` each step.

    Source: UniPC-3 (Zhao et al. 2023). The predictor is `dpmpp_3m`. The corrector of order 4
        repeats each step with D at its end point, which the next step
    evaluates anyway, so the corrector costs no call. The last step is not corrected, because D is
    not evaluated at its end. The weights integrate the polynomial exactly, so B(h) of the paper is
    not needed.

    Arguments, result and errors as in `euler`.
    """
    return _multistep(denoise, x, sigmas, 3, True, callback)


def _multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    order: int,
    correct: bool,
    callback: Callback | None,
) -> Tensor:
    """Predict each step from the last `order` values of D; the corrector uses one more."""
    steps = steps_of(sigmas)
    calls: list[tuple[float, Tensor]] = []  # noise levels and values of D, newest first
    start = x
    for i, (sigma, sigma_next) in enumerate(steps):
        calls = [(sigma, denoise(x, batch_sigma(sigma, x))), *calls[:order]]
        if correct and i > 0:
            x = exponential_step(start, *steps[i - 1], calls)
        start = x
        used = order if sigma_next > 0 else 1
        x = exponential_step(start, sigma, sigma_next, calls[:used])
        if callback is not None:
            callback(i + 1, len(steps))
    return x


def multistep_rows(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Solve the ODE as `unipc` does, with noise levels of its own for each row, and gradients.

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        x: [B, ...] at the noise levels `sigmas[:, 0]`.
        sigmas: [B, N], each row strictly increasing or decreasing, positive.

    Returns:
        [B, ...] at the noise levels `sigmas[:, -1]`.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    rows = sigmas.tolist()

    def step(x: Tensor, begin: int, calls: list[tuple[int, Tensor]]) -> Tensor:
        levels = [index for index, _ in calls]
        weights = x.new_tensor(
            [
                _mean_weights(tuple(row[i] for i in levels), row[begin], row[begin + 1])
                for row in rows
            ]
        )
        ratio = (sigmas[:, begin + 1] / sigmas[:, begin]).to(x).reshape(shape)
        values = torch.stack([value for _, value in calls], 1)
        target = (weights.reshape(*weights.shape, *shape[1:]) * values).sum(1)
        return ratio * x + (1 - ratio) * target

    calls: list[tuple[int, Tensor]] = []
    start = x
    for i in range(sigmas.shape[1] - 1):
        calls = [(i, denoise(x, sigmas[:, i])), *calls[:3]]
        if i > 0:
            x = step(start, i - 1, calls)
        start = x
        x = step(start, i, calls[:3])
    return x


def exponential_step(
    x: Tensor, sigma: float, sigma_next: float, calls: list[tuple[float, Tensor]]
) -> Tensor:
    """Step from sigma to sigma_next: integrate the polynomial in ln(sigma) through the calls.

    Args:
        x: [B, ...] at the noise level sigma.
        sigma: noise level.
        sigma_next: noise level of the result.
        calls: noise levels and values of D [B, ...], newest first.

    Returns:
        [B, ...].
    """
    ratio = sigma_next / sigma
    target = newest = calls[0][1]
    if len(calls) > 1:
        weights = _mean_weights(tuple(level for level, _ in calls), sigma, sigma_next)
        # The sum of the weights is 1.
        for weight, (_, denoised) in zip(weights[1:], calls[1:], strict=True):
            target = target + weight * (denoised - newest)
    return ratio * x + (1 - ratio) * target


@lru_cache(maxsize=4096)
def _mean_weights(levels: tuple[float, ...], sigma: float, sigma_next: float) -> list[float]:
    """Weight D at `levels` for its mean over the step.

    The weights are exact for polynomials in ln(sigma) of degree < len(levels).

    t in [0, 1] is linear in ln(sigma); the ODE weights D(t) by e^(h (t - 1)), h = ln(sigma /
    sigma_next).
    """
    h = math.log(sigma / sigma_next)
    # Weighted moments m[k] of t^k, by integration by parts: m[k-1] = (1 - h m[k]) / k, from m[64] =
    # 0, which is negligible, downwards; upwards the recursion amplifies rounding.
    moments = [0.0]
    for k in range(64, 0, -1):
        moments.insert(0, (1 - h * moments[0]) / k)
    nodes = [math.log(sigma / level) / h for level in levels]
    weights = []
    for node in nodes:
        # Lagrange polynomial, 1 at this node and 0 at the others; coefficients of t^0, t^1, ...
        polynomial = [1.0]
        for other in nodes:
            if other == node:
                continue
            shifted = [0.0, *polynomial]
            padded = [*polynomial, 0.0]
            polynomial = [
                (a - other * b) / (node - other) for a, b in zip(shifted, padded, strict=True)
            ]
        weights.append(sum(a * m for a, m in zip(polynomial, moments, strict=False)) / moments[0])
    return weights


@torch.no_grad()
def ancestral_euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    noise: Callable[[Tensor], Tensor] = torch.randn_like,
) -> Tensor:
    """Sample the reverse SDE: Euler steps that end below the next level, and fresh noise up to it.

    A step from s to n ends at n^2 / s and adds noise of variance n^2 (1 - n^2 / s^2), as the
    ancestral sampling of DDPM (Ho et al. 2020, eq. 6 and 7).

    Arguments, result and errors as in `euler`, except that sigmas must decrease; noise(x) draws
    standard normal values of the shape of x.
    """
    steps = _falling_steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        slope = (x - denoise(x, batch_sigma(sigma, x))) / sigma
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
    """Sample as `ancestral_euler` with midpoint steps, two calls of `denoise` each.

    The midpoint of s and n^2 / s is computed in sigma^(1 / rho). With `noise` None each step still
    ends below its noise level, without fresh noise, like the ADPM2Sampler of the original: outputs
    lose detail. To solve the ODE use `heun`.

    Arguments, result and errors as in `ancestral_euler`.
    """
    steps = _falling_steps(sigmas)
    for i, (sigma, sigma_next) in enumerate(steps):
        sigma_down = sigma_next**2 / sigma
        sigma_mid = ((sigma ** (1 / rho) + sigma_down ** (1 / rho)) / 2) ** rho
        x_mid = x + (sigma_mid - sigma) * (x - denoise(x, batch_sigma(sigma, x))) / sigma
        slope = (x_mid - denoise(x_mid, batch_sigma(sigma_mid, x))) / sigma_mid
        x = x + (sigma_down - sigma) * slope
        if noise is not None and sigma_next > 0:
            x = x + noise(x) * (sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
        if callback is not None:
            callback(i + 1, len(steps))
    return x


# Solvers of the ODE in both directions, for bridges.
SOLVERS: Registry[Solver] = Registry(
    "solver",
    {"heun": heun, "euler": euler, "dpmpp_2m": dpmpp_2m, "dpmpp_3m": dpmpp_3m, "unipc": unipc},
)


def steps_of(sigmas: Tensor) -> list[tuple[float, float]]:
    """Check sigmas and return pairs (sigma, sigma_next), with a single transfer from the device."""
    values = sigmas.tolist()
    steps = list(itertools.pairwise(values))
    if (
        not steps
        or not all(math.isfinite(v) for v in values)
        or min(values[:-1]) <= 0
        or values[-1] < 0
    ):
        raise ValueError(
            f"sigmas must be two or more finite, positive numbers (the last may be 0), got {values}"
        )
    if not (all(a < b for a, b in steps) or all(a > b for a, b in steps)):
        raise ValueError(f"sigmas must strictly increase or strictly decrease, got {values}")
    return steps


def _falling_steps(sigmas: Tensor) -> list[tuple[float, float]]:
    steps = steps_of(sigmas)
    if steps[0][0] < steps[0][1]:
        raise ValueError(f"sigmas must decrease for ancestral samplers, got {sigmas.tolist()}")
    return steps


def batch_sigma(sigma: float, x: Tensor) -> Tensor:
    """Repeat sigma for each sample of x: [B], in single precision or better."""
    return torch.full(
        (x.shape[0],), sigma, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device
    )
