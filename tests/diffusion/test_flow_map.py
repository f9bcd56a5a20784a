"""Flow maps: a step of the ODE in theta, in both directions."""

import pytest
import torch
from torch import nn

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.flow_map import FlowMap, follow
from audio_diffusion_pytorch.diffusion.sampling import heun, karras_schedule

SIGMA_DATA = 0.7


class Net(nn.Module):
    """A smooth network that ignores the end of a step."""

    def forward(self, x, c_noise, c_end=None):
        return torch.tanh(x.flip(1)) * (1 + c_noise[:, None, None])


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rising", [False, True])
def test_many_steps_solve_the_ode_of_the_denoiser(rising, x):
    """A network that ignores the end: Euler's method in theta, of first order."""
    sigmas = karras_schedule(0.05, 5.0, 7.0, 400)
    sigmas = sigmas.flip(0) if rising else sigmas
    expected = heun(Denoiser(Net(), SIGMA_DATA), x, sigmas)
    errors = [
        (follow(FlowMap(Net(), SIGMA_DATA), x, sigmas[::every]) - expected).norm() / expected.norm()
        for every in (7, 1)
    ]
    assert errors[1] < 0.01 and errors[1] < errors[0] / 4


def test_the_network_receives_both_levels(x):
    given = []

    class Spy(nn.Module):
        def forward(self, x, c_noise, **conditions):
            given.append((c_noise, conditions))
            return torch.zeros_like(x)

    flow = FlowMap(Spy(), SIGMA_DATA)
    label, melody = torch.ones(3), torch.ones(3, 2, 8)
    end = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    out = flow(x, torch.ones(3), end, label=label, melody=melody)
    scale = ((end**2 + SIGMA_DATA**2) / (1 + SIGMA_DATA**2)).sqrt()  # of Gaussian data
    assert torch.allclose(out, x * scale[:, None, None])
    c_noise, conditions = given[0]
    assert torch.equal(c_noise, torch.zeros(3)) and conditions["label"] is label
    assert torch.allclose(conditions["c_end"], end.log() / 4) and conditions["melody"] is melody


def test_a_step_of_no_length_changes_nothing(x):
    assert torch.allclose(FlowMap(Net())(x, 2.0, 2.0), x)
