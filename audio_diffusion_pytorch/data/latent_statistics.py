"""Latent statistics of a training set."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from torch.nn import functional as F

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.loader import batches_of
from audio_diffusion_pytorch.models.labels import Labels


def statistics(dataset: "InstrumentDataset") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the latents' statistics are made of: weights [K, 1], weighted sums of the latents and of their squares
    [K, D], and RMS of the sounding parts (median over the recordings, []), for each of the K instruments that the data
    set tells apart.

    Of every frame of the recordings; each recording, and each of its takes, counts as often as training draws it.
    """
    cache, levels = dataset.cache, []
    rows = max(len(dataset.labels.instruments), 1) if dataset.labels else 1
    weight, sums, squares = torch.zeros(rows, 1).double(), 0.0, 0.0
    block = max(1, round(0.05 * cache.sample_rate / cache.hop))  # frames in 50 ms
    for file in tqdm(dataset.wavs, desc="latent statistics", unit="file", delay=2):
        if file not in cache.digests:
            continue
        of = torch.zeros(rows, 1).double()
        of[dataset.instrument_number(file)] = 1.0
        for take, share in dataset.takes(file):
            latents, peak, rms = cache.whole(file, take, dataset.length, dataset.span)
            if not dataset.audible(float(peak.max())):
                continue
            latents = latents.double()
            weight += share * of
            sums = sums + share * of * latents.mean(1)
            squares = squares + share * of * latents.square().mean(1)
            power = (
                torch.nn.functional.pad(rms.square(), (0, -len(rms) % block))
                .unflatten(0, (-1, block))
                .mean(1)
            )
            levels.append(power[power >= power.max() * 1e-3].mean().sqrt())
    if not levels:
        raise InputError(
            f"no recording in {dataset.paths} can be used: each is silent or could not be read"
        )
    return weight, sums, squares, torch.stack(levels).median()


@torch.no_grad()
def latent_statistics(
    codec: Codec, datamodule: Datamodule, labels: Labels | None = None, max_items: int = 1024
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation per latent channel, and the RMS of the sounding parts (median, scalar).

    Over crops of the training files, as training sees them; or over all of what is in the latent cache.

    Returns:
        [D], or where `labels` tell instruments apart [instruments, D], twice; and [].
    """
    names = labels.instruments if labels else ()
    if datamodule.latents:
        return _regular(*statistics(datamodule.train_set), bool(names))
    loader = datamodule.train_dataloader()
    total = min(len(loader), max(1, max_items // datamodule.batch_size))
    rows = max(len(names), 1)
    count, sums, squares, levels = torch.zeros(rows, 1).double(), 0.0, 0.0, []
    with batches_of(loader) as batches:
        for index, batch in enumerate(
            tqdm(batches, desc="latent statistics", total=total, unit="batch")
        ):
            if index == total:
                break
            wav, label = (batch, None) if isinstance(batch, Tensor) else batch
            latents = codec.encode(wav).cpu().double()
            number = labels.instrument(label) if names else torch.zeros(len(wav), dtype=torch.long)
            of = F.one_hot(number, rows).double().T  # [instruments, B]
            count += of.sum(1, keepdim=True) * latents.shape[2]
            sums = sums + of @ latents.sum(2)
            squares = squares + of @ latents.square().sum(2)
            levels += [active_rms(item, codec.sample_rate) for item in wav]
    return _regular(count, sums, squares, torch.tensor(levels).median(), bool(names))


def _regular(
    count: Tensor, sums: Tensor, squares: Tensor, level: Tensor, several: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and level in single precision; channels without variation are not divided by zero, and an
    instrument that was not drawn has the statistics of all."""
    mean, square = (
        torch.where(count > 0, x / count, x.sum(0) / count.sum()) for x in (sums, squares)
    )
    std = (square - mean.square()).clamp_min(0).sqrt()
    mean, std = mean.float(), std.clamp_min(1e-3 * std.max()).float()
    return (mean, std, level) if several else (mean[0], std[0], level)
