"""Schedules and solvers: the reference's trajectories, orders of convergence, exact cases."""

import itertools
import math

import pytest
import torch
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DOUBLE, NETWORK, ROUNDING

from audio_diffusion_pytorch.bridge.presets import QUALITY
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.sampling import (
    SOLVERS,
    _mean_weights,
    ancestral_euler,
    ancestral_midpoint,
    append_zero,
    dpmpp_2m,
    heun,
    karras_schedule,
    linear_schedule,
    multistep_rows,
    unipc,
)
from audio_diffusion_pytorch.models.original_checkpoint import load_unet_state
from audio_diffusion_pytorch.models.unet import UNet1d

SPREAD = 0.7
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


class Gaussian:
    """The exact denoiser of data from N(0, SPREAD^2); keeps the noise levels it was asked for."""

    def __init__(self):
        self.sigmas = []

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == x.shape[:1]
        self.sigmas.append(sigma[0].item())
        sigma = sigma.reshape(-1, 1, 1)
        return x * SPREAD**2 / (SPREAD**2 + sigma**2)

    @staticmethod
    def solution(x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        start, end = sigmas[0].item(), sigmas[-1].item()
        return x * math.sqrt((SPREAD**2 + end**2) / (SPREAD**2 + start**2))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def golden() -> dict:
    return torch.load(DATA / "tiny_golden.pt", weights_only=True)


@pytest.fixture(scope="module")
def tiny(golden: dict) -> Denoiser:
    denoiser = Denoiser(UNet1d(**golden["arch"]))
    denoiser.net.load_state_dict(load_unet_state(DATA / "tiny_reference.ckpt", unet=golden["arch"]))
    return denoiser


def test_karras_schedule_equals_the_reference(golden: dict):
    sigmas = karras_schedule(0.001, golden["sigma_max"], 9.0, golden["num_steps"])
    assert sigmas.shape == (8,) and sigmas.dtype == torch.float64
    assert relative_error(append_zero(sigmas), golden["karras_sigmas"].double()) < ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heun_equals_the_reference(tiny: Denoiser, golden: dict, dtype: torch.dtype):
    sigmas = karras_schedule(0.001, golden["sigma_max"], 9.0, golden["num_steps"]).to(dtype)
    encoded = heun(tiny, golden["latents"], sigmas.flip(0))
    assert encoded.dtype == torch.float32 and not encoded.requires_grad
    assert relative_error(encoded, golden["encoded"]) < NETWORK
    assert relative_error(heun(tiny, golden["encoded"], sigmas), golden["decoded"]) < NETWORK
    assert torch.equal(encoded, heun(tiny, golden["latents"], sigmas.flip(0)))


def test_more_steps_bring_the_reference_network_back_to_its_latents(tiny: Denoiser, golden: dict):
    for solver, steps, tolerance in ((heun, 25, 1e-2), (dpmpp_2m, 49, 3e-3)):  # 48 calls each way
        sigmas = karras_schedule(0.001, golden["sigma_max"], 9.0, steps)
        back = solver(tiny, solver(tiny, golden["latents"], sigmas.flip(0)), sigmas)
        assert relative_error(back, golden["latents"]) < tolerance


@pytest.mark.parametrize("rising", [False, True], ids=["to data", "to noise"])
@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 3), ("unipc", 4)]
)
def test_order_of_convergence(name: str, order: int, rising: bool, x: torch.Tensor):
    errors = []
    for intervals in (40, 80, 160, 320):
        sigmas = karras_schedule(0.01, 20.0, 7.0, intervals + 1)
        sigmas = sigmas.flip(0) if rising else sigmas
        errors.append(
            relative_error(SOLVERS[name](Gaussian(), x, sigmas), Gaussian.solution(x, sigmas))
        )
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # An order is fitted to four step sizes: higher terms bend the line by a tenth.
    assert orders == pytest.approx([order] * 3, abs=0.15)
    assert errors[0] < {1: 0.05, 2: 0.005, 3: 7e-4, 4: 3e-4}[order]


