"""Fit the solvers of a model in both directions, at the hand-off levels of its bridges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from audio_diffusion_pytorch.bridge.fit_windows import Recording, Windows, cut_windows
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.presets import QUALITY
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
    Key,
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
    def guidance(self) -> float:
        """Weight of the guidance of the target."""
        return self.pairs[0].melody.guidance if self.direction == "to_data" else 1.0

    @property
    def key(self) -> Key:
        """Key of the schedule, see `FittedSchedule.key`."""
        pair = self.pairs[0]
        model = pair.source if self.direction == "to_noise" else pair.target
        kind = model.spec.name, self.direction, SOLVER, self.evaluations + 1
        return *kind, self.sigma, self.guidance

    def __str__(self) -> str:
        name, direction, *_ = self.key
        guided = f", guidance {self.guidance:g}" if self.guidance != 1 else ""
        return f"{name} {direction}, sigma {self.sigma:g}, {self.evaluations} evaluations{guided}"


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
        A fit for each direction, level and number of evaluations, and a further one for the guided
        targets of presets with guidance; fits of one half are neighbours.

    Raises:
        InputError: the models use different codecs, or a level lies outside their range.
    """
    tasks = []
    for direction, guidance, counts in _kinds(model, sorted(set(evaluations))):
        by_sigma: dict[float, list[ModelPair]] = {}
        for other in others or [model]:
            ends = (model, other) if direction == "to_noise" else (other, model)
            pair = ModelPair(
                *ends,
                solver=SOLVER,
                precision="32",
                melody_guidance=guidance,
                codec=model.codec,
                device=model.mean.device,
            )
            for sigma in sigmas or [pair.sigma]:
                by_sigma.setdefault(float(sigma), []).append(pair.with_sigma(sigma))
        tasks += [
            Task(direction, sigma, count, tuple(by_sigma[sigma]))
            for sigma, count in product(sorted(by_sigma), counts)
        ]
    return tasks


def _kinds(
    model: InstrumentModel, evaluations: Sequence[int]
) -> Iterator[tuple[str, float, Sequence[int]]]:
    """Yield direction, guidance and numbers of evaluations; presets with guidance need both."""
    for direction in DIRECTIONS:
        yield direction, 1.0, evaluations
    presets = [preset for preset in QUALITY.values() if preset.fitted and preset.guidance != 1]
    for guidance in {preset.guidance for preset in presets} if model.spec.melody_channels else ():
        counts = {preset.fitted for preset in presets if preset.guidance == guidance}
        yield "to_data", guidance, [count for count in evaluations if count + 1 in counts]


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
        key = task.direction, task.sigma, task.guidance, ends
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
