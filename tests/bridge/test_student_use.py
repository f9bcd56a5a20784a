"""Students of a bridge: which half uses one, and what a report says of it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import TINY_UNET
from tolerances import BRIDGED

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.frozen import FrozenDenoiser, with_frozen_networks
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.sampling import unipc
from audio_diffusion_pytorch.models import students
from audio_diffusion_pytorch.models.loading import shipped_instruments
from audio_diffusion_pytorch.models.students import Student, StudentSpec
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS


def student(name: str, seed: int = 0, **unet) -> Student:
    torch.manual_seed(seed)
    levels = {"to_noise": (0.4, 0.1), "to_data": (0.9, 0.2)}
    spec = StudentSpec(name, "", "unet", {**TINY_UNET, **unet}, 1.0, levels, (2.0, 6.0), steps=1)
    denoisers = {}
    for direction in levels:
        net = UNet1d(**spec.unet, end_level=True)
        torch.nn.init.normal_(net.to_end[1].weight)  # the end of the schedule counts
        denoisers[direction] = Denoiser(net).eval().requires_grad_(False)
    return Student(spec, f"digest of {name}", denoisers)


@pytest.fixture
def models(make_instrument, codec, monkeypatch):
    """A flute and a violin with students."""
    flute, violin = make_instrument("flute", 0), make_instrument("violin", 1)
    flute.codec = violin.codec = codec
    known = {flute: student("flute", 2), violin: student("violin", 3)}
    monkeypatch.setattr(students, "_known", known)
    return flute, violin


def test_instant_uses_the_students_of_both_models(models):
    bridge = Bridge(*models, sigma=5.0, quality="instant")
    assert bridge.schedules.path == "student" and bridge.schedules.notice is None
    assert bridge.num_evaluations == 4
    assert bridge.schedules.to_noise.tolist() == [0.1, 0.4, 5.0]
    assert bridge.sigmas.tolist() == [5.0, 0.9, 0.2]
    assert bridge.settings["schedule"] == "student"
    assert bridge.settings["student_to_noise"] == "digest of flute"
    assert bridge.settings["student_to_data"] == "digest of violin"
    latents = torch.randn(2, 128, 64) - 6
    flute, violin = (students.student_of(model) for model in models)
    x = bridge.source.normalise(latents)
    noise = unipc(partial(flute.denoisers["to_noise"], end=5.0), x, bridge.schedules.to_noise)
    assert torch.allclose(bridge.to_noise(latents), noise, atol=1e-6)
    x = unipc(partial(violin.denoisers["to_data"], end=0.2), noise, bridge.sigmas).clamp(-6, 6)
    assert torch.allclose(bridge.from_noise(noise), bridge.target.denormalise(x), atol=1e-5)


def test_a_level_beyond_the_students_falls_back(models):
    bridge = Bridge(*models, sigma=5.0, quality="instant")
    far = bridge.with_sigma(8.0)
    assert far.schedules.path == "Karras" and far.num_evaluations == 8
    assert "sigma 8" in far.schedules.notice
    assert far.with_sigma(3.0).schedules.path == "student"


def test_one_half_may_have_a_student(models, monkeypatch):
    monkeypatch.setitem(students._known, models[0], None)
    bridge = Bridge(*models, sigma=5.0, quality="instant")
    assert bridge.schedules.path == "Karras to noise, student to data"
    assert bridge.num_evaluations == 6 and "flute" in bridge.schedules.notice
    assert "student_to_noise" not in bridge.settings


@pytest.mark.parametrize(
    "given",
    [
        {"quality": "draft"},
        {"quality": "instant", "num_steps": 5},
        {"quality": "instant", "solver": "heun"},
        {"quality": "instant", "sigma_min": 0.05},
        {"quality": "instant", "rho": 7.0},
    ],
)
def test_other_settings_use_no_student(given, models):
    assert Bridge(*models, sigma=5.0, **given).schedules.students == (None, None)


@pytest.fixture
def taught():
    """Settings of the solutions that `instant` students learned from."""
    return {"guidance": 2.0}


@pytest.fixture
def instant(make_instrument, codec, monkeypatch, taught):
    """Make an instant bridge between students that were taught the guidance 2."""
    unet = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    pair = [make_instrument(name, unet=unet) for name in ("flute", "violin")]
    one = student("violin", melody_channels=MELODY_CHANNELS)

    def make(label_guidance=1.0, **given):
        known = dict.fromkeys(pair, replace(one, spec=replace(one.spec, **taught)))
        monkeypatch.setattr(students, "_known", known)
        pair[1].spec = replace(pair[1].spec, label_guidance=label_guidance)
        return ModelPair(*pair, codec=codec, sigma=5.0, quality="instant", **given)

    return make


def test_a_melody_reaches_the_student(instant):
    noise, melody = torch.randn(1, 128, 64), torch.rand(1, MELODY_CHANNELS, 64)
    assert not torch.equal(instant().from_noise(noise, melody), instant().from_noise(noise))


@pytest.mark.parametrize("given", [{}, {"melody_guidance": 2.0}])
def test_a_student_costs_no_calls_for_the_guidance_that_it_was_taught(instant, given):
    bridge = instant(**given)
    assert bridge.schedules.path == "student" and bridge.num_evaluations == 4
    assert bridge.settings["melody_guidance"] == 2.0


@pytest.mark.parametrize(("guidance", "evaluations"), [(1.0, 6), (1.5, 8)])
def test_another_guidance_uses_the_target_model(instant, guidance, evaluations):
    bridge = instant(melody_guidance=guidance)
    assert bridge.schedules.path == "student to noise, Karras to data"
    assert bridge.num_evaluations == evaluations
    assert bridge.settings["melody_guidance"] == guidance


@pytest.mark.parametrize("target", shipped_instruments())
def test_instant_uses_the_students_of_all_shipped_models(target):
    source = "flute" if target == "violin" else "violin"
    bridge = Bridge(source, target, quality="instant")
    assert bridge.schedules.path == "student" and bridge.num_evaluations == 4
    assert bridge.settings["melody_guidance"] == 3.0 and len(bridge.prepared) == 0


def test_a_student_that_was_taught_the_weight_of_the_label_is_used(instant, taught):
    taught["label_guidance"] = 2.0
    assert instant(label_guidance=2.0).schedules.path == "student"
    taught.update(guidance=1.0, label_guidance=1.0)  # without guidance, the label has no effect
    assert instant(label_guidance=2.0).schedules.path == "student"


def test_another_weight_of_the_label_uses_the_target_model(instant):
    assert instant(label_guidance=2.0).schedules.path == "student to noise, Karras to data"


def test_without_the_melody_students_are_not_used(instant):
    assert instant(melody=False).schedules.students == (None, None)


def test_frozen_students_compute_the_same(models):
    bridge = Bridge(*models, sigma=5.0, quality="instant")
    frozen = with_frozen_networks(bridge, 64)
    assert all(isinstance(net, FrozenDenoiser) for net in frozen.prepared.values())
    assert len(frozen.prepared) == 2 == len(bridge.prepared)
    latents = torch.randn(1, 128, 64) - 6
    for _ in range(2):
        noise = bridge.to_noise(latents)
        assert torch.allclose(frozen.to_noise(latents), noise, atol=BRIDGED)
        assert torch.allclose(frozen.from_noise(noise), bridge.from_noise(noise), atol=BRIDGED)


def test_half_precision(models):
    latents = torch.randn(1, 128, 64) - 6
    noise = [
        Bridge(*models, sigma=5.0, quality="instant", precision=precision).to_noise(latents)
        for precision in ("32", "bf16")
    ]
    assert 0 < (noise[1] - noise[0]).norm() / noise[0].norm() < 0.05


def test_specs_differ_by_their_range():
    narrow = replace(student("flute").spec, sigmas=(4.0, 4.0))
    assert narrow.covers(4.0) and not narrow.covers(4.1)