@pytest.mark.parametrize(
    "sigmas", [[9.0, 4.0, 3.0, 0.5], [0.1, 0.2, 3.0, 4.0]], ids=["to data", "to noise"]
)
def test_dpmpp_2m_extrapolates_to_the_middle_of_uneven_steps(sigmas: list[float], x: torch.Tensor):
    """Two calls determine a D that is linear in ln(sigma): at the first start, then mid-step."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return sigma.log().reshape(-1, 1, 1).expand_as(x)

    expected = x
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        at = sigma if i == 0 else math.sqrt(sigma * sigma_next)
        expected = math.log(at) + sigma_next / sigma * (expected - math.log(at))
    assert torch.allclose(
        dpmpp_2m(denoise, x, torch.tensor(sigmas, dtype=torch.float64)), expected, rtol=DOUBLE
    )


@pytest.mark.parametrize(
    "step", [(2.0, 1.9), (0.02, 0.03), (5.0, 5.0001), (80.0, 0.002), (0.002, 80.0)]
)
# `behind`: earlier levels, relative to the first level of the step.
@pytest.mark.parametrize("behind", [[], [1.1], [1.2, 1.5], [0.7, 1.2, 1.5]])
def test_weights_of_the_calls_are_exact_for_polynomials_in_ln_sigma(
    step: tuple[float, float], behind: list[float]
):
    levels = [step[0], *(step[0] * factor for factor in behind)]
    weights = _mean_weights(tuple(levels), *step)
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    h = math.log(step[0] / step[1])
    density = torch.exp(h * (t - 1))
    for power in range(len(levels)):
        expected = torch.trapezoid(
            (math.log(step[0]) - h * t) ** power * density
        ) / torch.trapezoid(density)
        actual = sum(w * math.log(level) ** power for w, level in zip(weights, levels, strict=True))
        assert actual == pytest.approx(expected.item(), rel=ROUNDING)


@each_solver
def test_round_trip(solver, x: torch.Tensor):
    sigmas = karras_schedule(0.001, 5.0, 9.0, 200)
    back = solver(Gaussian(), solver(Gaussian(), x, sigmas.flip(0)), sigmas)
    assert relative_error(back, x) < (0.05 if solver is SOLVERS["euler"] else 5e-4)


@each_solver
@pytest.mark.parametrize("rising", [False, True], ids=["to data", "to noise"])
def test_calls_of_the_network(solver, rising: bool, x: torch.Tensor):
    sigmas = karras_schedule(0.01, 5.0, 7.0, 6)
    sigmas = sigmas.flip(0) if rising else sigmas
    denoise, progress = Gaussian(), []
    solver(denoise, x, sigmas, callback=lambda i, n: progress.append((i, n)))
    s = sigmas.tolist()
    expected = [v for pair in itertools.pairwise(s) for v in pair] if solver is heun else s[:-1]
    assert denoise.sigmas == expected
    assert progress == [(i, 5) for i in range(1, 6)]


@each_solver
def test_last_step_to_zero_is_the_denoised_signal(solver, x: torch.Tensor):
    sigmas = append_zero(karras_schedule(0.001, 5.0, 9.0, 200))
    denoise = Gaussian()
    end = solver(denoise, x, sigmas)
    assert min(denoise.sigmas) == pytest.approx(0.001)
    assert relative_error(end, Gaussian.solution(x, sigmas)) < (
        0.05 if solver is SOLVERS["euler"] else 5e-4
    )
    one = torch.tensor([2.0, 0.0])
    assert torch.allclose(solver(Gaussian(), x, one), Gaussian()(x, torch.full((2,), 2.0)))


@given(
    name=st.sampled_from(list(SOLVERS)),
    values=st.sets(st.floats(1e-3, 100).map(lambda v: round(v, 6)), min_size=2, max_size=8),
    rising=st.booleans(),
)
def test_a_single_data_point_is_solved_exactly_whatever_the_steps(
    name: str, values: set[float], rising: bool
):
    """D is constant, so x - D grows with sigma and every solver's straight line is the solution."""
    sigmas = torch.tensor(sorted(values, reverse=not rising), dtype=torch.float64)
    point = torch.tensor([[[0.3, -2.0, 5.0]]], dtype=torch.float64)
    noise = torch.tensor([[[1.0, 0.5, -2.0]]], dtype=torch.float64)
    end = SOLVERS[name](lambda x, sigma: point, point + sigmas[0] * noise, sigmas)
    assert torch.allclose(end, point + sigmas[-1] * noise, rtol=DOUBLE, atol=DOUBLE)


@given(
    low=st.floats(1e-4, 1),
    ratio=st.floats(1.01, 1e4),
    rho=st.floats(1, 12),
    num_steps=st.integers(2, 50),
)
def test_karras_schedule_falls_between_its_ends(
    low: float, ratio: float, rho: float, num_steps: int
):
    sigmas = karras_schedule(low, low * ratio, rho, num_steps)
    assert sigmas.shape == (num_steps,) and (sigmas.diff() < 0).all()
    assert sigmas[0].item() == pytest.approx(low * ratio) and sigmas[-1].item() == pytest.approx(
        low
    )
    roots = sigmas ** (1 / rho)
    assert torch.allclose(roots.diff(), roots.diff().mean(), atol=DOUBLE)


def test_linear_schedule():
    assert torch.allclose(
        linear_schedule(2.0, 4), torch.tensor([2.0, 1.5, 1.0, 0.5], dtype=torch.float64)
    )
    assert append_zero(linear_schedule(2.0, 4)).tolist() == [2.0, 1.5, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    "build",
    [
        lambda: karras_schedule(0.0, 5.0, 9.0, 8),
        lambda: karras_schedule(5.0, 5.0, 9.0, 8),
        lambda: karras_schedule(0.1, 5.0, 0.0, 8),
        lambda: karras_schedule(0.1, 5.0, 9.0, 1),
        lambda: linear_schedule(0.0, 8),
        lambda: linear_schedule(1.0, 1),
    ],
)
def test_schedules_that_cannot_be_are_refused(build):
    with pytest.raises(ValueError, match=r"need .* got .*=.*"):
        build()


