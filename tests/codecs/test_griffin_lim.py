"""Rounds between spectrogram and sound: mel bands are met, low tones become clear."""

import pytest
import torch
from conftest import RATE, melody
from tolerances import NETWORK

from audio_diffusion_pytorch.bridge.overlap_add import DECODE_CONTEXT, DECODE_FRAMES
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.codecs.mel import MelCodec


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
    assert errors[1] < 0.8 * errors[0] and errors[2] < 0.8 * errors[1]


def test_a_codec_with_other_rounds_shares_its_weights(shipped):
    latents = shipped.encode(clip(1.0))
    before = shipped.decode(latents)
    other = shipped.with_phase_rounds(4)
    assert (shipped.phase_rounds, other.phase_rounds) == (16, 4)
    assert other.backbone is shipped.backbone and other.fingerprint() == shipped.fingerprint()
    assert not torch.allclose(other.decode(latents), before, atol=NETWORK)
    assert torch.equal(other.with_phase_rounds(16).decode(latents), before)
    assert torch.equal(shipped.decode(latents), before)


def test_a_low_steady_tone_gets_its_partials(shipped, monkeypatch):
    """The network alone blurs the partials of a low tone."""
    time = torch.arange(2 * RATE) / RATE
    tone = sum(0.1 * torch.sin(2 * torch.pi * 98 * k * time) / k**0.5 for k in range(1, 12))
    latents = shipped.encode(tone[None, None])

    def error(rounds: int) -> float:
        found = shipped.encode(decode(shipped, latents, rounds, monkeypatch))
        loud = latents[0].mean(-1) > -5
        return float((found - latents)[0, loud, 20:-20].abs().mean())

    assert error(16) < 0.3 * error(0)


def test_no_rounds_change_nothing(shipped, monkeypatch):
    latents = shipped.encode(clip(1.0))
    assert torch.allclose(
        decode(shipped, latents, 0, monkeypatch)[..., 6400:-6400],
        shipped.synthesise(latents)[..., 6400:-6400],
        # A spectrum of 1,024 points and its inverse, on sound up to 1.
        atol=1e-4,
    )


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


def test_blocks_join_without_a_seam(shipped):
    """Blocks with context yield the same result as the whole recording."""
    latents = shipped.encode(clip(24.0))
    whole, block, context = shipped.decode(latents)[0, 0], DECODE_FRAMES, DECODE_CONTEXT
    for start in (block, 2 * block):
        part = shipped.decode(latents[..., start - context : start + block + context])[0, 0]
        inner = part[context * 320 : (context + block) * 320]
        error = (inner - whole[start * 320 : start * 320 + len(inner)]).abs().max()
        # A context of two seconds leaves an error below -60 dB.
        assert error < 1e-3 * whole.abs().max()
