"""Octaves into an instrument's range, and melodies moved by them."""

import numpy as np
import pytest
import torch
from conftest import RATE, melody

from audio_diffusion_pytorch.instruments import INSTRUMENTS, PITCH_RANGES
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import nearest_octaves, octaves_for, shift_octaves
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch
from audio_diffusion_pytorch.pitch.tracker import posteriors


def test_every_instrument_has_a_range():
    assert set(PITCH_RANGES) == set(INSTRUMENTS)
    assert all(
        low + 24 <= high for low, high in PITCH_RANGES.values()
    )  # any melody of an octave finds a place


@pytest.mark.parametrize(
    ("pitches", "octaves"),
    [
        ([60, 72, 93], 0),  # fits, however high
        ([48, 50, 55], 2),  # of the octaves that fit, the one nearest the middle
        ([96, 100, 103], -2),
        ([95] + [75] * 60, 0),  # one stray note of many
        ([], 0),
    ],
)
def test_a_melody_moves_only_where_it_must(pitches, octaves):
    assert octaves_for(pitches, 60, 93) == octaves


def test_what_cannot_fit_comes_as_near_as_it_can():
    octaves, outside = nearest_octaves([47, 95], 60, 64)
    assert outside == 1.0 and octaves == -1


def test_a_models_own_range_comes_first(make_instrument):
    assert pitch_range(make_instrument("flute").spec) == PITCH_RANGES["flute"]
    assert pitch_range(make_instrument("double_bass").spec) == PITCH_RANGES["double bass"]
    assert pitch_range(make_instrument("flute", pitch_range=(70, 80)).spec) == (70, 80)
    assert pitch_range(make_instrument("kazoo").spec) is None


@pytest.mark.parametrize("octaves", [-2, -1, 1])
def test_a_shifted_melody_keeps_its_tempo(octaves):
    wav = torch.from_numpy(melody(1.5))[None]
    moved = shift_octaves(wav, octaves, RATE)
    assert moved.shape == wav.shape and moved.abs().max() <= 1
    before, after = (posteriors(x, RATE)["note"][0].max(-1) for x in (wav, moved))
    both = ((before.values > 0.5) & (after.values > 0.5)).numpy()
    assert both.mean() > 0.4
    apart = (after.indices - before.indices).numpy()[both]
    assert (
        np.mean(apart == 12 * octaves) > 0.7
    )  # of few partials, an octave may be heard for another
    assert shift_octaves(wav, 0, RATE) is wav


def test_a_moved_sound_keeps_its_tone():
    """A bright melody stays bright an octave lower; the vocoder alone halves its brightness."""

    def brightness(wav: torch.Tensor) -> float:  # centre of the spectrum in Hz
        power = torch.fft.rfft(wav[0]).abs().square()
        return float((power * torch.linspace(0, RATE / 2, len(power))).sum() / power.sum())

    wav = torch.from_numpy(melody(2.0, brightness=0.8))[None]
    moved = torch.from_numpy(shift_pitch(wav.numpy(), -12, RATE))
    assert brightness(moved) < 0.6 * brightness(wav)
    # Brightness is a mean over a spectrum of few partials, in bins.
    assert brightness(shift_octaves(wav, -1, RATE)) == pytest.approx(brightness(wav), rel=0.2)
    silence = torch.zeros(1, RATE)
    assert torch.equal(shift_octaves(silence, 1, RATE), silence)


@pytest.mark.parametrize("octaves", [-2, -1, 1, 2])
@pytest.mark.parametrize("start", [0.0, 0.37])
def test_a_moved_sound_has_clean_ends(octaves, start):
    """A melody that is cut off in a note: nothing of its end comes back at its beginning."""
    wav = torch.from_numpy(melody(2.0))[None, round(start * RATE) :]
    wav[:, : RATE // 2] = 0
    moved = shift_octaves(wav, octaves, RATE)
    assert moved[:, : RATE // 4].abs().max() < 0.01 * moved.abs().max()
    ends = moved[:, -RATE // 50 :].square().mean().sqrt()
    assert ends < 3 * wav[:, -RATE // 20 :].square().mean().sqrt() + 1e-3


@pytest.mark.parametrize("octaves", [-2, -1, 1, 2])
def test_a_moved_sound_keeps_its_level(octaves):
    """Nothing bursts where a bright sound breaks off, which would turn the rest down."""
    time = torch.arange(2 * RATE) / RATE
    wav = (
        0.15 * sum(torch.sin(2 * torch.pi * k * 523.25 * time + k) / k for k in range(1, 12))[None]
    )
    moved = shift_octaves(wav, octaves, RATE)
    # The filter keeps the power but for its ends.
    assert float(moved.square().mean() / wav.square().mean()) == pytest.approx(1, abs=0.02)
    assert moved[:, -RATE // 50 :].abs().max() < moved[:, RATE // 2 : -RATE // 2].abs().max()


def test_opposed_channels_move_like_one():
    time = torch.arange(RATE) / RATE
    wav = 0.2 * sum(torch.sin(2 * torch.pi * k * 523.25 * time) / k for k in range(1, 8))[None]
    alone, both = shift_octaves(wav, -1, RATE), shift_octaves(torch.cat([wav, -wav]), -1, RATE)
    # The sign goes through a vocoder in float32: transforms of 2,048 points.
    assert torch.allclose(both, torch.cat([alone, -alone]), atol=1e-4)


@pytest.mark.parametrize("samples", [1, 100, 2000])
def test_a_short_sound_moves_too(samples):
    moved = shift_octaves(torch.rand(2, samples) - 0.5, 1, RATE)
    assert moved.shape == (2, samples) and moved.isfinite().all()
