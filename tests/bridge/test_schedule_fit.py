"""Solvers fitted to models: their fit, and the choice between them and Karras levels."""

from dataclasses import replace

import pytest
import torch
from conftest import RATE, TINY_UNET, melody
from torch import nn

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.fit_windows import Recording, cut_windows
from audio_diffusion_pytorch.bridge.schedule_fit import SCHEDULES, Half, fit_half
from audio_diffusion_pytorch.bridge.schedule_plan import Fits, plan_fits, remaining
from audio_diffusion_pytorch.diffusion.fitted_solver import fitted_multistep
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import (
    DIRECTIONS,
    FittedSchedule,
    FittedSchedules,
)
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS

UP = FittedSchedule("flute", "to_noise", "unipc", 5.0, (5.0, 2.0, 0.6, 0.2, 0.1), 4, 0.08, 0.2)
DOWN = FittedSchedule("violin", "to_data", "unipc", 5.0, (5.0, 1.5, 0.5, 0.2, 0.05), 4, 0.03, 0.1)


def recordings(count: int, seconds: float = 1.0) -> list[Recording]:
    wavs = (torch.from_numpy(melody(seconds, seed=seed))[None] for seed in range(count))
    return [Recording(wav, RATE) for wav in wavs]


@pytest.fixture
def models(make_instrument):
    """A flute with fitted levels as a source, and a violin with fitted levels as a target."""
    flute, violin = make_instrument("flute", 0), make_instrument("violin", 1)
    flute.fitted, violin.fitted = FittedSchedules("", (UP,)), FittedSchedules("", (DOWN,))
    return flute, violin


class Gaussian(nn.Module):
    """The ideal denoiser of normal data with a variance of its own in each channel."""

    downsample_factor = 2

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance = torch.linspace(0.05, 2.0, x.shape[1])[:, None]
        return x * variance / (variance + torch.as_tensor(sigma).reshape(-1, 1, 1) ** 2)

    net = property(lambda self: self)


@pytest.fixture
def make(make_instrument, codec):
    """Models of normal data."""

    def make_model(name: str, **spec):
        model = make_instrument(name, **spec)
        model.denoiser, model.codec = Gaussian(), codec
        return model

    return make_model


@pytest.fixture
def tasks(make):
    """Fits of a flute at the ends of bridges from and to a violin."""
    return plan_fits(make("flute", handoff_sigma=3.0), [make("violin")], [2, 3])


def halves_of(task) -> list[Half]:
    windows = cut_windows(task.pairs[0], recordings(2), 1)
    return [Half(task.direction, [half]) for half in windows]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_fit_beats_every_karras_schedule(direction, tasks):
    task = next(one for one in tasks if one.direction == direction)
    fit, check = halves_of(task)
    tried: list[float] = []
    found = fit_half(fit, check, task.evaluations, progress=tried.append)
    assert len(tried) == len(SCHEDULES)
    assert found.error < 0.2 * found.karras_error
    sigmas = torch.tensor(found.sigmas, dtype=torch.float64)
    run = sigmas if direction == "to_data" else sigmas.flip(0)
    for half, error in ((fit, min(tried)), (check, found.error)):
        end = fitted_multistep(half.denoise, half.trajectory.start, run, found.weights)
        assert float(half.errors(end).median()) == pytest.approx(error, rel=1e-3, abs=1e-4)
    assert found.key == task.key and len(found.sigmas) == 3 and found.fitted_on["windows"] == 1
    assert found == fit_half(*halves_of(task), task.evaluations)  # the same weights again


def test_a_fit_that_fails_on_other_windows_is_not_kept(tasks, monkeypatch):
    fit, check = halves_of(tasks[0])
    measure = Half.errors
    measured = []

    def errors(half, end):
        measured.append(half)
        return measure(half, end) + 1.0 * (half is check and measured.count(check) == 1)

    monkeypatch.setattr(Half, "errors", errors)
    found = fit_half(fit, check, 2)  # the fitted solver comes first
    assert found.error == found.karras_error and found.weights == ()


def test_every_direction_level_and_number_of_evaluations_is_planned(tasks, make):
    found = {(one.direction, one.sigma, one.evaluations) for one in tasks}
    # As a source the flute uses the violin's level, as a target its own.
    assert found == {
        (direction, sigma, count)
        for direction, sigma in (("to_noise", 4.0), ("to_data", 3.0))
        for count in (2, 3)
    }
    of_itself = plan_fits(make("flute"), [], [2], [2.0, 5.0])
    assert [(one.direction, one.sigma) for one in of_itself] == [
        *(("to_noise", 2.0), ("to_noise", 5.0)),
        *(("to_data", 2.0), ("to_data", 5.0)),
    ]
    assert of_itself[0].pairs[0].target.spec.name == "flute"


