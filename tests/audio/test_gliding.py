"""Resampling at a gliding ratio, and back: positions and pitch stay."""

import pytest
import torch

from audio_diffusion_pytorch.audio.gliding import GlidingResampler, Interpolator

NEW_RATE = 24000


def tones(rate: int, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    return (0.3 * torch.sin(2764.6 * time) + 0.2 * torch.sin(18849.6 * time))[None]


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 96000])
@pytest.mark.parametrize("cents", [0, 45, -45])
def test_there_and_back_is_the_input(rate, cents):
    resampler = GlidingResampler(rate, NEW_RATE, 1)
    wav = tones(rate)
    out = []
    for index, block in enumerate(wav.split(997, 1)):
        tuned = rate * 2 ** ((cents if index > 2 else 0) / 1200)
        out.append(resampler.back(resampler.there(block, tuned)))
    out = torch.cat(out, 1)
    # The kernels reach 17 samples of the lower rate, there and back.
    assert 0 < wav.shape[1] - out.shape[1] < 3 * 18 * max(1, rate / NEW_RATE)
    # The pass band of two kernels ripples by 0.3 %, and the table is interpolated.
    assert torch.allclose(out[:, 500:], wav[:, 500 : out.shape[1]], atol=2e-3)


def test_the_ratio_glides():
    resampler = GlidingResampler(NEW_RATE, NEW_RATE, 1)
    counts = []
    for second in range(8):
        rate = NEW_RATE * (1.02 if second > 1 else 1.0)
        parts = [resampler.there(part, rate) for part in tones(NEW_RATE).split(240, 1)]
        counts.append(sum(part.shape[1] for part in parts))
    # A higher rate leads to fewer samples of the new one, half a per cent in the first second.
    assert counts[1] == NEW_RATE and 0.99 * NEW_RATE < counts[2] < 0.999 * NEW_RATE
    assert counts[3] < counts[2]
    # After six seconds the ratio has arrived.
    assert counts[-1] == pytest.approx(NEW_RATE / 1.02, abs=2)


def test_a_constant_stays_constant_between_the_samples():
    interpolator = Interpolator(1.0, 1)
    interpolator.push(torch.ones(1, 200))
    out = interpolator.read(torch.linspace(50, 100, 77).double().numpy())
    assert torch.allclose(out, torch.ones(1, 77), atol=1e-6)
    assert interpolator.read(torch.zeros(0).numpy()).shape == (1, 0)
