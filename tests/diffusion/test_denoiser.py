"""Denoiser: the reference's output and loss, the preconditioning, training noise levels."""

import math

import pytest
import torch
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DOUBLE, NETWORK
from torch import nn

from audio_diffusion_pytorch.diffusion.denoiser import (
    Denoiser,
    KDistribution,
    LogNormalDistribution,
    UniformDistribution,
)
from audio_diffusion_pytorch.models.original_checkpoint import load_unet_state
from audio_diffusion_pytorch.models.unet import UNet1d

DISTRIBUTIONS = [
    KDistribution(0.001, 5.0, 9.0),
    LogNormalDistribution(-1.2, 1.2),
    UniformDistribution(0.1, 2.0),
]


class Recorder(nn.Module):
    """Network that returns `output` and stores its inputs."""

    def __init__(self, output: float = 0.0):
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        self.x, self.c_noise = x, c_noise
        return torch.full_like(x, self.output)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def golden() -> dict:
    return torch.load(DATA / "tiny_golden.pt", weights_only=True)


@pytest.fixture(scope="module")
def tiny(golden: dict) -> Denoiser:
    denoiser = Denoiser(UNet1d(**golden["arch"]), sigma_data=1.0)
    denoiser.net.load_state_dict(load_unet_state(DATA / "tiny_reference.ckpt", unet=golden["arch"]))
    return denoiser.requires_grad_(False)


def test_denoised_equals_the_reference(tiny: Denoiser, golden: dict):
    assert (
        relative_error(tiny(golden["latents"], golden["sigmas_in"]), golden["denoised"]) < NETWORK
    )


def test_loss_equals_the_reference(tiny: Denoiser, golden: dict):
    loss = tiny.loss(golden["latents"], golden["noise"], golden["sigmas_in"])
    assert loss.shape == (2,)
    assert relative_error(loss, golden["losses"]) < NETWORK


def test_loss_of_a_sample_does_not_depend_on_its_batch(tiny: Denoiser, golden: dict):
    together = tiny.loss(golden["latents"], golden["noise"], golden["sigmas_in"])
    alone = tiny.loss(golden["latents"][1:], golden["noise"][1:], golden["sigmas_in"][1:])
    assert relative_error(alone, together[1:]) < NETWORK


@given(sigma=st.floats(1e-3, 1e2), sigma_data=st.floats(0.1, 10))
def test_preconditioning(sigma: float, sigma_data: float):
    """Input and target of the network have variance 1; c_noise is ln(sigma) / 4 (EDM, B.6)."""
    variance = sigma**2 + sigma_data**2
    net = Recorder()
    denoiser = Denoiser(net, sigma_data)
    x = torch.full((2, 3, 4), math.sqrt(variance), dtype=torch.float64)
    skipped = denoiser(x, sigma)
    assert torch.allclose(net.x, torch.ones_like(x))
    assert torch.allclose(net.c_noise, torch.full((2,), math.log(sigma) / 4, dtype=torch.float64))
    assert torch.allclose(skipped, sigma_data**2 / variance * x)
    net.output = 1.0
    added = denoiser(x, sigma) - skipped
    assert torch.allclose(added, torch.full_like(x, sigma * sigma_data / math.sqrt(variance)))


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_an_untrained_network_has_a_loss_of_one_at_every_noise_level(sigma: float):
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.randn(1, 100, 1000, generator=generator)
    noise = torch.randn(1, 100, 1000, generator=generator)
    denoiser = Denoiser(Recorder(), sigma_data=0.5)
    # 100,000 squares of normal numbers: their mean scatters by 0.5 %.
    assert denoiser.loss(x, noise, sigma).item() == pytest.approx(1, abs=0.02)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    plain = denoiser.loss(x, noise, sigma, weighted=False)
    assert plain.item() * weight == pytest.approx(
        denoiser.loss(x, noise, sigma).item(), rel=NETWORK
    )