def test_the_noise_of_all_sources_fits_a_target(make):
    names = "flute", "cello"
    tasks = plan_fits(make("violin"), [make(name) for name in names], [1])
    task = next(one for one in tasks if one.direction == "to_data")
    found = Fits(lambda name: recordings(2), windows=1).run(task)
    assert found.fitted_on["others"] == ["flute", "cello"] and found.fitted_on["windows"] == 2
    assert remaining(tasks, FittedSchedules("").with_schedule(found)) == [tasks[0]]


def test_windows_of_the_check_are_others_than_those_of_the_fit(tasks):
    pair = tasks[0].pairs[0]
    for given in (recordings(4), recordings(1, 6.0)):  # several recordings, or one of 7 windows
        fit, check = cut_windows(pair, given, 2)
        assert fit.count == check.count == 2
        assert not any(torch.equal(a, b) for a in fit.latents for b in check.latents)


@pytest.mark.parametrize(
    "given", [[], recordings(1, 0.5), [Recording(torch.zeros(1, 2 * RATE), RATE)]]
)
def test_too_little_sound_is_an_error(given, tasks):
    with pytest.raises(InputError, match="too few recordings of flute"):
        cut_windows(tasks[0].pairs[0], given, 2)


def test_instant_uses_the_fitted_levels_of_both_models(models, codec):
    bridge = Bridge(*models, codec=codec, sigma=5.0, quality="instant")
    assert bridge.schedules.path == "fitted" and bridge.schedules.notice is None
    assert bridge.schedules.to_noise.tolist() == sorted(UP.sigmas)
    assert bridge.sigmas.tolist() == list(DOWN.sigmas)
    assert bridge.num_evaluations == 8
    assert bridge.settings["schedule"] == "fitted"
    assert bridge.settings["to_noise"] == sorted(UP.sigmas)
    latents = torch.randn(1, 128, 64) - 6
    expected = bridge.solve(
        bridge.denoisers[0], bridge.source.normalise(latents), bridge.schedules.to_noise
    )
    assert torch.equal(bridge.to_noise(latents), expected)
    near = bridge.with_sigma(6.0)
    assert near.schedules.weights == bridge.schedules.weights
    assert near.schedules.path == "fitted" and near.settings["to_data"][0] == 6.0


def test_fitted_weights_change_the_solver_of_their_half_alone(models, codec):
    plain = Bridge(*models, codec=codec, sigma=5.0, quality="instant")
    weights = tuple((0.01,) * (step + 2) for step in range(4))
    models[1].fitted = FittedSchedules("", (replace(DOWN, weights=weights),))
    fitted = Bridge(*models, codec=codec, sigma=5.0, quality="instant")
    assert fitted.schedules.path == "fitted" and fitted.num_evaluations == 8
    assert "weights_to_data" in fitted.settings and "weights_to_noise" not in fitted.settings
    latents = torch.randn(1, 128, 64) - 6
    noise = plain.to_noise(latents)
    assert torch.equal(fitted.to_noise(latents), noise)
    expected = fitted_multistep(fitted.denoisers[1], noise, fitted.sigmas, weights)
    expected = fitted.target.denormalise(expected.clamp(-6, 6))
    assert torch.allclose(fitted.from_noise(noise), expected, atol=1e-5)
    assert not torch.allclose(plain.from_noise(noise), expected, atol=1e-3)


def test_a_half_without_fitted_levels_falls_back_with_one_line(models, codec):
    models[1].fitted = None
    bridge = Bridge(*models, codec=codec, sigma=5.0, quality="instant")
    assert bridge.schedules.path == "fitted to noise, Karras to data"
    assert bridge.settings["schedule"] == bridge.schedules.path
    assert "violin" in bridge.schedules.notice and "flute" not in bridge.schedules.notice
    far = bridge.with_sigma(9.0)  # fitted for 5
    assert far.schedules.path == "Karras" and "flute and violin" in far.schedules.notice
    assert "sigma 9" in far.schedules.notice and "\n" not in far.schedules.notice
    assert torch.equal(far.schedules.to_noise, far.sigmas.flip(0))
    assert "schedule" not in far.settings  # records of Karras levels stay valid


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({"quality": "normal", "num_steps": 5}, False),
        ({"quality": "instant", "rho": 7.0}, False),
        ({"quality": "instant", "sigma_min": 0.05}, False),
        ({"quality": "instant", "num_steps": 7}, True),
        ({"quality": "instant", "solver": "heun"}, True),
        ({"quality": "draft"}, False),
    ],
)
def test_other_settings_do_not_use_these_levels(given, asks, models, codec):
    schedules = Bridge(*models, codec=codec, sigma=5.0, **given).schedules
    assert schedules.path == "Karras" and (schedules.notice is not None) == asks


