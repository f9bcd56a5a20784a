"""What lies below hearing goes, the rest stays, however a recording is cut, at every rate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerances import ROUNDING

from audio_diffusion_pytorch.audio import HighPass

RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000]


def filtered(wav: torch.Tensor, rate: int, *sizes: int) -> torch.Tensor:
    high_pass = HighPass(rate)
    rest = wav.shape[1] - sum(sizes)
    return torch.cat(
        [*map(high_pass, wav.split([*sizes, rest], 1)), high_pass(wav[:, :0], last=True)], 1
    )


@pytest.mark.parametrize("rate", RATES)
def test_the_response_is_flat_above_and_deep_below(rate):
    pulse = torch.zeros(1, 2 * rate)
    pulse[0, rate] = 1
    gain = (
        20
        * torch.fft.rfft(filtered(pulse, rate)[0].double(), n=8 * rate)
        .abs()
        .clamp_min(1e-9)
        .log10()
    )  # 1/8 Hz
    assert gain[: 8 * 8 + 1].max() < -40
    assert gain[27 * 8 :].abs().max() < 0.1


@given(
    frames=st.integers(1, 5000),
    cuts=st.lists(st.floats(0, 1), max_size=4),
    channels=st.integers(1, 2),
    rate=st.sampled_from([100, 1000, 8000]),
)
def test_blocks_leave_no_trace(frames, cuts, channels, rate):
    wav = torch.randn(channels, frames, generator=torch.Generator().manual_seed(frames))
    places = sorted(round(cut * frames) for cut in cuts)
    sizes = [b - a for a, b in zip([0, *places], places, strict=False)]
    out = filtered(wav, rate, *sizes)
    assert out.shape == wav.shape and torch.equal(out, filtered(wav, rate))


@given(frames=st.integers(1, 5000), value=st.floats(-1, 1, width=32))
def test_a_constant_is_nothing_from_end_to_end(frames, value):
    assert filtered(torch.full((1, frames), value), 1000).abs().max() < ROUNDING


def test_a_drift_is_nothing_and_sound_on_it_stays():
    time = torch.arange(24000) / 8000
    tone = 0.1 * torch.sin(2 * math.pi * 200 * time)[None]
    out = filtered(tone + 0.3 * time - 0.5, 8000)
    assert (out - tone).square().mean().sqrt() < 0.02 * tone.square().mean().sqrt()
    assert (out - tone).abs().max() < 0.02


def test_no_sound_gives_none():
    high_pass = HighPass(8000)
    assert (
        high_pass(torch.zeros(2, 0)).shape
        == high_pass(torch.zeros(2, 0), last=True).shape
        == (2, 0)
    )
