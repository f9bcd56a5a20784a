"""The noise at the hand-off: brought to the target's statistics, the melody in it kept."""

import math

import pytest
import torch
from conftest import RATE, melody

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.handoff import interpolate_statistics, match_moments
from audio_diffusion_pytorch.bridge.noise_statistics import noise_statistics
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.loading import load_instrument

KNOWN = {"sigma": [1.0, 4.0], "mean": [[0.0] * 128, [1.0] * 128], "std": [[1.0] * 128, [0.8] * 128]}


def noise(frames: int = 600, seed: int = 0) -> torch.Tensor:
    return 4.0 * torch.randn(1, 128, frames, generator=torch.Generator().manual_seed(seed))


def test_statistics_become_the_known_ones():
    slope = torch.linspace(-3, 3, 128)[:, None]
    mean, std = torch.linspace(0, 1, 128), torch.linspace(3, 4, 128)
    out = match_moments(2 * noise(2000) + slope, torch.ones(1, 2000), mean, std)
    assert (
        out.mean(-1)[0] - mean
    ).abs().mean() < 0.4  # a channel's own mean, which is the melody, stays
    assert (out[0, 20:-20].mean() - mean[20:-20].mean()).abs() < 0.05
    assert (out.std(-1)[0] / std - 1).abs().mean() < 0.05


def test_noise_that_fits_is_left_alone():
    z = noise(2000)
    out = match_moments(z, torch.ones(1, 2000), torch.zeros(128), torch.full((128,), 4.0))
    assert (out - z).abs().mean() < 0.1


def test_a_held_note_stays():
    """A partial that sounds throughout the window is no average spectrum."""
    z = noise()
    z[:, 40] += 8.0
    out = match_moments(z, torch.ones(1, 600), torch.zeros(128), torch.full((128,), 4.0))
    assert out[:, 40].mean() > 5 and out[:, 60:].mean().abs() < 0.5


def test_silence_does_not_count():
    z, sounding = noise(), torch.ones(1, 600)
    sounding[:, 300:] = 0
    z[..., 300:] = -50.0
    out = match_moments(z, sounding, torch.zeros(128), torch.full((128,), 4.0))
    assert (out[..., :300] - z[..., :300]).abs().mean() < 0.3
    assert torch.equal(
        match_moments(z, torch.zeros(1, 600), torch.zeros(128), torch.full((128,), 4.0)).isfinite(),
        z > -100,
    )


def test_statistics_between_levels():
    mean, std = interpolate_statistics(KNOWN, 2.0)
    assert mean[0] == pytest.approx(0.5) and std[0] == pytest.approx(0.9 * math.sqrt(5))
    for sigma, at in ((0.1, 0.0), (9.0, 1.0)):  # beyond: those of the nearest
        assert interpolate_statistics(KNOWN, sigma)[0][0] == pytest.approx(at)


def test_a_models_own_recordings(make_instrument, codec):
    model = make_instrument("flute")
    wavs = [torch.from_numpy(melody(1.5, seed=seed))[None] for seed in range(2)]
    found = noise_statistics(model, wavs, RATE, codec)
    assert found["sigma"] == [1.0, 2.0, 4.0, 8.0]
    assert [len(rows) for rows in found["mean"]] == [len(model.mean)] * 4
    encoded = Bridge(model, model, 4.0, handoff="plain", codec=codec).encode(wavs[0], RATE)
    assert abs(sum(found["mean"][2]) / 128 - float(encoded.noise.mean())) < 1.0
    assert noise_statistics(model, [torch.zeros(1, RATE)], RATE, codec) == {}


def test_the_handoff_of_a_bridge(make_instrument, codec):
    known, unknown = make_instrument("violin", noise=KNOWN), make_instrument("violin")
    assert Bridge(unknown, known, codec=codec).handoff == "matched"
    assert (
        Bridge(known, unknown, codec=codec).handoff
        == Bridge(unknown, known, handoff="plain", codec=codec).handoff
    )
    chosen = make_instrument("violin", noise=KNOWN, handoffs={"flute": "plain"})
    flute, oboe = make_instrument("flute"), make_instrument("oboe")
    assert [Bridge(source, chosen, codec=codec).handoff for source in (flute, oboe)] == [
        "plain",
        "matched",
    ]
    assert Bridge(flute, chosen, handoff="matched", codec=codec).handoff == "matched"
    with pytest.raises(InputError, match="model of violin holds none"):
        Bridge(known, unknown, handoff="matched", codec=codec)
    with pytest.raises(InputError, match="handoff=loud must be one of auto"):
        Bridge(known, known, handoff="loud", codec=codec)
    wav = torch.from_numpy(melody(2.0))[None]
    matched, plain = (
        Bridge(unknown, known, num_steps=3, handoff=h, codec=codec) for h in ("auto", "plain")
    )
    # Far more than rounding (tolerances.BRIDGED).
    assert not torch.allclose(matched(wav, RATE), plain(wav, RATE), atol=1e-3)
    assert torch.equal(matched.decode(matched.encode(wav, RATE)), matched(wav, RATE))


@pytest.mark.parametrize("name", ["flute", "violin", "trumpet", "bassoon", "cello"])
def test_what_ships_knows_its_noise(name):
    assert load_instrument(name).spec.noise["sigma"] == [1.0, 2.0, 4.0, 8.0]
