"""Choose the noise levels of both halves of a bridge: fitted to the models, or Karras levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, FittedSchedule
from audio_diffusion_pytorch.models.instrument import InstrumentModel

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.settings import ResolvedSettings

KARRAS = "Karras"
FITTED = "fitted"


@dataclass(frozen=True)
class Schedules:
    """Noise levels of both halves of a bridge.

    Args:
        to_noise: rising levels of the source [N].
        to_data: falling levels of the target [N].
        path: kind of the levels, for reports: "fitted", "Karras", or one for each half.
        notice: reason for Karras levels where the quality asks for fitted ones, else None.
    """

    to_noise: Tensor
    to_data: Tensor
    path: str = KARRAS
    notice: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that determine the output, besides those of Karras levels."""
        if self.path == KARRAS:
            return {}
        levels = {"to_noise": self.to_noise.tolist(), "to_data": self.to_data.tolist()}
        return {"schedule": self.path, **levels}


def choose_schedules(
    resolved: ResolvedSettings, source: InstrumentModel, target: InstrumentModel
) -> Schedules:
    """Choose fitted noise levels where the quality asks for them and the models have them.

    Args:
        resolved: settings of the bridge.
        source: source model.
        target: target model.

    Returns:
        The levels of both halves; Karras levels for a model without fitted levels for the solver,
        the number of points and a level near the hand-off's.
    """
    karras = resolved.schedule
    if resolved.fitted is None:
        return Schedules(karras.flip(0), karras)
    models = source, target
    found = [
        _fitted(model, direction, resolved)
        for model, direction in zip(models, DIRECTIONS, strict=True)
    ]
    levels = [
        karras if one is None else torch.tensor(one.sigmas, dtype=torch.float64) for one in found
    ]
    lacking = [model for model, one in zip(models, found, strict=True) if one is None]
    return Schedules(levels[0].flip(0), levels[1], _path(found), _notice(resolved, lacking))


def _fitted(
    model: InstrumentModel, direction: str, resolved: ResolvedSettings
) -> FittedSchedule | None:
    if model.fitted is None:
        return None
    steps = resolved.num_steps
    return model.fitted.find(model.spec.name, direction, resolved.solver, steps, resolved.sigma)


def _path(found: Sequence[FittedSchedule | None]) -> str:
    kinds = [KARRAS if one is None else FITTED for one in found]
    return kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]} to noise, {kinds[1]} to data"


def _notice(resolved: ResolvedSettings, lacking: Sequence[InstrumentModel]) -> str | None:
    """Name the models without fitted levels, the reason and the remedy, in one line."""
    if not lacking:
        return None
    names = " and ".join(dict.fromkeys(model.spec.name for model in lacking))
    return (
        f"quality={resolved.fitted}: no noise levels are fitted to {names} for "
        f"{resolved.solver} with {resolved.num_steps} points near sigma {resolved.sigma:g}; "
        "Karras levels are less exact (scripts/fit_schedule.py fits levels)"
    )
