"""A solver of the probability-flow ODE with weights that are fitted to a model.

With few evaluations it is more exact than solvers with weights of a formula.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audio_diffusion_pytorch.diffusion.sampling import (
    Callback,
    Denoise,
    batch_sigma,
    exponential_step,
    steps_of,
    unipc,
)

_RIDGE = 1e-6  # of least squares, relative to the mean square of each value


@torch.no_grad()
def fitted_multistep(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    weights: Sequence[Sequence[float]],
    callback: Callback | None = None,
) -> Tensor:
    """Solve the ODE by multistep steps with weights that were fitted: one call of `denoise` each.

    Step i adds sum_j w[i, j] v[j] to a step of `dpmpp_3m`, with v = (x[0], D[0], ..., D[i]): every
    linear combination of the start and of all values of D is possible, as in the non-stationary
    solvers of Shaul et al. 2024 (arXiv 2403.01329). With all weights 0 it is `dpmpp_3m`.

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        x: [B, ...] at the noise level `sigmas[0]`.
        sigmas: [N], strictly increasing or decreasing, positive.
        weights: output of `fit_weights` for N - 1 steps.
        callback: called as callback(finished steps, N - 1) after each step.

    Returns:
        [B, ...] at the noise level `sigmas[-1]`.

    Raises:
        ValueError: the sigmas violate these conditions, or the number of weights does not fit.
    """
    steps = steps_of(sigmas)
    solution = _FittedSteps(denoise, x)
    for i, (step, row) in enumerate(zip(steps, weights, strict=True)):
        solution.evaluate(step[0])
        x = solution.advance(step, row)
        if callback is not None:
            callback(i + 1, len(steps))
    return x


@torch.no_grad()
def fit_weights(
    denoise: Denoise, exact: Sequence[Tensor], sigmas: Tensor
) -> tuple[list[list[float]], Tensor]:
    """Fit the weights of `fitted_multistep` to exact solutions, step by step.

    The weights of step i minimise |x[i + 1] - exact[i + 1]|^2 on the solver's own path, so each
    step corrects the errors of the steps before it. This is linear least squares, without gradients
    through the network.

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        exact: solution [B, ...] at each noise level. The first and the last one may belong to other
            levels: the fit of a bridge begins or ends at data, below its lowest noise level.
        sigmas: [N], strictly increasing or decreasing, positive.

    Returns:
        1 + i + 1 weights for each step i, and the solver's result [B, ...].
    """
    solution = _FittedSteps(denoise, exact[0])
    weights = []
    for i, step in enumerate(steps_of(sigmas)):
        solution.evaluate(step[0])
        x = solution.advance(step, [])
        weights.append(_least_squares(solution.values, exact[i + 1] - x))
        x = solution.advance(step, weights[-1])
    return weights, x


class _FittedSteps:
    """State of `fitted_multistep`: its start, and the values of D on its path."""

    def __init__(self, denoise: Denoise, x: Tensor):
        self.denoise = denoise
        self.x = self._begin = x
        self.values = [x]
        self._calls: list[tuple[float, Tensor]] = []

    def evaluate(self, sigma: float) -> None:
        """Evaluate D at the present end of the path."""
        self._begin = self.x
        self.values.append(self.denoise(self.x, batch_sigma(sigma, self.x)))
        self._calls = [(sigma, self.values[-1]), *self._calls[:2]]

    def advance(self, step: tuple[float, float], weights: Sequence[float]) -> Tensor:
        """Step from the place of the last evaluation, and return the new end of the path."""
        self.x = exponential_step(self._begin, *step, self._calls)
        for weight, value in zip(weights, self.values, strict=bool(weights)):
            self.x = self.x + weight * value
        return self.x


def _least_squares(values: Sequence[Tensor], wanted: Tensor) -> list[float]:
    """Solve sum_j w[j] values[j] = wanted; a small ridge keeps weights of alike values small."""
    scales = [float(value.double().square().mean().sqrt().clamp_min(1e-12)) for value in values]
    rows = torch.stack([v.flatten() / s for v, s in zip(values, scales, strict=True)]).double()
    gram = rows @ rows.T / rows.shape[1]
    right = rows @ wanted.flatten().double() / rows.shape[1]
    found = torch.linalg.solve(gram + _RIDGE * torch.eye(len(rows)).to(gram), right)
    return [w / s for w, s in zip(found.tolist(), scales, strict=True)]


class Trajectory:
    """Converged solution of the ODE at any noise level on its way.

    Args:
        denoise: D(x [B, ...], sigma [B]) -> [B, ...].
        x: [B, ...] at the noise level `sigmas[0]`.
        sigmas: [N], strictly increasing or decreasing, positive; many.

    Attributes:
        start: x.
        end: [B, ...] at the noise level `sigmas[-1]`.
    """

    def __init__(self, denoise: Denoise, x: Tensor, sigmas: Tensor):
        self.start = x
        self._levels = sigmas.tolist()
        self._states: list[Tensor] = []
        self._denoised: list[Tensor] = []

        def keep(x: Tensor, sigma: Tensor) -> Tensor:
            self._states.append(x)
            self._denoised.append(denoise(x, sigma))
            return self._denoised[-1]

        self.end = unipc(keep, x, sigmas)

    def at(self, sigma: float) -> Tensor:
        """Return the solution [B, ...] at a noise level between the first and the last one."""
        if sigma in self._levels[:-1]:
            return self._states[self._levels.index(sigma)]
        rising = self._levels[-1] > self._levels[0]
        last = sum((level < sigma) == rising for level in self._levels[:-1]) - 1
        near = sorted(range(len(self._states)), key=lambda i: abs(i - last))[:4]
        calls = [(self._levels[i], self._denoised[i]) for i in near]
        return exponential_step(self._states[last], self._levels[last], sigma, calls)
