"""From mel bands to sound: bands are met, tones are clear, blocks continue their past."""

import json

import numpy as np
import pytest
import torch
from conftest import RATE, melody
from tolerances import NETWORK

from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.harmonicity import harmonics_to_noise
from audio_diffusion_pytorch.pitch.notes import F0Track
from audio_diffusion_pytorch.utils.safetensors_io import write_safetensors


@pytest.fixture(scope="module")
def shipped() -> MelCodec:
    return load_codec("small")


def clip(seconds: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(melody(seconds))[None, None]


def decode(codec: MelCodec, latents: torch.Tensor, rounds: int, monkeypatch) -> torch.Tensor:
    monkeypatch.setattr(codec.phase, "rounds", rounds)
    return codec.decode(latents)


def test_the_bands_come_nearer_with_every_few_rounds(shipped, monkeypatch):
    latents = shipped.encode(clip())
    errors = [
        (shipped.encode(decode(shipped, latents, rounds, monkeypatch)) - latents)[..., 4:-4]
        .abs()
        .mean()
        for rounds in (0, 4, 16)
    ]
    assert errors[1] < 0.8 * errors[0] and errors[2] < errors[1]


def test_a_codec_with_other_rounds_shares_its_weights(shipped):
    latents = shipped.encode(clip(1.0))
    before = shipped.decode(latents)
    other = shipped.with_phase_rounds(2)
    assert (shipped.phase_rounds, other.phase_rounds) == (4, 2)
    assert other.backbone is shipped.backbone and other.fingerprint() == shipped.fingerprint()
    assert not torch.allclose(other.decode(latents), before, atol=NETWORK)
    assert torch.equal(other.with_phase_rounds(4).decode(latents), before)
    assert torch.equal(shipped.decode(latents), before)


def test_a_low_steady_tone_keeps_its_partials(shipped):
    time = torch.arange(2 * RATE) / RATE
    tone = sum(0.1 * torch.sin(2 * torch.pi * 98 * k * time) / k**0.5 for k in range(1, 12))
    decoded = shipped.decode(shipped.encode(tone[None, None]))[0]
    track = F0Track(np.arange(0.3, 1.7, 0.02), np.full(70, 98.0), np.full(70, True))
    assert harmonics_to_noise(decoded[0], RATE, track)["hnr"] > 15


def test_a_codec_of_the_first_version_still_decodes(tmp_path):
    """Its files do not name what the network predicts: the sound."""
    old = MelCodec(dim=16, intermediate_dim=16, num_layers=1, rounds=2, predicts="sound").eval()
    header = {key: value for key, value in old.config.items() if key != "predicts"}
    tensors = {key: value.half() for key, value in old.state_dict().items()}
    write_safetensors(tmp_path / "old.safetensors", tensors, {"codec": json.dumps(header)})
    read = load_codec(tmp_path / "old.safetensors")
    latents = read.encode(clip(1.0))
    assert read.fingerprint() == load_codec("small").fingerprint()
    assert read.predict(latents).shape == (1, latents.shape[-1] * 320)
    assert read.decode(latents).shape == (1, 1, latents.shape[-1] * 320)


def test_a_wrong_output_of_the_network_is_refused():
    with pytest.raises(InputError, match="predicts"):
        MelCodec(predicts="noise")


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
def test_any_length(shipped, frames):
    latents = torch.full((2, 128, frames), -6.0)
    wav = shipped.decode(latents)
    assert wav.shape == (2, 1, frames * 320) and wav.isfinite().all()
    assert shipped.decode(latents, 100).shape == (2, 1, 100)


def test_latents_of_no_sound_stay_bounded(shipped):
    """Bands that no sound has, as a model may make them: no round pumps them up."""
    latents = -5.0 + 3.0 * torch.randn(1, 128, 60, generator=torch.Generator().manual_seed(0))
    loudest = latents.exp().sum(1).max()
    assert shipped.decode(latents).abs().max() < 2 * loudest


def test_silence_stays_silent(shipped):
    # -60 dB: silence is coded as the mel floor of 1e-4.
    assert shipped.decode(shipped.encode(torch.zeros(1, 1, RATE))).abs().max() < 1e-3


def test_levels_are_followed(shipped):
    """A line that swells makes a steady one swell, by as much, and nothing else changes."""
    wav = clip(3.0)
    steady = shipped.encode(
        0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(3 * RATE) / RATE)[None, None]
    )
    swell = shipped.encode(wav * torch.linspace(0.1, 1.0, wav.shape[-1]))
    followed = shipped.impose_levels(steady, shipped.frame_levels(swell))
    before, after = (
        shipped.frame_levels(swell) - shipped.frame_levels(x) for x in (steady, followed)
    )
    smooth = torch.nn.functional.avg_pool1d
    assert (
        smooth(after[:, 30:-30], 37).abs().max() < 0.25 * smooth(before[:, 30:-30], 37).abs().max()
    )
    # Levels near -6, differences of logarithms.
    assert torch.allclose(
        shipped.impose_levels(steady, shipped.frame_levels(steady)), steady, atol=100 * NETWORK
    )
