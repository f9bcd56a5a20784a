"""Latent statistics of a training set."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.crops import CachedCrops
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.loader import batches_of
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.labels import Labels

_ACTIVE = 1e-3  # a block is active if its power lies within 30 dB of the strongest block
_LEAST_DEVIATION = 1e-3  # of the largest one; prevents a division by zero


@dataclass
class _Sums:
    """Weighted sums of latents, in double precision, for each of K instruments.

    Args:
        weight: [K, 1].
        latents: weighted sum of the latents [K, D], or 0 before the first one.
        squares: weighted sum of the squared latents [K, D], or 0 before the first one.
        levels: RMS of the active parts, one of each recording or crop.
    """

    weight: Tensor
    latents: Tensor = field(default_factory=lambda: torch.zeros(()).double())
    squares: Tensor = field(default_factory=lambda: torch.zeros(()).double())
    levels: list[Tensor] = field(default_factory=list)

    def statistics(self, several: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Compute mean, standard deviation and median level.

        Instruments without a sample receive the statistics of all instruments.

        Args:
            several: return statistics [K, D] instead of [D].
        """
        mean, square = (
            torch.where(self.weight > 0, x / self.weight, x.sum(0) / self.weight.sum())
            for x in (self.latents, self.squares)
        )
        std = (square - mean.square()).clamp_min(0).sqrt()
        mean = mean.float()
        std = std.clamp_min(_LEAST_DEVIATION * std.max()).float()
        level = torch.stack(self.levels).median()
        return (mean, std, level) if several else (mean[0], std[0], level)


@torch.no_grad()
def latent_statistics(
    codec: Codec, datamodule: Datamodule, labels: Labels | None = None, max_items: int = 1024
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the latent statistics of training crops, or of the whole latent cache.

    Args:
        codec: encoder of the crops.
        datamodule: source of the crops.
        labels: statistics are computed for each instrument that the labels name.
        max_items: upper limit of crops; ignored with a cache.

    Returns:
        Mean and standard deviation of each latent channel, [D], or [instruments, D] if `labels`
        name instruments; median RMS [] of the active parts.

    Raises:
        InputError: all cached recordings are silent or unreadable.
    """
    instruments = labels.instruments if labels is not None else ()
    if datamodule.latents:
        sums = _sum_cache(datamodule.train_set)
    else:
        sums = _sum_crops(codec, datamodule, labels if instruments else None, max_items)
    return sums.statistics(several=bool(instruments))


def _sum_cache(dataset: InstrumentDataset) -> _Sums:
    """Sum all frames in the cache; recordings and variants count as often as training draws them.

    Raises:
        InputError: all recordings are silent or unreadable.
    """
    assert isinstance(dataset.source, CachedCrops)
    cache = dataset.source.cache
    count = max(len(dataset.labels.instruments), 1) if dataset.labels else 1
    sums = _Sums(torch.zeros(count, 1).double())
    block = max(1, round(0.05 * cache.sample_rate / cache.hop))  # frames in 50 ms
    for file in tqdm(dataset.wavs, desc="latent statistics", unit="file", delay=2):
        if file not in cache.digests:
            continue
        instrument = torch.zeros(count, 1).double()
        instrument[dataset.instrument_index(file)] = 1.0
        for variant, share in dataset.cached_variants(file):
            latents, peak, rms = cache.whole(file, variant, dataset.length, dataset.span)
            if not dataset.is_audible(float(peak.max())):
                continue
            latents = latents.double()
            sums.weight += share * instrument
            sums.latents = sums.latents + share * instrument * latents.mean(1)
            sums.squares = sums.squares + share * instrument * latents.square().mean(1)
            sums.levels.append(_active_level(rms, block))
    if not sums.levels:
        raise InputError(f"no recording in {dataset.paths} is usable: each is silent or unreadable")
    return sums


def _active_level(rms: Tensor, block: int) -> Tensor:
    """Compute the RMS [] of the active blocks from the RMS of each frame [L]."""
    padded = F.pad(rms.square(), (0, -len(rms) % block))
    power = padded.unflatten(0, (-1, block)).mean(1)
    return power[power >= power.max() * _ACTIVE].mean().sqrt()


def _sum_crops(
    codec: Codec, datamodule: Datamodule, labels: Labels | None, max_items: int
) -> _Sums:
    """Sum the latents of training crops."""
    loader = datamodule.train_dataloader()
    total = min(len(loader), max(1, max_items // datamodule.batch_size))
    count = len(labels.instruments) if labels is not None else 1
    sums = _Sums(torch.zeros(count, 1).double())
    with batches_of(loader) as batches:
        progress = tqdm(batches, desc="latent statistics", total=total, unit="batch")
        for index, batch in enumerate(progress):
            if index == total:
                break
            label: Any  # a tensor if `labels` is given
            wav, label = (batch, None) if isinstance(batch, Tensor) else batch
            latents = codec.encode(wav).cpu().double()
            instruments = torch.zeros(len(wav), dtype=torch.long)
            if labels is not None:
                instruments = labels.instrument(label)
            chosen = F.one_hot(instruments, count).double().T  # [instruments, B]
            sums.weight += chosen.sum(1, keepdim=True) * latents.shape[2]
            sums.latents = sums.latents + chosen @ latents.sum(2)
            sums.squares = sums.squares + chosen @ latents.square().sum(2)
            sums.levels += [torch.tensor(active_rms(item, codec.sample_rate)) for item in wav]
    return sums
