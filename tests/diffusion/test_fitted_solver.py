"""The solver with fitted weights: its fit, its start, and the trajectories that it learns from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audio_diffusion_pytorch.diffusion.fitted_solver import (
    Trajectory,
    fit_weights,
    fitted_multistep,
)
from audio_diffusion_pytorch.diffusion.sampling import dpmpp_3m, karras_schedule


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


class SpreadGaussian:
    """The exact denoiser of normal data with a spread of its own in each column."""

    spread = torch.linspace(0.2, 1.5, 16, dtype=torch.float64)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x * self.spread**2 / (self.spread**2 + sigma[:, None] ** 2)

    def solution(self, x: torch.Tensor, begin: float, end: float) -> torch.Tensor:
        return x * torch.sqrt((self.spread**2 + end**2) / (self.spread**2 + begin**2))


@pytest.mark.parametrize("rising", [False, True], ids=["to data", "to noise"])
def test_fitted_weights_come_closer_than_the_solver_that_they_start_from(rising: bool):
    denoise = SpreadGaussian()
    sigmas = karras_schedule(0.02, 5.0, 7.0, 5)
    sigmas = sigmas.flip(0) if rising else sigmas
    begin, *inner, end = sigmas.tolist()
    scale = torch.sqrt(denoise.spread**2 + begin**2)
    starts = [scale * torch.randn(32, 16, dtype=torch.float64) for _ in range(2)]
    exact = [starts[0], *(denoise.solution(starts[0], begin, level) for level in [*inner, end])]
    weights, found = fit_weights(denoise, exact, sigmas)
    assert [len(row) for row in weights] == [2, 3, 4, 5]
    again = fitted_multistep(denoise, starts[0], sigmas, weights)
    assert torch.allclose(found, again, rtol=1e-9)
    expected = denoise.solution(starts[1], begin, end)  # values that the fit did not receive
    fitted = fitted_multistep(denoise, starts[1], sigmas, weights)
    plain = dpmpp_3m(denoise, starts[1], sigmas)
    assert relative_error(fitted, expected) < 0.1 * relative_error(plain, expected)


def test_weights_of_zero_leave_the_multistep_solver():
    denoise, x = SpreadGaussian(), torch.randn(2, 16, dtype=torch.float64)
    sigmas = karras_schedule(0.1, 5.0, 7.0, 6)
    zeros = [[0.0] * (step + 2) for step in range(5)]
    steps: list[tuple[int, int]] = []
    found = fitted_multistep(
        denoise, x, sigmas, zeros, lambda step, count: steps.append((step, count))
    )
    assert torch.equal(found, dpmpp_3m(denoise, x, sigmas))
    assert steps == [(step, 5) for step in range(1, 6)]
    with pytest.raises(ValueError):
        fitted_multistep(denoise, x, sigmas, zeros[:-1])


@pytest.mark.parametrize("rising", [False, True], ids=["to data", "to noise"])
@given(share=st.floats(0, 1))
def test_a_trajectory_has_the_solution_at_every_level(rising: bool, share: float):
    denoise = SpreadGaussian()
    sigmas = karras_schedule(0.01, 8.0, 7.0, 64)
    sigmas = sigmas.flip(0) if rising else sigmas
    begin, end = sigmas[0].item(), sigmas[-1].item()
    start = torch.linspace(-3, 3, 16, dtype=torch.float64).expand(2, -1) * (8.0 if end < 1 else 1)
    trajectory = Trajectory(denoise, start, sigmas)
    level = begin * (end / begin) ** share
    level = min(max(level, 0.01), 8.0)
    assert relative_error(trajectory.at(level), denoise.solution(start, begin, level)) < 1e-3
    assert torch.equal(trajectory.at(begin), start)
    assert relative_error(trajectory.end, denoise.solution(start, begin, end)) < 1e-4
