"""Noise statistics of an instrument, for the matched hand-off."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from audio_diffusion_pytorch.codecs.base import Codec
    from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.bridge.handoff import _sums

LEVELS = (1.0, 2.0, 4.0, 8.0)  # noise levels at which statistics are taken


def noise_statistics(
    model: "InstrumentModel", wavs: Iterable[Tensor], sample_rate: int, codec: "Codec"
) -> dict:
    """Mean and deviation of an instrument's recordings as noise of its own model.

    Args:
        model: as a target, see `select_condition`.
        wavs: recordings [C, T] in [-1, 1].
        sample_rate: in Hz.
        codec: the model's.

    Returns:
        sigma [K], mean [K, D], and std [K, D] as a share of sqrt(sigma^2 + 1); lists, rounded. Empty where there is no
        sound.
    """
    from tqdm import tqdm

    from audio_diffusion_pytorch.bridge.bridge import Bridge

    levels = [
        level for level in LEVELS if model.spec.sigma_min * 10 < level <= model.spec.sigma_max
    ]
    wavs, found = list(wavs), []
    with tqdm(
        desc=f"measuring the {model.spec.name} as noise", total=len(levels) * len(wavs), unit="clip"
    ) as bar:
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
            found.append(
                (mean, (square - mean.square()).clamp_min(1e-6).sqrt() / math.sqrt(level**2 + 1))
            )
    rounded = [
        [[round(value, 4) for value in row.tolist()] for row in rows]
        for rows in zip(*found, strict=True)
    ]
    return dict(zip(("sigma", "mean", "std"), (levels, *rounded), strict=True)) if found else {}


def noise_of_instruments(
    model: "InstrumentModel", wavs: Mapping[str, Sequence[Tensor]], sample_rate: int, codec: "Codec"
) -> dict:
    """`noise_statistics` as `InstrumentSpec.noise` keeps them, of whatever a model tells apart.

    Args:
        model: of one or several instruments.
        wavs: instrument -> recordings [C, T].
    """
    from audio_diffusion_pytorch.models.instrument import select_condition, select_instrument
    from audio_diffusion_pytorch.models.labels import Labels

    several = Labels(model.spec.labels).instruments
    if not several:
        return noise_statistics(
            select_condition(model, "plain"), wavs[model.spec.name], sample_rate, codec
        )
    targets = {
        name: select_condition(select_instrument(model, name), "plain")
        for name in several
        if wavs.get(name)
    }
    return {
        name: noise_statistics(target.eval(), wavs[name], sample_rate, codec)
        for name, target in targets.items()
    }
