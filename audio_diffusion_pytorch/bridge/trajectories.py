"""Solutions of the ODEs of a bridge at a few noise levels: what a student learns."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.fit_windows import Recording, encode_windows, played_windows
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.schedules import Schedules
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.diffusion.sampling import SOLVERS, karras_schedule
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.utils.iterables import batches

BATCH = 8  # windows that share a hand-off level
STEPS = 8  # of the solver, between two levels of a trajectory
RANGE = 1.5  # largest ratio of a trained hand-off level to a default level of the bridges
USUAL = 0.5  # share of the batches at the default level


@dataclass(frozen=True, eq=False)
class Solutions:
    """Solutions of one ODE for some windows.

    Args:
        direction: "to_noise" or "to_data".
        sigmas: noise levels [K] in the order of the solution.
        points: latents at these levels, divided by sqrt(sigma^2 + sigma_data^2) [N, K, D, L].
        melody: melody of the windows [N, M, L], or None.
    """

    direction: str
    sigmas: Tensor
    points: Tensor
    melody: Tensor | None = None


def make_pairs(
    model: InstrumentModel, others: Sequence[InstrumentModel]
) -> list[tuple[str, ModelPair]]:
    """Build the bridges from a model and to it.

    Args:
        model: the teacher.
        others: models at the other ends.

    Returns:
        Direction in which the teacher works, and bridge.
    """
    pairs = []
    for direction in DIRECTIONS:
        for other in others:
            ends = (model, other) if direction == "to_noise" else (other, model)
            pair = ModelPair(*ends, precision="32", codec=model.codec, device=model.mean.device)
            pairs.append((direction, pair))
    return pairs


def hand_off_range(pairs: Iterable[tuple[str, ModelPair]]) -> tuple[float, float]:
    """Return the lowest and the highest hand-off level of the trajectories of bridges."""
    found = [(pair.sigma, _highest(pair)) for _, pair in pairs]
    return min(sigma for sigma, _ in found) / RANGE, max(
        min(sigma * RANGE, most) for sigma, most in found
    )


def _highest(pair: ModelPair) -> float:
    return min(pair.source.spec.sigma_max, pair.target.spec.sigma_max)


def teach(
    direction: str,
    pair: ModelPair,
    recordings: Iterable[Recording],
    count: int,
    sigma_min: float,
    inner: Sequence[float],
    generator: torch.Generator,
) -> Iterator[Solutions]:
    """Solve the ODE of the teacher for windows of recordings, in batches of one hand-off level.

    Args:
        direction: "to_noise": the teacher is the source of the bridge; "to_data": the target.
        pair: the bridge.
        recordings: recordings of the source instrument.
        count: most windows.
        sigma_min: noise level at the data end.
        inner: noise levels between the data end and the hand-off, rising.
        generator: chooses windows and hand-off levels.
    """
    windows: list[Window] = []
    for recording in recordings:
        windows += played_windows(pair, recording)
    order = torch.randperm(len(windows), generator=generator)[:count].tolist()
    for batch in batches([windows[index] for index in order], BATCH):
        sigma = pair.sigma
        drawn, place = torch.rand(2, generator=generator).tolist()
        if drawn > USUAL:
            sigma = min(sigma * RANGE ** (2 * place - 1), _highest(pair))
        yield _solve(direction, pair.with_sigma(sigma), batch, [sigma_min, *inner, sigma])


@torch.inference_mode()
def _solve(
    direction: str, pair: ModelPair, windows: Sequence[Window], rising: Sequence[float]
) -> Solutions:
    found = encode_windows(pair, windows)
    if direction == "to_noise":
        x = pair.source.normalise(found.latents)
        return _follow(direction, pair, x, rising, found.melody)
    with_levels = copy.copy(pair)
    fine = _fine(rising)
    with_levels.schedules = Schedules(fine, fine.flip(0))
    noise = with_levels.to_noise(found.latents, found.melody)
    noise = pair.hand_over(noise, found.played)
    return _follow(direction, pair, noise, [*reversed(rising)], found.melody)


def _follow(
    direction: str, pair: ModelPair, x: Tensor, levels: Sequence[float], melody: Tensor | None
) -> Solutions:
    index = DIRECTIONS.index(direction)
    model = (pair.source, pair.target)[index]
    denoise = pair.melody.denoiser(index, model.denoiser, melody)
    solve = SOLVERS.find(pair.solver)
    points = [x]
    for start, end in pairwise(levels):
        points.append(solve(denoise, points[-1], _between(start, end)))
    sigmas = torch.tensor(levels)
    scale = (sigmas**2 + model.spec.sigma_data**2).rsqrt()
    stacked = torch.stack(points, 1) * scale[:, None, None].to(x)
    given = melody if pair.melody.given[index] else None
    return Solutions(direction, sigmas, stacked, given)


def _between(start: float, end: float) -> Tensor:
    """Return levels from `start` to `end`."""
    levels = karras_schedule(min(start, end), max(start, end), 6.0, STEPS + 1)
    return levels if start > end else levels.flip(0)


def _fine(rising: Sequence[float]) -> Tensor:
    parts = [_between(start, end)[:-1] for start, end in pairwise(rising)]
    return torch.cat([*parts, torch.tensor([rising[-1]], dtype=torch.float64)])
