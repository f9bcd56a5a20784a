"""The validation loss: fixed crops, fixed noise levels, fixed noise."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, SigmaDistribution
from audio_diffusion_pytorch.training.randomness import generator_for

FIXED_SIGMAS = (0.03, 0.1, 0.3, 1.0, 3.0)  # within the range of every experiment
_QUANTILES = 16
_SEED = 20240906  # no run's own: two runs with different seeds are judged on the same noise


class ValidationLoss(nn.Module):
    """Averages over the validation items, the same for any batch size and any number of processes.

    - `valid_loss`: each item at one noise level of the run's own distribution, its quantiles in turn.
    - `valid_loss_by_sigma/S`: every item at noise level S, one of `FIXED_SIGMAS`.
    - `valid_loss_fixed`: the average of those. Noise levels, weights and noise are the same in every run, so that
      runs with another range of noise levels compare.
    """

    def __init__(self, distribution: SigmaDistribution):
        super().__init__()
        self.distribution = distribution
        names = (
            "valid_loss",
            "valid_loss_fixed",
            *(f"valid_loss_by_sigma/{sigma:g}" for sigma in FIXED_SIGMAS),
        )
        self.names = names
        # By hand Lightning would weight the processes' batches by an average batch size that it rounds.
        self.means = nn.ModuleList(MeanMetric(nan_strategy="disable") for _ in names)

    @torch.no_grad()
    def forward(
        self, denoiser: Denoiser, z: Tensor, items: Sequence[int], label: Tensor | None = None
    ) -> dict[str, MeanMetric]:
        """Take in latents z [B, D, L] of the validation items `items` (their numbers); returns what is to be logged."""
        # drawn on the CPU, whose generator gives the same numbers on every machine
        noise = torch.stack(
            [torch.randn(z.shape[1:], generator=generator_for(_SEED, 0, item)) for item in items]
        )
        noise = noise.to(z.device, z.dtype)
        quantiles = (torch.tensor(items, device=z.device) % _QUANTILES + 0.5) / _QUANTILES
        own = denoiser.loss(z, noise, self.distribution.icdf(quantiles), label=label)
        by_sigma = [denoiser.loss(z, noise, sigma, label=label) for sigma in FIXED_SIGMAS]
        for mean, losses in zip(
            self.means, [own, torch.stack(by_sigma).mean(0), *by_sigma], strict=True
        ):
            mean.update(losses)
        return dict(zip(self.names, self.means, strict=True))
