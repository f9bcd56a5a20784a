"""Harmonics-to-noise ratio of tones in noise of a known level."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt

from audio_diffusion_pytorch.metrics.harmonicity import harmonics_to_noise
from audio_diffusion_pytorch.pitch.notes import F0Track

RATE = 24000


def tone(hertz: float, ratio: float) -> torch.Tensor:
    """Harmonic tone in noise between 60 Hz and 8 kHz, `ratio` dB below the tone."""
    time = np.arange(RATE) / RATE
    sound = sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 9) if k * hertz < 7500)
    band = butter(6, [60, 8000], "band", fs=RATE, output="sos")
    noise = sosfilt(band, np.random.default_rng(0).standard_normal(2 * RATE))[RATE:]
    noise *= math.sqrt(np.mean(sound**2) / np.mean(noise**2)) * 10 ** (-ratio / 20)
    return torch.from_numpy(sound + noise).float()


def steady(hertz: float, voiced: bool = True) -> F0Track:
    times = np.arange(5, 95) * 0.01
    return F0Track(times, np.full(len(times), hertz), np.full(len(times), voiced))


@pytest.mark.parametrize("hertz", [110.0, 440.0, 1500.0])
@pytest.mark.parametrize("ratio", [0, 10, 20])
def test_the_ratio_is_right_within_one_db(hertz, ratio):
    tracked = hertz * 2 ** (25 / 1200)  # trackers are wrong by some cents
    found = harmonics_to_noise(tone(hertz, ratio), RATE, steady(tracked))["hnr"]
    assert found == pytest.approx(ratio, abs=1.0)


def test_frames_are_sorted_into_bands_of_pitch():
    found = harmonics_to_noise(tone(440.0, 10), RATE, steady(440.0))
    assert found["hnr_mid"] == found["hnr"]
    assert all(math.isnan(found[name]) for name in ("hnr_low", "hnr_high", "hnr_top"))


def test_silence_and_unvoiced_sound_have_no_ratio():
    assert math.isnan(harmonics_to_noise(tone(440.0, 10), RATE, steady(440.0, False))["hnr"])
    assert math.isnan(harmonics_to_noise(torch.zeros(RATE), RATE, steady(440.0))["hnr"])
