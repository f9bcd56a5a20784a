"""Measure the validation loss on fixed crops, noise levels and noise."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, SigmaDistribution
from audio_diffusion_pytorch.training.randomness import generator_for

FIXED_SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0)  # within the range of every experiment
_QUANTILES = 16
_SEED = 20240906  # independent of the run, so that runs with different seeds share the noise


class ValidationLoss(nn.Module):
    """Average the loss over the validation items, independently of batches and processes.

    - `valid_loss`: each item at one noise level, a quantile of the run's distribution; the
      quantiles alternate.
    - `valid_loss_by_sigma/S`: each item at noise level S of `FIXED_SIGMAS`.
    - `valid_loss_fixed`: mean over `FIXED_SIGMAS`. Noise levels, weights and noise are equal in
      every run, so that runs with different distributions compare.
    - `valid_loss_without_melody`: `valid_loss` of a network with a melody input, without melody.

    Args:
        distribution: noise levels of training.
        has_melody: whether the network has a melody input.
    """

    def __init__(self, distribution: SigmaDistribution, has_melody: bool = False):
        super().__init__()
        self.distribution = distribution
        names = (
            "valid_loss",
            "valid_loss_fixed",
            *(f"valid_loss_by_sigma/{sigma:g}" for sigma in FIXED_SIGMAS),
            *(("valid_loss_without_melody",) if has_melody else ()),
        )
        self.names = names
        # Lightning's own averages weight the batches of several processes by a rounded batch size.
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in names)

    @torch.no_grad()
    def forward(
        self,
        denoiser: Denoiser,
        z: Tensor,
        items: Sequence[int],
        label: Tensor | None = None,
        melody: Tensor | None = None,
    ) -> dict[str, MeanMetric]:
        """Add a batch to the averages.

        Args:
            denoiser: denoiser with the averaged weights.
            z: normalised latents [B, D, L].
            items: numbers of the validation items [B].
            label: labels [B]; None for a model without labels.
            melody: melody [B, M, L]; None for a network without a melody input.

        Returns:
            The averages by their names in the logs.
        """
        # The CPU's generator draws equal numbers on every machine.
        noise = torch.stack(
            [torch.randn(z.shape[1:], generator=generator_for(_SEED, 0, item)) for item in items]
        )
        noise = noise.to(z.device, z.dtype)
        quantiles = (torch.tensor(items, device=z.device) % _QUANTILES + 0.5) / _QUANTILES
        sigmas = self.distribution.icdf(quantiles)
        given: dict[str, Any] = {"label": label}
        if melody is not None:
            given["melody"] = melody
        own = denoiser.loss(z, noise, sigmas, **given)
        by_sigma = [denoiser.loss(z, noise, sigma, **given) for sigma in FIXED_SIGMAS]
        means: list[MeanMetric] = list(self.means)
        losses = [own, torch.stack(by_sigma).mean(0), *by_sigma]
        if melody is not None:
            losses.append(denoiser.loss(z, noise, sigmas, label=label))
        for mean, values in zip(means, losses, strict=True):
            mean.update(values)
        return dict(zip(self.names, means, strict=True))
