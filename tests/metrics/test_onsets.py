"""Delays of notes by the cross-correlation of envelopes."""

import math

import pytest
import torch

from audio_diffusion_pytorch.metrics.onsets import delay_scores, envelope, onset_delays

RATE = 24000
ONSETS = (0.5, 1.0, 1.5)


def notes(delay: float = 0.0, gain: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Noise with decaying notes at `ONSETS`."""
    time = torch.arange(2 * RATE) / RATE
    level = torch.full_like(time, 1e-3)
    for onset in ONSETS:
        since = time - onset - delay
        level = torch.where(since >= 0, 0.5 * (-6 * since).exp(), level)
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return gain * level * noise


@pytest.mark.parametrize("delay", [-0.02, 0.0, 0.004, 0.03])
def test_a_delay_is_found_within_one_step_at_any_level(delay):
    found = onset_delays(notes(), notes(delay, gain=0.1, seed=1), RATE, ONSETS)
    assert len(found) == 3
    assert found == pytest.approx([delay] * 3, abs=0.0021)


def test_slurred_notes_and_notes_at_the_ends_are_left_out():
    steady = torch.sin(2 * torch.pi * 440 * torch.arange(2 * RATE) / RATE)
    assert onset_delays(steady, steady, RATE, ONSETS) == []
    assert onset_delays(notes(), notes(), RATE, (0.05, 1.95)) == []


def test_an_envelope_has_a_value_every_2_ms_and_ends_60_db_below_the_peak():
    level = envelope(notes(), RATE)
    assert len(level) == 1001
    assert float(level.max() - level.min()) <= 60
    assert float(envelope(torch.zeros(RATE), RATE).max()) == pytest.approx(-120)


def test_scores_are_absolute_milliseconds():
    scores = delay_scores([-0.01, 0.002, 0.004])
    assert scores["onset_median"] == pytest.approx(4)
    assert 4 < scores["onset_p95"] <= 10
    assert math.isnan(delay_scores([])["onset_median"])
