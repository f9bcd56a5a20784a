"""Solvers fitted to a model, in a JSON file beside the model: `NAME.schedules.json`.

With few evaluations, noise levels and weights that are fitted to a model give a smaller error than
those of a formula. `bridge.schedule_fit` fits them.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

FORMAT = "audio_diffusion_pytorch.schedules.1"
ENDING = ".schedules.json"
DIRECTIONS = ("to_noise", "to_data")
FARTHEST = 1.5  # largest ratio of a hand-off level to the level that a schedule was fitted for


@dataclass(frozen=True)
class FittedSchedule:
    """Noise levels and weights of one solver in one direction, with the error that they reach.

    Args:
        instrument: name of the model's instrument.
        direction: "to_noise" as a source, "to_data" as a target.
        solver: name in `SOLVERS` of the solver whose place the fitted one takes.
        sigma: hand-off noise level of the fit.
        sigmas: falling noise levels; the first is `sigma`.
        evaluations: network calls for one window.
        error: median error on windows that the fit did not use, relative to the converged solution.
        karras_error: the same error with the best Karras levels and without weights.
        fitted_on: description of the windows.
        weights: weights of `fitted_multistep`, 2 for the first step and one more for each further
            step; empty: `solver` uses the levels, as in files of earlier versions.
    """

    instrument: str
    direction: str
    solver: str
    sigma: float
    sigmas: tuple[float, ...]
    evaluations: int
    error: float
    karras_error: float
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(map(float, self.sigmas)))
        rows = tuple(tuple(map(float, row)) for row in self.weights)
        object.__setattr__(self, "weights", rows)
        falling = all(high > low > 0 for high, low in pairwise(self.sigmas))
        if not (len(self.sigmas) > 1 and falling and math.isfinite(self.sigmas[0])):
            raise ValueError(f"sigmas must be two or more falling numbers, got {self.sigmas}")
        if not math.isclose(self.sigmas[0], self.sigma) or self.direction not in DIRECTIONS:
            raise ValueError(f"sigmas from {self.sigma}, {self.direction}: got {self.sigmas}")
        sizes = [len(row) for row in rows]
        if rows and sizes != list(range(2, len(self.sigmas) + 1)):
            raise ValueError(f"weights for {len(self.sigmas) - 1} steps: got {sizes} of them")
        if not all(math.isfinite(weight) for row in rows for weight in row):
            raise ValueError("weights must be finite")

    @property
    def key(self) -> tuple[str, str, str, int, float]:
        """Values that distinguish the schedules of a model."""
        return self.instrument, self.direction, self.solver, len(self.sigmas), self.sigma

    def scaled(self, sigma: float) -> FittedSchedule:
        """Stretch the levels in ln(sigma) so that they begin at another hand-off level.

        Args:
            sigma: hand-off noise level, above the lowest level.
        """
        if sigma == self.sigma:
            return self
        low = self.sigmas[-1]
        stretch = math.log(sigma / low) / math.log(self.sigma / low)
        inner = (low * (level / low) ** stretch for level in self.sigmas[1:-1])
        return replace(self, sigma=sigma, sigmas=(sigma, *inner, low))


@dataclass(frozen=True)
class FittedSchedules:
    """Schedules fitted to one model.

    Args:
        model: digest of the model's weights, see `weights_digest`.
        schedules: the schedules, each with a key of its own.
    """

    model: str
    schedules: tuple[FittedSchedule, ...] = ()

    def find(
        self, instrument: str, direction: str, solver: str, num_steps: int, sigma: float
    ) -> FittedSchedule | None:
        """Find the schedule of the nearest hand-off level, and scale it to `sigma`.

        Args:
            instrument: name of the model's instrument.
            direction: name in `DIRECTIONS`.
            solver: name in `SOLVERS`.
            num_steps: points of the schedule.
            sigma: hand-off noise level.

        Returns:
            The schedule; None if none was fitted within a factor of `FARTHEST` of `sigma`.
        """
        kind = instrument, direction, solver, num_steps
        found = [one for one in self.schedules if one.key[:4] == kind]
        near = min(found, key=lambda one: abs(math.log(one.sigma / sigma)), default=None)
        if near is None or abs(math.log(near.sigma / sigma)) > math.log(FARTHEST) + 1e-9:
            return None
        return near.scaled(sigma) if sigma > near.sigmas[-1] else None

    def with_schedule(self, schedule: FittedSchedule) -> FittedSchedules:
        """Add a schedule, or replace the one with its key."""
        kept = (one for one in self.schedules if one.key != schedule.key)
        return replace(self, schedules=tuple(sorted((*kept, schedule), key=lambda one: one.key)))

    def keys(self) -> Iterable[tuple[str, str, str, int, float]]:
        """Return the keys of all schedules."""
        return {one.key for one in self.schedules}

    def save(self, path: Path) -> None:
        """Write the schedules as JSON, one schedule a line.

        Args:
            path: file to write.

        Raises:
            InputError: the file cannot be written.
        """
        lines = ",\n".join(f"  {json.dumps(asdict(one))}" for one in self.schedules)
        head = f'"format": {json.dumps(FORMAT)},\n"model": {json.dumps(self.model)}'
        with atomic_write(path) as temporary:
            text = f'{{\n{head},\n"schedules": [\n{lines}\n]\n}}\n'
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> FittedSchedules:
        """Read the output of `save`.

        Args:
            path: an existing file.

        Raises:
            InputError: the file is damaged or not of this format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            schedules = tuple(FittedSchedule(**one) for one in content["schedules"])
            return cls(str(content["model"]), schedules)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"cannot read {path} as fitted schedules ({error}): delete it, or fit them again "
                "with scripts/fit_schedule.py"
            ) from error


def schedules_file(model: Path) -> Path:
    """Return the file of the fitted schedules of a model file."""
    return model.with_name(model.name.removesuffix(".safetensors") + ENDING)


def weights_digest(model: Path) -> str:
    """Hash the tensors of a .safetensors file; its metadata may change.

    Args:
        model: an existing file.

    Returns:
        32 hexadecimal digits of BLAKE2.
    """
    content = hashlib.blake2b(digest_size=16)
    with open(model, "rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)  # length of the header, the header
        while part := file.read(1 << 20):
            content.update(part)
    return content.hexdigest()


def schedules_of(model: Path) -> FittedSchedules | None:
    """Read the fitted schedules beside a model file; ignore unusable ones with one warning.

    Args:
        model: an existing .safetensors file.

    Returns:
        The schedules; None without such a file, or if it is damaged or belongs to other weights.
    """
    path = schedules_file(model)
    if not path.is_file():
        return None
    try:
        found = FittedSchedules.load(path)
    except InputError as error:
        _warn(str(error))
        return None
    if found.model != weights_digest(model):
        _warn(
            f"{path} belongs to other weights than those of {model.name}, and is not used: fit the "
            "schedules again with scripts/fit_schedule.py"
        )
        return None
    return found


def _warn(text: str) -> None:
    if multiprocessing.parent_process() is None:  # once, not in each worker
        warnings.warn(text, stacklevel=4)