@pytest.mark.parametrize(
    "given", [{"quality": "instant", "num_steps": 6}, {"quality": "draft", "num_steps": 6}]
)
def test_levels_for_other_points_serve_num_steps(given, models, codec):
    six = replace(DOWN, sigmas=(5.0, 3.0, 1.5, 0.5, 0.2, 0.05), evaluations=5)
    models[1].fitted = models[1].fitted.with_schedule(six)
    bridge = Bridge(*models, codec=codec, sigma=5.0, **given)
    assert bridge.sigmas.tolist() == list(six.sigmas)


def test_normal_uses_fitted_solvers_of_fewer_points_and_needs_none(models, codec):
    nine = [5.0 * 0.6**step for step in range(9)]
    plain = replace(DOWN, sigmas=tuple(nine), evaluations=8)
    fitted = replace(plain, weights=tuple((0.0,) * (step + 2) for step in range(8)))
    models[1].fitted = FittedSchedules("", (plain,))
    # Nine levels without weights are less exact than 14 Karras levels.
    assert Bridge(*models, codec=codec, sigma=5.0).schedules.path == "Karras"
    models[1].fitted = FittedSchedules("", (fitted,))
    schedules = Bridge(*models, codec=codec, sigma=5.0).schedules
    assert schedules.path == "Karras to noise, fitted to data" and schedules.notice is None
    assert len(schedules.to_noise) == 14 and schedules.to_data.tolist() == nine
    models[1].fitted = None
    schedules = Bridge(*models, codec=codec, sigma=5.0).schedules
    assert schedules.path == "Karras" and schedules.notice is None


@pytest.mark.parametrize("source_input", [True, False])
def test_models_with_a_melody_input_are_fitted_with_the_melody(
    source_input, make_instrument, codec
):
    unet = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    target = make_instrument("violin", 1, unet=unet)
    target.codec = codec
    sources = [make_instrument("flute", unet=unet if source_input else TINY_UNET)] * 2
    task = next(one for one in plan_fits(target, sources, [2]) if one.direction == "to_data")
    parts = [cut_windows(pair, recordings(2), 1)[0] for pair in task.pairs]
    assert all(part.melody.shape[:2] == (1, MELODY_CHANNELS + 1) for part in parts)
    sigmas = torch.tensor([4.0, 1.0, 0.1], dtype=torch.float64)
    results = Half("to_data", parts).expected
    without = [replace(part, melody=torch.zeros_like(part.melody)) for part in parts]
    assert results.shape[0] == 2
    assert not torch.equal(results, Half("to_data", without).expected)
    noise = [part.noise(sigmas) for part in (parts[0], without[0])]
    assert torch.equal(*noise) is not source_input


def test_targets_may_differ_in_the_melody_input(make_instrument, codec):
    unet = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    source = make_instrument("flute", unet=unet)
    source.codec = codec
    targets = [make_instrument("violin", 1, unet=unet), make_instrument("cello", 2)]
    task = next(one for one in plan_fits(source, targets, [2]) if one.direction == "to_noise")
    parts = [cut_windows(pair, recordings(4), 2)[0] for pair in task.pairs]
    together = Half("to_noise", parts).trajectory.end
    alone = [Half("to_noise", [part]).trajectory.end for part in parts]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    assert not torch.allclose(*alone, atol=1e-2)  # the cello's source lacks the melody


def test_normal_solves_without_a_melody_input_at_karras_levels(make_instrument, codec):
    unet = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    models = [make_instrument(name, unet=unet) for name in ("flute", "violin")]
    nine = tuple(5.0 * 0.6**step for step in range(9))
    weights = tuple((0.0,) * (step + 2) for step in range(8))
    for model, kind in zip(models, (UP, DOWN), strict=True):
        found = replace(kind, sigmas=nine, evaluations=8, weights=weights)
        model.fitted = FittedSchedules("", (found,))
    for quality, given, path in (
        ("normal", True, "fitted"),
        ("normal", False, "Karras"),
        ("draft", False, "Karras"),
    ):
        bridge = Bridge(*models, codec=codec, sigma=5.0, quality=quality, melody=given)
        assert bridge.schedules.path == path and bridge.schedules.notice is None
