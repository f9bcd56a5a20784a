"""The validation loss is independent of batch size, processes and range of noise levels."""

import pytest
import torch
from conftest import TINY_UNET
from tolerances import NETWORK

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, KDistribution
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.validation_loss import FIXED_SIGMAS, ValidationLoss


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    return Denoiser(UNet1d(**TINY_UNET))


def losses(denoiser, *batches: list[int], sigma_max: float = 10.0) -> dict[str, float]:
    """Over latents that are keyed by the item's number, in the given batches."""
    validation = ValidationLoss(KDistribution(0.01, sigma_max))
    for items in batches:
        z = torch.stack(
            [torch.randn(128, 8, generator=torch.Generator().manual_seed(item)) for item in items]
        )
        means = validation(denoiser, z, items)
    return {name: float(mean.compute()) for name, mean in means.items()}


def test_batches_do_not_matter(denoiser):
    whole = losses(denoiser, list(range(7)))
    torch.manual_seed(5)
    assert losses(denoiser, [4, 0, 1], [6], [5, 2, 3]) == pytest.approx(whole, rel=NETWORK)
    assert losses(denoiser, [0, 1, 2, 3, 4, 5, 8])["valid_loss_fixed"] != pytest.approx(
        whole["valid_loss_fixed"], rel=NETWORK
    )


def test_the_fixed_part_knows_no_range_of_noise_levels(denoiser):
    first, second = (losses(denoiser, [0, 1, 2], sigma_max=sigma_max) for sigma_max in (5.0, 100.0))
    # Other noise changes the loss by far more than rounding.
    assert first.pop("valid_loss") != pytest.approx(second.pop("valid_loss"), rel=1e-3)
    assert first == second
    by_sigma = [first[f"valid_loss_by_sigma/{sigma:g}"] for sigma in FIXED_SIGMAS]
    assert (
        sum(by_sigma) / len(by_sigma) == pytest.approx(first["valid_loss_fixed"])
        and len(set(by_sigma)) == 5
    )


def test_the_runs_own_levels_are_its_distributions_quantiles(denoiser, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Denoiser, "loss", lambda self, x, noise, sigma, label=None: seen.append(sigma) or x[:, 0, 0]
    )
    losses(denoiser, list(range(16)))
    assert torch.allclose(seen[0], KDistribution(0.01, 10.0).icdf((torch.arange(16) + 0.5) / 16))
    assert seen[1:] == list(FIXED_SIGMAS)


def test_nan_is_not_left_out(denoiser, monkeypatch):
    monkeypatch.setattr(
        Denoiser, "loss", lambda self, x, noise, sigma, label=None: x[:, 0, 0] * float("nan")
    )
    assert all(value != value for value in losses(denoiser, [0, 1]).values())
