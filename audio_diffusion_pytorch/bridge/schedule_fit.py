"""Fit a solver with few evaluations to a model: no weight of the model changes.

For each of some Karras schedules, linear least squares finds the weights of `fitted_multistep` on
the converged solutions of a handful of windows; the schedule with the smallest error is kept.

Errors are measured in the target's normalised latents. A source needs this most: the target's ODE
amplifies some errors of the noise and removes others, so the smallest error of the noise does not
give the smallest error of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.fit_windows import Windows
from audio_diffusion_pytorch.diffusion.fitted_solver import (
    Trajectory,
    fit_weights,
    fitted_multistep,
)
from audio_diffusion_pytorch.diffusion.sampling import Denoise, karras_schedule, unipc
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, FittedSchedule
from audio_diffusion_pytorch.models.instrument import InstrumentModel

Progress = Callable[[float], None]

SOLVER = "unipc"
CONVERGED = 64  # points of the reference
DECODER = 9  # points of the target's half that turns a source's noise into latents
# Karras schedules that are tried: lowest level and rho.
SCHEDULES = ((0.01, 7.0), (0.02, 7.0), (0.02, 10.0), (0.03, 10.0), (0.03, 15.0), (0.05, 10.0))


@dataclass(frozen=True, eq=False)
class Half:
    """One half of bridges: a source to several targets, or several sources to a target.

    Args:
        direction: "to_noise" or "to_data".
        windows: windows of each pair of models, at one hand-off level.
    """

    direction: str
    windows: Sequence[Windows]

    @property
    def index(self) -> int:
        """0 for the source's half, 1 for the target's half."""
        return DIRECTIONS.index(self.direction)

    @property
    def model(self) -> InstrumentModel:
        """Model of the half."""
        pair = self.windows[0].pair
        return (pair.source, pair.target)[self.index]

    @property
    def sigma(self) -> float:
        """Hand-off noise level."""
        return self.windows[0].pair.sigma

    @property
    def others(self) -> list[str]:
        """Names of the models of the other halves."""
        pairs = [part.pair for part in self.windows]
        return [(pair.target, pair.source)[self.index].spec.name for pair in pairs]

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(part.count for part in self.windows)

    def levels(self, low: float, rho: float, points: int) -> Tensor:
        """Return Karras levels of this half, in the order of its solver."""
        low = max(self.model.spec.sigma_min, min(low, self.sigma / 10))
        sigmas = karras_schedule(low, self.sigma, rho, points)
        return sigmas if self.index else sigmas.flip(0)

    @cached_property
    def _reference(self) -> Tensor:
        """Falling levels of converged solutions."""
        spec = self.model.spec
        return karras_schedule(spec.sigma_min, self.sigma, spec.rho, CONVERGED)

    @cached_property
    def denoise(self) -> Denoise:
        """Denoiser of the half for all windows; its pairs may differ in the use of the melody."""
        parts = [part.pair.conditioned(self.index, part.melody) for part in self.windows]
        counts = [part.count for part in self.windows]

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            rows = zip(parts, x.split(counts), sigma.split(counts), strict=True)
            return torch.cat([part(one, level) for part, one, level in rows])

        return denoise

    @cached_property
    def trajectory(self) -> Trajectory:
        """Converged solution of all windows."""
        if self.index:
            start = torch.cat([part.noise(self._reference) for part in self.windows])
            return Trajectory(self.denoise, start, self._reference)
        pair = self.windows[0].pair
        start = torch.cat([pair.source.normalise(part.latents) for part in self.windows])
        return Trajectory(self.denoise, start, self._reference.flip(0))

    @cached_property
    def expected(self) -> Tensor:
        """Converged latents of the targets [N, D, L]."""
        return self.latents(self.trajectory.end)

    def latents(self, end: Tensor) -> Tensor:
        """Map the end of a solution to normalised latents of the targets.

        Args:
            end: end of this half [N, D, L]. The other half turns a source's noise into latents, at
                fixed levels.

        Returns:
            [N, D, L].
        """
        if self.index:
            return end
        low = max(self.windows[0].pair.target.spec.sigma_min, min(0.05, self.sigma / 10))
        sigmas = karras_schedule(low, self.sigma, 7.0, DECODER)
        parts = zip(self.windows, end.split([part.count for part in self.windows]), strict=True)
        return torch.cat([part.result(part.hand_over(noise), sigmas) for part, noise in parts])

    def errors(self, end: Tensor) -> Tensor:
        """Return the relative error [N] of each window's latents, for the end of a solution."""
        deviations = (self.latents(end) - self.expected).flatten(1).norm(dim=1)
        return (deviations / self.expected.flatten(1).norm(dim=1)).cpu()


@torch.inference_mode()
def fit_half(
    fit: Half, check: Half, evaluations: int, progress: Progress | None = None
) -> FittedSchedule:
    """Fit levels and weights of a half.

    Args:
        fit: windows of the fit.
        check: other windows, for the errors in the result.
        evaluations: steps of the solver.
        progress: called with the error of each schedule that is tried.

    Returns:
        The schedule with its error and the error of the best Karras levels for `unipc`; these
        levels if their error is smaller.
    """
    found: list[tuple[float, Tensor, list[list[float]]]] = []
    karras: list[tuple[float, Tensor]] = []
    for low, rho in SCHEDULES:
        sigmas = fit.levels(low, rho, evaluations + 1)
        inner = [fit.trajectory.at(sigma) for sigma in sigmas[1:-1].tolist()]
        exact = [fit.trajectory.start, *inner, fit.trajectory.end]
        weights, end = fit_weights(fit.denoise, exact, sigmas)
        found.append((_rms(fit.errors(end)), sigmas, weights))
        plain = unipc(fit.denoise, fit.trajectory.start, sigmas)
        karras.append((_rms(fit.errors(plain)), sigmas))
        if progress is not None:
            progress(found[-1][0])
    _, sigmas, weights = min(found, key=lambda one: one[0])
    _, plain_sigmas = min(karras, key=lambda one: one[0])
    start = check.trajectory.start
    error = float(check.errors(fitted_multistep(check.denoise, start, sigmas, weights)).median())
    karras_error = float(check.errors(unipc(check.denoise, start, plain_sigmas)).median())
    if karras_error < error:  # other windows are what counts
        sigmas, weights, error = plain_sigmas, [], karras_error
    return FittedSchedule(
        instrument=fit.model.spec.name,
        direction=fit.direction,
        solver=SOLVER,
        sigma=fit.sigma,
        sigmas=tuple(sorted(sigmas.tolist(), reverse=True)),
        evaluations=evaluations,
        error=round(error, 4),
        karras_error=round(karras_error, 4),
        fitted_on={"others": fit.others, "windows": fit.count, "check_windows": check.count},
        weights=tuple(tuple(round(weight, 7) for weight in row) for row in weights),
    )


def _rms(errors: Tensor) -> float:
    return float(errors.square().mean().sqrt())
