"""Replace some latents by denoised ones, which are as inexact as the latents of a bridge."""

import math

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.training.randomness import generator_for
from audio_diffusion_pytorch.utils.settings import check_number


class DenoisedLatents:
    """Add noise to the latents of some samples, and denoise them in one evaluation.

    Args:
        source: model whose labels equal those of the samples, as for `load_instrument`.
        share: share of the samples.
        lowest: lowest noise level; noise levels are log-uniform.
        highest: highest noise level.
        seed: key of the random numbers.

    Attributes:
        model: the model.

    Raises:
        InputError: a setting is wrong, or the model has no labels of instruments.
    """

    def __init__(
        self,
        source: str,
        share: float = 0.5,
        lowest: float = 0.05,
        highest: float = 1.6,
        seed: int = 0,
    ):
        check_number("model.denoised.share", share, least=0, most=1)
        check_number("model.denoised.lowest", lowest, above=0)
        check_number("model.denoised.highest", highest, least=lowest)
        self.model = load_instrument(source, whole=True).eval()
        if not Labels(self.model.spec.labels).instruments:
            raise InputError(
                f"model.denoised.source={source} is a model of one instrument: name a model of "
                "several instruments, or set model.denoised=null"
            )
        self.share = share
        self.levels = (math.log(lowest), math.log(highest))
        self.seed = seed

    @torch.no_grad()
    def __call__(self, latents: Tensor, label: Tensor, step: int, rank: int) -> Tensor:
        """Replace some latents.

        Args:
            latents: latents of the model's codec [B, D, L].
            label: labels [B].
            step: optimiser step, which keys the random numbers.
            rank: number of the process, likewise.

        Returns:
            [B, D, L].
        """
        model = self.model.to(latents.device)
        # Drawn on the CPU: the same numbers on each device.
        generator = generator_for(self.seed, step, rank, torch.device("cpu"))
        place, level = torch.rand(2, len(latents), generator=generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        chosen = place < self.share
        if not chosen.any():
            return latents
        low, high = self.levels
        sigma = (low + (high - low) * level[chosen]).exp()
        instrument = Labels(model.spec.labels).instrument(label[chosen])
        mean, std = (x[instrument][..., None] for x in (model.mean, model.std))
        noisy = (latents[chosen] - mean) / std + sigma[:, None, None] * noise[chosen]
        result = latents.clone()
        result[chosen] = model.denoiser(noisy, sigma, label[chosen]) * std + mean
        return result
