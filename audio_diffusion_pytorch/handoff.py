"""The noise that the source's model hands to the target's, made like the noise that the target's model knows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge import Bridge
    from audio_diffusion_pytorch.codec import Codec
    from audio_diffusion_pytorch.instrument import InstrumentModel

HANDOFFS = ("auto", "matched", "plain")
LEVELS = (1.0, 2.0, 4.0, 8.0)  # noise levels at which statistics are taken
_BANDS = 2  # standard deviation of the Gaussian that smooths over neighbouring channels
_FRAMES = 16  # of sound at which a window's own statistics and the known ones count alike


def match(noise: Tensor, sounding: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Noise whose averages over time are those of the target's own recordings.

    A perfect model would take its instrument's latents to Gaussian noise, alike in every channel. A real one leaves
    some of the recording's average spectrum in it, most where the recording is unlike its training data, and the
    target's model then plays that. Here each channel is shifted and scaled to the mean and deviation that the
    target's recordings have as noise. A recording's own are those of its frames that sound, smoothed over neighbouring
    channels: single partials, the melody, stay.

    Args:
        noise: [B, D, L], of latents whose channels are neighbouring frequency bands.
        sounding: [B, L] 1 in the frames that hold sound, 0 in silence.
        mean, std: [D] of the target's recordings, at the noise's level.

    Returns:
        [B, D, L].
    """
    weights = sounding[:, None].to(noise)
    count = weights.sum(-1, keepdim=True) + _FRAMES
    mean, std = mean[:, None], std[:, None]
    own = _smooth(((noise * weights).sum(-1, keepdim=True) + _FRAMES * mean) / count)
    power = ((noise - own).square() * weights).sum(-1, keepdim=True) + _FRAMES * std.square()
    return (noise - own) * (std / _smooth(power / count).sqrt()) + mean


def statistics_at(statistics: Mapping[str, Sequence], sigma: float) -> tuple[Tensor, Tensor]:
    """What `noise_statistics` gave -> mean and standard deviation [D] at a noise level, between those measured."""
    levels = [math.log(level) for level in statistics["sigma"]]
    at = min(max(math.log(sigma), levels[0]), levels[-1])
    above = next(i for i, level in enumerate(levels) if level >= at - 1e-9)
    below = max(above - 1, 0)
    share = (at - levels[below]) / (levels[above] - levels[below]) if above > below else 0.0
    mean, relative = (torch.tensor(statistics[name]) for name in ("mean", "std"))
    mean, relative = (torch.lerp(x[below], x[above], share) for x in (mean, relative))
    return mean, relative * math.sqrt(sigma**2 + 1)


def noise_statistics(model: "InstrumentModel", wavs: Iterable[Tensor], sample_rate: int, codec: "Codec") -> dict:
    """Mean and deviation of an instrument's recordings as noise of its own model.

    Args:
        model: as a target, see `take_of`.
        wavs: recordings [C, T] in [-1, 1].
        sample_rate: in Hz.
        codec: the model's.

    Returns:
        sigma [K], mean [K, D], and std [K, D] as a share of sqrt(sigma^2 + 1); lists, rounded. Empty where there is no
        sound.
    """
    from tqdm import tqdm

    from audio_diffusion_pytorch.bridge import Bridge

    levels = [level for level in LEVELS if model.spec.sigma_min * 10 < level <= model.spec.sigma_max]
    wavs, found = list(wavs), []
    with tqdm(desc=f"measuring the {model.spec.name} as noise", total=len(levels) * len(wavs), unit="clip") as bar:
        for level in levels:
            bridge = Bridge(model, model, level, handoff="plain", codec=codec, device=model.mean.device)
            total = torch.zeros(3, len(model.mean), dtype=torch.float64)
            for wav in wavs:
                total += _sums(bridge, wav, sample_rate)
                bar.update()
            if not total[0].all():
                return {}
            mean, square = total[1:] / total[0]
            found.append((mean, (square - mean.square()).clamp_min(1e-6).sqrt() / math.sqrt(level**2 + 1)))
    rounded = [[[round(value, 4) for value in row.tolist()] for row in rows] for rows in zip(*found, strict=True)]
    return dict(zip(("sigma", "mean", "std"), (levels, *rounded), strict=True)) if found else {}


def _sums(bridge: "Bridge", wav: Tensor, sample_rate: int) -> Tensor:
    """Sounding frames of a recording, and over them sums of its noise and of the noise's squares: [3, D]."""
    encoded = bridge.encode(wav, sample_rate)
    sounding = torch.stack([window.sounding for window in encoded.windows])[:, None].double()
    noise = encoded.noise.cpu().double()
    sums = sounding.expand_as(noise), sounding * noise, sounding * noise.square()
    return torch.stack([x.sum((0, 2)) for x in sums])


def noise_of_instruments(
    model: "InstrumentModel", wavs: Mapping[str, Sequence[Tensor]], sample_rate: int, codec: "Codec"
) -> dict:
    """`noise_statistics` as `InstrumentSpec.noise` keeps them, of whatever a model tells apart.

    Args:
        model: of one or several instruments.
        wavs: instrument -> recordings [C, T].
    """
    from audio_diffusion_pytorch.instrument import one_of, take_of
    from audio_diffusion_pytorch.labels import Labels

    several = Labels(model.spec.labels).instruments
    if not several:
        return noise_statistics(take_of(model, "plain"), wavs[model.spec.name], sample_rate, codec)
    targets = {name: take_of(one_of(model, name), "plain") for name in several if wavs.get(name)}
    return {name: noise_statistics(target.eval(), wavs[name], sample_rate, codec) for name, target in targets.items()}


def _smooth(x: Tensor) -> Tensor:
    """Gaussian average over neighbouring channels of [B, D, 1]; at the edges of those that are there."""
    offsets = torch.arange(-3 * _BANDS, 3 * _BANDS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / _BANDS) ** 2)[None, None]
    x = x.transpose(1, 2)
    pad = kernel.shape[-1] // 2
    return (F.conv1d(x, kernel, padding=pad) / F.conv1d(torch.ones_like(x), kernel, padding=pad)).transpose(1, 2)
