"""Solutions of the ODEs of bridges with `quality=normal`: what a student learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.fit_windows import Recording, encode_windows, played_windows
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.utils.iterables import batches

BATCH = 8  # windows that share a hand-off level
RANGE = 1.5  # largest ratio of a trained hand-off level to a default level of the bridges
USUAL = 0.5  # share of the batches at the default level


@dataclass(frozen=True, eq=False)
class Solutions:
    """Solutions of one ODE for some windows.

    Args:
        direction: "to_noise" or "to_data".
        sigma: hand-off noise level.
        data: normalised latents [N, D, L].
        noise: latents at the hand-off level [N, D, L].
        melody: melody of the windows [N, M + 1, L], or None.
    """

    direction: str
    sigma: float
    data: Tensor
    noise: Tensor
    melody: Tensor | None = None


def make_pairs(
    model: InstrumentModel,
    others: Sequence[InstrumentModel],
    melody_guidance: float | str = "auto",
) -> list[tuple[str, ModelPair]]:
    """Build the bridges from a model and to it.

    Args:
        model: the teacher.
        others: models at the other ends.
        melody_guidance: weight of the guidance of the target model, see `MelodyUse`; "auto": that
            of `quality=normal`.

    Returns:
        Direction in which the teacher works, and bridge.
    """
    pairs = []
    for direction in DIRECTIONS:
        for other in others:
            ends = (model, other) if direction == "to_noise" else (other, model)
            pair = ModelPair(
                *ends,
                precision="32",
                melody_guidance=melody_guidance if direction == "to_data" else 1,
                codec=model.codec,
                device=model.mean.device,
            )
            pairs.append((direction, pair))
    return pairs


def hand_off_range(pairs: Iterable[tuple[str, ModelPair]]) -> tuple[float, float]:
    """Return the lowest and the highest hand-off level of the solutions of bridges."""
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
    generator: torch.Generator,
) -> Iterator[Solutions]:
    """Solve the ODE of the teacher for windows of recordings, in batches of one hand-off level.

    Args:
        direction: "to_noise": the teacher is the source of the bridge; "to_data": the target.
        pair: the bridge.
        recordings: recordings of the source instrument.
        count: most windows.
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
        yield _solve(direction, pair, batch, sigma)


@torch.inference_mode()
def _solve(direction: str, pair: ModelPair, windows: Sequence[Window], sigma: float) -> Solutions:
    pair = pair.with_sigma(sigma)
    found = encode_windows(pair, windows)
    noise = pair.to_noise(found.latents, found.melody)
    index = DIRECTIONS.index(direction)
    melody = found.melody if pair.melody.given[index] else None
    if direction == "to_noise":
        data = pair.source.normalise(found.latents)
    else:
        noise = pair.hand_over(noise, found.played)
        data = pair.target.normalise(pair.from_noise(noise, found.melody))
    return Solutions(direction, sigma, data, noise, melody)
