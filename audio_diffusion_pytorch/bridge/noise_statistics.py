"""Measure the noise statistics of an instrument, for the matched hand-off."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.models.instrument import (
    InstrumentModel,
    select_condition,
    select_instrument,
)
from audio_diffusion_pytorch.models.labels import Labels

LEVELS = (1.0, 2.0, 4.0, 8.0)  # noise levels of the measurement


def noise_statistics(
    model: InstrumentModel, wavs: Iterable[Tensor], sample_rate: int, codec: Codec
) -> dict[str, list]:
    """Measure mean and standard deviation of an instrument's recordings as noise of its own model.

    Args:
        model: model as a target, see `select_condition`.
        wavs: recordings [C, T] in [-1, 1].
        sample_rate: in Hz.
        codec: codec of the model.

    Returns:
        sigma [K], mean [K, D], and std [K, D] relative to sqrt(sigma^2 + 1), as rounded lists; an
        empty dictionary for silent recordings.
    """
    spec = model.spec
    levels = [level for level in LEVELS if spec.sigma_min * 10 < level <= spec.sigma_max]
    wavs = list(wavs)
    means, stds = [], []
    steps = len(levels) * len(wavs)
    with tqdm(desc=f"measuring the {spec.name} as noise", total=steps, unit="clip") as bar:
        for level in levels:
            bridge = Bridge(
                model, model, level, handoff="plain", codec=codec, device=model.mean.device
            )
            total = torch.zeros(3, len(model.mean), dtype=torch.float64)
            for wav in wavs:
                total += _sums(bridge, wav, sample_rate)
                bar.update()
            if not total[0].all():
                return {}
            mean, square = total[1:] / total[0]
            deviation = (square - mean.square()).clamp_min(1e-6).sqrt()
            means.append(_rounded(mean))
            stds.append(_rounded(deviation / math.sqrt(level**2 + 1)))
    return {"sigma": levels, "mean": means, "std": stds} if means else {}


def noise_of_instruments(
    model: InstrumentModel, wavs: Mapping[str, Sequence[Tensor]], sample_rate: int, codec: Codec
) -> dict[str, Any]:
    """Measure `InstrumentSpec.noise` of a model of one or several instruments.

    Args:
        model: model of one or several instruments.
        wavs: instrument -> recordings [C, T].
        sample_rate: in Hz.
        codec: codec of the model.

    Returns:
        Noise statistics; for several instruments a mapping from each to its statistics.
    """
    several = Labels(model.spec.labels).instruments
    if not several:
        target = select_condition(model, "plain")
        return noise_statistics(target, wavs[model.spec.name], sample_rate, codec)
    found = {}
    for name in several:
        if wavs.get(name):
            target = select_condition(select_instrument(model, name), "plain").eval()
            found[name] = noise_statistics(target, wavs[name], sample_rate, codec)
    return found


def _sums(bridge: Bridge, wav: Tensor, sample_rate: int) -> Tensor:
    """Sum the weights of a recording's active frames, their noise and its square: [3, D]."""
    encoded = bridge.encode(wav, sample_rate)
    active = torch.stack([window.active for window in encoded.windows])[:, None].double()
    noise = encoded.noise.cpu().double()
    sums = active.expand_as(noise), active * noise, active * noise.square()
    return torch.stack([x.sum((0, 2)) for x in sums])


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
