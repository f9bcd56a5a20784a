"""Choose how each half of a bridge is solved: by a student, a fitted solver or Karras levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.diffusion.fitted_solver import fitted_multistep
from audio_diffusion_pytorch.diffusion.sampling import Solver
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, FittedSchedule
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.students import Student, student_of
from audio_diffusion_pytorch.models.unlabelled import label_weight
from audio_diffusion_pytorch.utils.hashing import fingerprint

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.settings import ResolvedSettings

KARRAS = "Karras"
FITTED = "fitted"
STUDENT = "student"
Weights = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Schedules:
    """Noise levels and solvers of both halves of a bridge.

    Args:
        to_noise: rising levels of the source [N].
        to_data: falling levels of the target [N].
        path: kind of the levels, for reports: "student", "fitted", "Karras", or one for each half.
        notice: reason for Karras levels where they are much less exact than a fitted solver, or
            None.
        students: students of the source and of the target, or None.
        weights: weights of `fitted_multistep` of the source and of the target; empty: the solver of
            the bridge.
    """

    to_noise: Tensor
    to_data: Tensor
    path: str = KARRAS
    notice: str | None = None
    students: tuple[Student | None, Student | None] = (None, None)
    weights: tuple[Weights, Weights] = ((), ())

    def solver(self, index: int, solve: Solver) -> Solver:
        """Return the solver of the source (0) or the target (1).

        Args:
            index: 0 or 1.
            solve: solver of the bridge.
        """
        weights = self.weights[index]
        return partial(fitted_multistep, weights=weights) if weights else solve

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that determine the output, besides those of Karras levels."""
        if self.path == KARRAS:
            return {}
        levels = {"to_noise": self.to_noise.tolist(), "to_data": self.to_data.tolist()}
        digests = {
            f"student_{direction}": student.digest
            for direction, student in zip(DIRECTIONS, self.students, strict=True)
            if student is not None
        }
        digests |= {
            f"weights_{direction}": fingerprint(weights)
            for direction, weights in zip(DIRECTIONS, self.weights, strict=True)
            if weights
        }
        return {"schedule": self.path, **levels, **digests}


def choose_schedules(
    resolved: ResolvedSettings, source: InstrumentModel, target: InstrumentModel
) -> Schedules:
    """Choose students and fitted solvers where the quality asks for them and the models have them.

    Args:
        resolved: settings of the bridge.
        source: source model.
        target: target model.

    Returns:
        The levels of both halves; Karras levels for a model without a fitted solver in the place of
        this solver, for the number of points and a level near the hand-off's.
    """
    karras = resolved.schedule
    if resolved.fitted is None:
        return Schedules(karras.flip(0), karras)
    levels, kinds, students, weights = [], [], [], []
    for index, (model, direction) in enumerate(zip((source, target), DIRECTIONS, strict=True)):
        student = _student(index, model, resolved)
        fitted = None if student else _fitted(model, direction, resolved)
        if student is not None:
            levels.append(student.spec.schedule(direction, resolved.sigma))
        elif fitted is not None:
            levels.append(torch.tensor(fitted.sigmas, dtype=torch.float64))
        else:
            levels.append(karras)
        students.append(student)
        weights.append(fitted.weights if fitted is not None else ())
        kinds.append(STUDENT if student else FITTED if fitted else KARRAS)
    lacking = [model for model, kind in zip((source, target), kinds, strict=True) if kind == KARRAS]
    path = kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]} to noise, {kinds[1]} to data"
    notice = _notice(resolved, lacking)
    return Schedules(
        levels[0].flip(0),
        levels[1],
        path,
        notice,
        (students[0], students[1]),
        (weights[0], weights[1]),
    )


def _student(index: int, model: InstrumentModel, resolved: ResolvedSettings) -> Student | None:
    """Return the student of the source (0) or the target (1) if it was taught the settings."""
    student = student_of(model) if resolved.student else None
    if student is None or not student.spec.covers(resolved.sigma):
        return None
    if resolved.melody.given[index] != bool(model.spec.melody_channels):
        return None  # a student always learns with the melody
    if index == 0:
        return student
    taught = student.spec
    label = label_weight(model) if taught.guidance != 1 else 1.0
    asked = resolved.melody_guidance in ("auto", taught.guidance) and taught.label_guidance == label
    return student if asked else None


def _fitted(
    model: InstrumentModel, direction: str, resolved: ResolvedSettings
) -> FittedSchedule | None:
    if model.fitted is None:
        return None
    points = resolved.fitted
    assert points is not None
    name = model.spec.name
    found = model.fitted.find(name, direction, resolved.solver, points, resolved.sigma)
    # Levels without weights cannot replace Karras levels with more points.
    few = found is not None and not found.weights and points < resolved.num_steps
    return None if few else found


def _notice(resolved: ResolvedSettings, lacking: Sequence[InstrumentModel]) -> str | None:
    """Name the models without fitted solvers, the reason and the remedy, in one line."""
    if not lacking or resolved.fitted != resolved.num_steps:  # Karras levels with more points do
        return None
    names = " and ".join(dict.fromkeys(model.spec.name for model in lacking))
    return (
        f"quality={resolved.quality}: no solver is fitted to {names} for "
        f"{resolved.solver} with {resolved.num_steps} points near sigma {resolved.sigma:g}; "
        "Karras levels are less exact (scripts/fit_schedule.py fits a solver)"
    )
