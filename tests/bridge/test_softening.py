"""Breaks fade, wherever they are; what begins and ends by itself stays."""

import math

import pytest
import torch
from tolerances import ROUNDING

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.bridge.softening import DEPTH, soften_breaks

RATE = 24000
QUIET = 1e-4


def tone(seconds: float, rate: int = RATE, hertz: float = 330.0) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * rate)) / rate)[None]


@pytest.mark.parametrize("rate", [8000, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_a_tone_that_is_cut_fades(rate, noise):
    """Also where a resampler's ringing hides the cut, and against noise, which stays as it is."""
    wav = tone(1.0, rate)
    wav[:, rate // 4 : rate // 2] = 0
    wav = resample(wav, rate, RATE) + noise * torch.randn(
        1, RATE, generator=torch.Generator().manual_seed(0)
    )
    out = soften_breaks(wav, RATE, QUIET)
    step = RATE // 1000
    for end in (RATE // 4, RATE):
        assert (
            out[:, end - 2 * step : end - step].abs().max()
            < 0.3 * 10 ** (-(DEPTH - 6) / 20) + 5 * noise
        )
    for begin in (0, RATE // 2):
        assert out[:, begin : begin + step // 2].abs().max() < 0.1
    same = torch.ones(RATE, dtype=torch.bool)
    for place, before, after in ((0, 0, 5), (RATE // 4, 25, 3), (RATE // 2, 3, 5), (RATE, 25, 0)):
        same[max(0, place - before * step) : place + after * step] = False
    assert torch.equal(out[:, same], wav[:, same])


def test_a_sound_that_begins_and_ends_by_itself_stays():
    wav = tone(1.0) * torch.linspace(0, torch.pi, RATE).sin() ** 2
    assert torch.allclose(soften_breaks(wav, RATE, QUIET), wav, atol=ROUNDING)


@pytest.mark.parametrize("hertz", [45.0, 110.0, 880.0])
def test_pulses_are_no_breaks(hertz):
    """22 ms apart, each gone long before the next one."""
    pulses = (2 * math.pi * hertz * torch.arange(RATE) / RATE).cos().clamp_min(0)[None] ** 20 * 0.3
    assert torch.equal(soften_breaks(pulses, RATE, QUIET)[:, 2000:-2000], pulses[:, 2000:-2000])


def test_a_fast_decay_is_no_break():
    decay = tone(1.0) * 10 ** (-torch.arange(RATE) / RATE * 3 / 0.1)  # 60 dB in a tenth of a second
    assert torch.equal(soften_breaks(decay, RATE, QUIET)[:, 500:], decay[:, 500:])


def test_a_window_in_the_middle_has_no_ends():
    wav = tone(0.5)
    assert torch.equal(soften_breaks(wav, RATE, QUIET, first=False, last=False), wav)
    assert not soften_breaks(torch.zeros(2, 1000), RATE, QUIET).any()
