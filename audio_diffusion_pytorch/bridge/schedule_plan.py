"""Fit the solvers of a model in both directions, at the hand-off levels of its bridges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from audio_diffusion_pytorch.bridge.fit_windows import Recording, Windows, cut_windows
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.schedule_fit import (
    SOLVER,
    Half,
    Progress,
    fit_half,
)
from audio_diffusion_pytorch.models.fitted_schedules import (
    DIRECTIONS,
    FittedSchedule,
    FittedSchedules,
)
from audio_diffusion_pytorch.models.instrument import InstrumentModel

WINDOWS = 6


@dataclass(frozen=True, eq=False)
class Task:
    """One fit.

    Args:
        direction: "to_noise" or "to_data".
        sigma: hand-off noise level.
        evaluations: steps of the solver.
        pairs: bridges that contain the model in this direction.
    """

    direction: str
    sigma: float
    evaluations: int
    pairs: tuple[ModelPair, ...]

    @property
    def key(self) -> tuple[str, str, str, int, float]:
        """Key of the schedule, see `FittedSchedule.key`."""
        pair = self.pairs[0]
        model = pair.source if self.direction == "to_noise" else pair.target
        return model.spec.name, self.direction, SOLVER, self.evaluations + 1, self.sigma

    def __str__(self) -> str:
        name, direction, *_ = self.key
        return f"{name} {direction}, sigma {self.sigma:g}, {self.evaluations} evaluations"


def plan_fits(
    model: InstrumentModel,
    others: Sequence[InstrumentModel],
    evaluations: Iterable[int] = (4, 5, 8),
    sigmas: Sequence[float] = (),
) -> list[Task]:
    """List the fits of a model.

    Args:
        model: model of one instrument.
        others: models at the other ends of its bridges, on the same codec; empty: the model itself.
        evaluations: steps of the solver.
        sigmas: hand-off noise levels; empty: the default level of each bridge.

    Returns:
        A fit for each direction, level and number of evaluations; fits of one half are neighbours.

    Raises:
        InputError: the models use different codecs, or a level lies outside their range.
    """
    tasks = []
    for direction in DIRECTIONS:
        by_sigma: dict[float, list[ModelPair]] = {}
        for other in others or [model]:
            ends = (model, other) if direction == "to_noise" else (other, model)
            pair = ModelPair(
                *ends,
                solver=SOLVER,
                precision="32",
                melody_guidance=1,
                codec=model.codec,
                device=model.mean.device,
            )
            for sigma in sigmas or [pair.sigma]:
                by_sigma.setdefault(float(sigma), []).append(pair.with_sigma(sigma))
        tasks += [
            Task(direction, sigma, count, tuple(by_sigma[sigma]))
            for sigma, count in product(sorted(by_sigma), sorted(set(evaluations)))
        ]
    return tasks


class Fits:
    """Run fits of one or several models; windows and converged solutions serve several fits.

    Args:
        recordings: function of the name of a source that returns its recordings.
        windows: windows of each pair of models for the fit, and as many for the check.
    """

    def __init__(
        self,
        recordings: Callable[[str], Iterable[Recording]],
        windows: int = WINDOWS,
    ):
        self.recordings = recordings
        self.windows = windows
        self._cut: dict[tuple, tuple[Windows, Windows]] = {}
        self._halves: tuple[tuple, Half, Half] | None = None  # of the last fit

    def run(self, task: Task, progress: Progress | None = None) -> FittedSchedule:
        """Run a fit.

        Args:
            task: the fit.
            progress: called with the error of each schedule that is tried.

        Raises:
            InputError: the recordings contain too little sound.
        """
        ends = [_names(pair) for pair in task.pairs]
        key = task.direction, task.sigma, ends
        if self._halves is None or self._halves[0] != key:
            parts = [self._windows_of(pair) for pair in task.pairs]
            fit, check = (Half(task.direction, half) for half in zip(*parts, strict=True))
            self._halves = key, fit, check
        _, fit, check = self._halves
        return fit_half(fit, check, task.evaluations, progress)

    def _windows_of(self, pair: ModelPair) -> Iterator[Windows]:
        names = _names(pair)
        if names not in self._cut:
            recordings = self.recordings(pair.source.spec.name)
            self._cut[names] = cut_windows(pair, recordings, self.windows)
        return (replace(windows, pair=pair) for windows in self._cut[names])


def _names(pair: ModelPair) -> tuple:
    """Return values that distinguish the models of a pair."""
    return tuple((model.spec.name, model.file) for model in (pair.source, pair.target))


def remaining(tasks: Iterable[Task], fitted: FittedSchedules) -> list[Task]:
    """Return the fits whose schedules do not exist."""
    done = fitted.keys()
    return [task for task in tasks if task.key not in done]