def test_sigma_may_be_one_number_or_one_per_sample(tiny: Denoiser, golden: dict):
    x = golden["latents"]
    expected = tiny(x, torch.tensor([0.3, 0.3]))
    for sigma in (
        0.3,
        torch.tensor(0.3),
        torch.tensor([0.3]),
        torch.tensor([0.3, 0.3], dtype=torch.float64),
    ):
        assert torch.equal(tiny(x, sigma), expected)


def test_sigma_that_does_not_fit_is_refused():
    denoiser = Denoiser(Recorder())
    with pytest.raises(ValueError, match=r"sigma must be \[2\] or a single value, got \[3\]"):
        denoiser(torch.zeros(2, 1, 4), torch.ones(3))
    with pytest.raises(ValueError, match=r"sigma must be positive, got 0\.0"):
        denoiser(torch.zeros(2, 1, 4), 0.0)
    with pytest.raises(ValueError, match="sigma_data must be positive, got 0"):
        Denoiser(Recorder(), sigma_data=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_is_kept(dtype: torch.dtype):
    net = Recorder()
    assert Denoiser(net)(torch.zeros(2, 1, 4, dtype=dtype), torch.ones(2)).dtype == dtype
    assert net.x.dtype == net.c_noise.dtype == dtype


def test_gradients_reach_every_parameter(golden: dict):
    torch.manual_seed(0)
    denoiser = Denoiser(UNet1d(**golden["arch"]))
    denoiser.loss(golden["latents"], golden["noise"], golden["sigmas_in"]).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_draws_are_the_map_of_the_generators_uniform_numbers(distribution):
    sigmas = distribution(1000, generator=torch.Generator().manual_seed(1))
    u = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sigmas, distribution.icdf(u))
    # The noise level of a sample depends on its own number only.
    assert torch.equal(sigmas[7], distribution.icdf(u[7]))
    assert sigmas.shape == (1000,) and sigmas.dtype == torch.float32 and (sigmas > 0).all()
    assert distribution.icdf(torch.tensor([0.0, 1.0])).isfinite().all()  # torch.rand may answer 0
    torch.manual_seed(3)
    drawn = distribution(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, distribution(4))


@given(
    low=st.floats(1e-4, 1),
    ratio=st.floats(1, 1e4),
    rho=st.floats(1, 12),
    u=st.floats(0, 1),
    v=st.floats(0, 1),
)
def test_k_distribution_is_uniform_in_the_root(
    low: float, ratio: float, rho: float, u: float, v: float
):
    high = low * ratio
    distribution = KDistribution(low, high, rho)
    a, b = distribution.icdf(torch.tensor([u, v], dtype=torch.float64)).tolist()
    assert low * (1 - 1e-9) <= a <= high * (1 + 1e-9)
    assert (u - v) * (a - b) <= DOUBLE  # falls
    left, right = high ** (1 / rho), low ** (1 / rho)
    assert a ** (1 / rho) == pytest.approx(left + u * (right - left), rel=DOUBLE)


def test_quantiles():
    u = torch.tensor([0.5, 0.8413447460685429], dtype=torch.float64)
    log = LogNormalDistribution(-1.2, 1.5).icdf(u).log()
    assert torch.allclose(log, torch.tensor([-1.2, 0.3], dtype=torch.float64))
    assert torch.allclose(
        UniformDistribution(1.0, 3.0).icdf(u[:1]), torch.tensor([2.0], dtype=torch.float64)
    )
    ends = KDistribution(0.001, 5.0, 9.0).icdf(torch.tensor([0.0, 1.0]))
    assert torch.allclose(ends, torch.tensor([5.0, 0.001]), rtol=NETWORK)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KDistribution(0.0, 5.0, 9.0), "sigma_min=0.0"),
        (lambda: KDistribution(6.0, 5.0, 9.0), "sigma_max=5.0"),
        (lambda: KDistribution(0.1, 5.0, 0.0), "rho=0.0"),
        (lambda: LogNormalDistribution(0.0, -1.0), "got -1.0"),
        (lambda: UniformDistribution(2.0, 1.0), "vmin=2.0, vmax=1.0"),
    ],
)
def test_distributions_that_cannot_be_are_refused(build, message: str):
    with pytest.raises(ValueError, match=message):
        build()