@each_solver
@pytest.mark.parametrize(
    "sigmas",
    [[], [1.0], [0.0, 1.0], [1.0, -1.0], [1.0, 0.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]],
)
def test_noise_levels_that_cannot_be_are_refused(solver, sigmas: list[float], x: torch.Tensor):
    with pytest.raises(ValueError, match="positive"):
        solver(Gaussian(), x, torch.tensor(sigmas))


@each_solver
@pytest.mark.parametrize("sigmas", [[1.0, 1.0], [1.0, 2.0, 1.5], [3.0, 1.0, 2.0]])
def test_noise_levels_out_of_order_are_refused(solver, sigmas: list[float], x: torch.Tensor):
    with pytest.raises(ValueError, match="strictly increase or strictly decrease"):
        solver(Gaussian(), x, torch.tensor(sigmas))


def test_better_qualities_take_more_calls_and_come_closer(x: torch.Tensor):
    calls, errors = [], []
    for name in ("instant", "draft", "normal", "high"):
        quality, denoise = QUALITY[name], Gaussian()
        sigmas = karras_schedule(quality.sigma_min or 0.01, 4.0, quality.rho, quality.num_steps)
        noise = SOLVERS[quality.solver](denoise, x, sigmas.flip(0))
        exact = Gaussian.solution(x, torch.tensor([0.01, 4.0]))
        calls.append(len(denoise.sigmas))
        errors.append(relative_error(noise, exact))
    # The most exact setting: a thousandth of the sound, -60 dB.
    assert calls == sorted(calls) and errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


# Ancestral steps


def test_ancestral_steps_of_a_gaussian_by_hand(x: torch.Tensor):
    """D is linear in x, so every step is a factor and a known amount of noise."""

    def gain(sigma: float) -> float:
        return 1 - SPREAD**2 / (SPREAD**2 + sigma**2)

    sigmas, noise = [4.0, 2.0, 0.5], torch.full_like(x, 0.25)
    euler, midpoint, silent = x, x, x
    for s, n in itertools.pairwise(sigmas):
        down, up = n**2 / s, math.sqrt(n**2 - (n**2 / s) ** 2)
        euler = euler * (1 + (down - s) * gain(s) / s) + up * noise
        mid = ((s**0.5 + down**0.5) / 2) ** 2
        factor = 1 + (down - s) * gain(mid) / mid * (1 + (mid - s) * gain(s) / s)
        midpoint, silent = midpoint * factor + up * noise, silent * factor
    given = dict(denoise=Gaussian(), x=x, sigmas=torch.tensor(sigmas, dtype=torch.float64))
    assert torch.allclose(ancestral_euler(**given, noise=lambda x: noise), euler, rtol=DOUBLE)
    assert torch.allclose(
        ancestral_midpoint(**given, noise=lambda x: noise, rho=2.0), midpoint, rtol=DOUBLE
    )
    assert torch.allclose(ancestral_midpoint(**given, noise=None, rho=2.0), silent, rtol=DOUBLE)


@pytest.mark.parametrize("sampler", [ancestral_euler, ancestral_midpoint])
def test_ancestral_samples_have_the_spread_of_the_data(sampler):
    generator = torch.Generator().manual_seed(0)
    x = 20 * torch.randn(1, 20000, generator=generator, dtype=torch.float64)

    def noise(x: torch.Tensor) -> torch.Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x * SPREAD**2 / (SPREAD**2 + sigma[0] ** 2)

    progress = []
    sigmas = append_zero(karras_schedule(0.01, 20.0, 7.0, 200))
    end = sampler(denoise, x, sigmas, callback=lambda i, n: progress.append((i, n)), noise=noise)
    # Of thousands of numbers the deviation scatters by 1 %; the solver adds its own error.
    assert end.std().item() == pytest.approx(SPREAD, rel=0.05)
    assert progress == [(i, 200) for i in range(1, 201)]


@pytest.mark.parametrize("sampler", [ancestral_euler, ancestral_midpoint])
def test_ancestral_steps_towards_noise_are_refused(sampler, x: torch.Tensor):
    with pytest.raises(ValueError, match="must decrease"):
        sampler(Gaussian(), x, torch.tensor([1.0, 2.0]))


def test_rows_with_levels_of_their_own_are_solved_as_alone_and_have_gradients():
    x = torch.randn(3, 4, 8, dtype=torch.float64)
    sigmas = torch.tensor([[5.0, 0.9, 0.2, 0.1], [8.0, 2.0, 0.9, 0.2], [0.1, 0.4, 1.0, 5.0]])
    weight = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def denoise(x, sigma):
        return weight * torch.tanh(x / (1 + sigma.reshape(-1, 1, 1)))

    found = multistep_rows(denoise, x, sigmas)
    for row in range(3):
        alone = unipc(denoise, x[row : row + 1], sigmas[row])
        assert torch.allclose(found[row : row + 1], alone, atol=1e-6)
    assert torch.autograd.grad(found.sum(), weight)[0] != 0
