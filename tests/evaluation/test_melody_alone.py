"""The melody alone: a reference point of models with a melody input."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import RATE, TINY_UNET, melody

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.evaluation.clips import Excerpt, Recording
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.settings import EvaluationSettings
from audio_diffusion_pytorch.evaluation.system_factory import SystemFactory
from audio_diffusion_pytorch.evaluation.systems import BridgeSystem
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS

WAV = 0.1 * torch.from_numpy(melody(2.0))[None]
EXCERPT = Excerpt(Recording(Path("tune_flute.wav"), "flute", "tune", 2.0), 0.0, 2.0)


class Catalog:
    """Models of one bridge; the named instruments have a melody input."""

    def __init__(self, make_instrument, codec, with_input):
        self.make, self.codec_, self.with_input = make_instrument, codec, with_input

    def model(self, bridge, instrument):
        channels = MELODY_CHANNELS if instrument in self.with_input else 0
        seed = ("flute", "violin").index(instrument)
        return self.make(instrument, seed, unet={**TINY_UNET, "melody_channels": channels})

    def shared_codec(self, source, target):
        return self.codec_


@pytest.fixture
def systems(make_instrument, codec):
    """`systems(*with_input, **settings)`: systems of a pair by their names."""

    def build(*with_input, **settings):
        given = dict(bridges={"bridge": None}, num_steps=2, references=("warm", "melody"))
        made = EvaluationSettings("all", Path(), Path(), **{**given, **settings})
        catalog = Catalog(make_instrument, codec, with_input)
        factory = SystemFactory(made, catalog, RATE, Problems())
        bridges = factory.bridges(("flute", "violin"))
        assert bridges, factory.problems.short()
        references = factory.references(bridges, [EXCERPT], [0])
        return {system.name: system for system in [*references, *bridges]}

    return build


def test_the_noise_depends_on_the_seed_and_the_excerpt(systems):
    alone = systems("flute", "violin")["melody alone"]
    first, facts = alone.make(WAV, EXCERPT, 0)
    again, _ = alone.make(WAV, EXCERPT, 5)
    other, _ = alone.make(WAV, replace(EXCERPT, start=1.0), 0)
    assert first.shape == WAV.shape and facts["seconds_per_second"] > 0
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.01)
    assert active_rms(first, RATE) == pytest.approx(active_rms(WAV, RATE), rel=0.01)
    reseeded = systems("flute", "violin", seed=1)["melody alone"]
    assert not torch.allclose(reseeded.make(WAV, EXCERPT, 0)[0], first, atol=0.01)
    assert reseeded.settings != alone.settings


def test_nothing_but_the_melody_counts(systems, monkeypatch):
    alone = systems("violin")["melody alone"]
    assert alone.sigma == alone.bridge.target.spec.sigma_max == 10
    monkeypatch.setattr(
        alone.bridge, "melody_of", lambda wav: torch.zeros(len(wav), MELODY_CHANNELS, 64)
    )
    noise = 0.01 * torch.randn(WAV.shape, generator=torch.Generator().manual_seed(0))
    first, second = (alone.make(wav, EXCERPT, 0)[0] for wav in (WAV, noise))
    first, second = (wav / wav.abs().max() for wav in (first, second))
    # The tuning of the tune, measured, may differ from that of noise by some cents.
    assert (first * second).sum() / (first.norm() * second.norm()) > 0.99


def test_only_models_with_the_input_play_the_melody_alone(systems):
    assert set(systems()) == {"warm start", "bridge"}
    assert set(systems("flute")) == {"warm start", "bridge"}
    found = systems("violin", melody=False)
    assert set(found) == {"warm start", "melody alone", "bridge"}
    given = {name: system.bridge.melody.given for name, system in found.items()}
    assert given["melody alone"] == (True, True)
    assert given["warm start"] == given["bridge"] == (False, False)
    names = ("melody", "melody_guidance")
    assert not any(name in systems()["bridge"].settings for name in names)
    assert all(name in found["bridge"].settings for name in names)


def test_evaluations_count_the_guidance(systems):
    found = systems("violin", melody=True, solver="euler", melody_guidance=2.0)
    assert {name: system.about["evaluations"] for name, system in found.items()} == {
        "warm start": 2,
        "melody alone": 3,  # guidance at the first of two levels
        "bridge": 3,
    }


def test_the_way_back_to_a_model_without_the_input_has_no_melody(systems):
    """Guidance is for targets with the input, and a source receives the melody with its target."""
    bridge = systems("violin", melody_guidance=2.0)["bridge"]
    assert isinstance(bridge, BridgeSystem)
    assert bridge.bridge.melody.given == (False, True) and bridge.bridge.melody.guidance == 2
    assert bridge.back.melody.given == (False, False) and bridge.back.melody.guidance == 1
    _, scores = bridge.make(WAV, EXCERPT, 0)
    assert scores["cycle_latent"] > 0
