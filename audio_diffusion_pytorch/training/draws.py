"""Draw the random numbers of a training step."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from audio_diffusion_pytorch.diffusion.coupling import ChunkCoupling
from audio_diffusion_pytorch.training.randomness import generator_for


class Draws(NamedTuple):
    """Random numbers of B samples.

    Args:
        noise: standard normal noise [B, D, L].
        sigma: uniform numbers of the noise levels [B].
        label: uniform numbers of the label dropout [B]; None: not drawn.
        melody: uniform numbers of the melody dropout [B]; None: not drawn.
    """

    noise: Tensor
    sigma: Tensor
    label: Tensor | None
    melody: Tensor | None


def draw_by_sample(
    z: Tensor,
    seed: int,
    step: int,
    first: int,
    coupling: ChunkCoupling | None,
    with_label: bool,
    with_melody: bool,
) -> Draws:
    """Draw with one generator for each sample: a sample's numbers do not depend on the batch size.

    Args:
        z: normalised latents [B, D, L].
        seed: key of the run.
        step: optimiser step.
        first: index of the first sample in the global batch.
        coupling: optimal-transport coupling of noise and latents; None: independent noise.
        with_label: draw numbers for the label dropout.
        with_melody: draw numbers for the melody dropout.
    """
    generators = [generator_for(seed, step, first + index, z.device) for index in range(len(z))]
    one = z.shape[1:]
    sigma = [torch.rand((), generator=source, device=z.device) for source in generators]
    noise = [torch.randn(one, generator=source, device=z.device) for source in generators]
    if coupling is not None:
        noise = list(map(coupling, z, noise, generators))
    label = _uniforms(generators, z.device) if with_label else None
    melody = _uniforms(generators, z.device) if with_melody else None
    return Draws(torch.stack(noise), torch.stack(sigma), label, melody)


def _uniforms(generators: Iterable[torch.Generator], device: torch.device) -> Tensor:
    return torch.stack([torch.rand((), generator=one, device=device) for one in generators])


def draw_by_batch(
    z: Tensor,
    seed: int,
    step: int,
    first: int,
    coupling: ChunkCoupling | None,
    with_label: bool,
    with_melody: bool,
) -> Draws:
    """Draw with one generator for the whole batch: few kernels on a GPU; see `draw_by_sample`."""
    generator = generator_for(seed, step, first, z.device)
    sigma, label, melody = torch.rand(3, len(z), generator=generator, device=z.device)
    noise = torch.randn(z.shape, generator=generator, device=z.device)
    if coupling is not None:
        pairs = zip(z, noise, strict=True)
        noise = torch.stack([coupling(latents, drawn, generator) for latents, drawn in pairs])
    return Draws(noise, sigma, label if with_label else None, melody if with_melody else None)


DRAWS = {"sample": draw_by_sample, "batch": draw_by_batch}
