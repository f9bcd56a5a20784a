"""Fit a few noise levels to a model: no weight changes, a handful of windows is enough.

In the spirit of LD3 (Tong et al. 2025, arXiv 2405.15506), with the solvers of bridges and a
least-squares search instead of gradients.

Errors are measured in the target's normalised latents. The levels of a source need this most: the
target's ODE amplifies some errors of the noise and removes others, so levels with the smallest
error of the noise do not give the smallest error of the output.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from audio_diffusion_pytorch.bridge.fit_windows import Windows, solve_target
from audio_diffusion_pytorch.diffusion.sampling import karras_schedule
from audio_diffusion_pytorch.models.fitted_schedules import FittedSchedule
from audio_diffusion_pytorch.models.instrument import InstrumentModel

Progress = Callable[[float], None]

SOLVER = "unipc"
CONVERGED = 64  # points of the reference
DECODER = 9  # points of the target's half while levels of a source are fitted
# Karras schedules (sigma_min, rho) before the search, which starts from the best of each group: the
# error has several minima.
STARTS = (
    ((0.05, 10.0), (0.05, 7.0), (0.1, 7.0), (0.2, 5.0)),
    ((0.05, 3.0), (0.1, 3.0), (0.2, 3.0)),
)
ROUNDS = 10  # of a search; each tries one schedule, and one more for each level
STRETCH = 4.0  # most by which a step in ln(sigma) grows or shrinks
ENOUGH = 1e-2  # relative gain in the squared error of a round, below which the search ends
STEP = 0.02  # relative change of a step, for the differences of the search


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
    def model(self) -> InstrumentModel:
        """Model of the half."""
        pair = self.windows[0].pair
        return pair.source if self.direction == "to_noise" else pair.target

    @property
    def sigma(self) -> float:
        """Hand-off noise level."""
        return self.windows[0].pair.sigma

    @property
    def others(self) -> list[str]:
        """Names of the models of the other halves."""
        pairs = [part.pair for part in self.windows]
        to_noise = self.direction == "to_noise"
        return [(pair.target if to_noise else pair.source).spec.name for pair in pairs]

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(part.count for part in self.windows)

    @cached_property
    def _converged(self) -> Tensor:
        spec = self.model.spec
        return karras_schedule(spec.sigma_min, self.sigma, spec.rho, CONVERGED)

    @cached_property
    def _decoder(self) -> Tensor:
        low = max(self.windows[0].pair.target.spec.sigma_min, min(0.05, self.sigma / 10))
        return karras_schedule(low, self.sigma, 7.0, DECODER)

    @cached_property
    def _noise(self) -> list[Tensor]:
        """Noise of each pair, from the converged ODE of its source."""
        return [part.noise(self._converged) for part in self.windows]

    @cached_property
    def _melody(self) -> Tensor | None:
        """Melody of all windows; None for a target that does not receive it."""
        melodies = [part.melody for part in self.windows if part.melody is not None]
        return torch.cat(melodies) if self.windows[0].pair.melody.given[1] else None

    @cached_property
    def expected(self) -> Tensor:
        """Results of the converged solution [N, D, L]."""
        if self.direction == "to_data":
            return self.results(self._converged)
        parts = zip(self.windows, self._noise, strict=True)
        return torch.cat([part.result(noise, self._decoder) for part, noise in parts])

    def results(self, sigmas: Tensor) -> Tensor:
        """Solve the half over falling levels.

        Args:
            sigmas: noise levels of this half.

        Returns:
            Normalised latents of the targets [N, D, L]. A source's noise is decoded by the other
            half at fixed levels.
        """
        if self.direction == "to_data":  # all windows in one batch
            pair = self.windows[0].pair
            return solve_target(pair, torch.cat(self._noise), self._melody, sigmas)
        return torch.cat([part.result(part.noise(sigmas), self._decoder) for part in self.windows])

    @torch.inference_mode()
    def deviations(self, sigmas: Tensor) -> Tensor:
        """Return the deviations [N, D, L], relative to the norm of each expected result."""
        norms = self.expected.flatten(1).norm(dim=1)[:, None, None]
        return (self.results(sigmas) - self.expected) / norms

    def errors(self, sigmas: Tensor) -> Tensor:
        """Return the relative error of each window [N]."""
        return self.deviations(sigmas).flatten(1).norm(dim=1).cpu()


def fit_half(
    fit: Half,
    check: Half,
    evaluations: int,
    seconds: float = math.inf,
    progress: Progress | None = None,
) -> FittedSchedule:
    """Fit the noise levels of a half; keep Karras levels that are better on the other windows.

    Args:
        fit: windows of the fit.
        check: other windows, for the error in the result.
        evaluations: steps of the solver.
        seconds: time limit; the search then ends with its best levels.
        progress: called with the error of each schedule that is tried.

    Returns:
        The schedule with its error.
    """
    search = _Search(fit, evaluations, time.monotonic() + seconds, progress)
    starts = search.starts()
    karras = starts[0][1]
    sigmas = search.run(starts)
    error, karras_error = (float(check.errors(one).median()) for one in (sigmas, karras))
    if karras_error < error:
        sigmas, error = karras, karras_error
    return FittedSchedule(
        instrument=fit.model.spec.name,
        direction=fit.direction,
        solver=SOLVER,
        sigma=fit.sigma,
        sigmas=tuple(sigmas.tolist()),
        evaluations=evaluations,
        error=round(error, 4),
        karras_error=round(karras_error, 4),
        fitted_on={
            "others": fit.others,
            "windows": fit.count,
            "check_windows": check.count,
            "tries": search.tries,
        },
    )


class _TimeIsUp(Exception):
    pass


class _Search:
    """Least-squares search (Levenberg 1944) of the steps in ln(sigma) that follow the hand-off."""

    def __init__(
        self, half: Half, evaluations: int, deadline: float, progress: Progress | None
    ) -> None:
        self.half = half
        self.evaluations = evaluations
        self.deadline = deadline
        self.progress = progress
        self.tries = 0
        self.best: tuple[float, Tensor] | None = None

    def starts(self) -> list[tuple[float, Tensor]]:
        """Return the best Karras levels of each group with their loss, the best ones first."""
        sigma = self.half.sigma
        lowest = self.half.model.spec.sigma_min
        found: list[tuple[float, Tensor]] = []
        for group in STARTS:
            self.best = None
            with suppress(_TimeIsUp):
                for low, rho in group:
                    low = max(lowest, min(low, sigma / 10))
                    self._deviations(karras_schedule(low, sigma, rho, self.evaluations + 1))
            found += [] if self.best is None else [self.best]
        return sorted(found, key=lambda one: one[0])

    def run(self, starts: Sequence[tuple[float, Tensor]]) -> Tensor:
        """Improve levels from each start, and return the best ones."""
        self.best = starts[0]
        with suppress(_TimeIsUp):
            for _, sigmas in starts:
                self._improve(sigmas)
        return self.best[1]

    def _improve(self, sigmas: Tensor) -> None:
        steps = -sigmas.log().diff().numpy()
        ones = np.ones(len(steps))
        least_squares(
            lambda factors: self._deviations(self._levels(steps * factors)),
            ones,
            bounds=(ones / STRETCH, ones * STRETCH),
            diff_step=STEP,
            ftol=ENOUGH,
            max_nfev=ROUNDS,
        )

    def _levels(self, steps: np.ndarray) -> Tensor:
        """Convert steps in ln(sigma) to falling levels, at least the model's lowest one."""
        deepest = math.log(self.half.sigma / self.half.model.spec.sigma_min)
        falls = np.cumsum(steps)
        falls *= min(1.0, deepest / falls[-1])
        return torch.from_numpy(self.half.sigma * np.exp(-np.r_[0.0, falls]))

    def _deviations(self, sigmas: Tensor) -> np.ndarray:
        if self.tries and time.monotonic() > self.deadline:
            raise _TimeIsUp
        deviations = self.half.deviations(sigmas)
        errors = deviations.flatten(1).norm(dim=1)
        loss = float(errors.square().mean().sqrt())
        self.tries += 1
        if self.best is None or loss < self.best[0]:
            self.best = loss, sigmas
        if self.progress is not None:
            self.progress(loss)
        return deviations.flatten().double().cpu().numpy() / math.sqrt(len(errors))
