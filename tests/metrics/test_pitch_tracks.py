"""Frame accuracy and vibrato of pitch tracks with known pitches."""

import math

import numpy as np
import pytest

from audio_diffusion_pytorch.metrics.pitch_tracks import (
    frame_accuracy,
    note_starts,
    vibrato_kept,
)
from audio_diffusion_pytorch.pitch.notes import F0Track

STEP = 0.01  # seconds


def track(cents: np.ndarray, voiced: np.ndarray | None = None, hertz: float = 440.0) -> F0Track:
    voiced = np.ones(len(cents), bool) if voiced is None else voiced
    return F0Track(np.arange(len(cents)) * STEP, hertz * 2 ** (cents / 1200), voiced)


def vibrato(rate: float, extent: float, seconds: float = 2.0) -> np.ndarray:
    return extent * np.sin(2 * np.pi * rate * np.arange(0, seconds, STEP))


def test_pitches_are_right_within_50_cents_and_chroma_ignores_octaves():
    reference = track(np.zeros(100))
    cents = np.repeat([0.0, 40.0, 60.0, 1230.0, -1200.0], 20)
    found = frame_accuracy(reference, track(cents))
    assert found["raw_pitch"] == pytest.approx(0.4)
    assert found["raw_chroma"] == pytest.approx(0.8)


def test_only_voiced_frames_of_the_reference_count():
    voiced = np.arange(100) < 50
    output = np.arange(100) % 2 == 0
    found = frame_accuracy(
        track(np.zeros(100), voiced), track(np.zeros(120), np.r_[output, [True] * 20])
    )
    assert found["raw_pitch"] == found["raw_chroma"] == found["voicing_recall"] == 0.5
    assert found["voicing_false_alarm"] == 0.5


def test_a_reference_without_pitch_has_no_accuracy():
    found = frame_accuracy(track(np.zeros(9), np.zeros(9, bool)), track(np.zeros(9)))
    assert math.isnan(found["raw_pitch"]) and math.isnan(found["raw_chroma"])
    assert found["voicing_false_alarm"] == 1


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0, 1.5])
def test_extent_and_rate_of_a_vibrato_are_compared(share):
    reference = track(vibrato(5.5, 40) + np.linspace(0, 20, 200))
    found = vibrato_kept(reference, track(vibrato(6.6, 40 * share), hertz=880))
    assert found["vibrato_extent"] == pytest.approx(share, abs=0.03)
    assert found["vibrato_rate"] == pytest.approx(1.2, abs=0.02)


def test_a_few_frames_without_pitch_do_not_hide_a_vibrato():
    moving = track(vibrato(5.5, 40))
    for unvoiced, expected in ((20, 1.0), (60, 0.0)):
        voiced = np.ones(200, bool)
        voiced[-unvoiced:] = False
        found = vibrato_kept(moving, track(vibrato(5.5, 40), voiced))
        assert found["vibrato_extent"] == pytest.approx(expected, abs=0.15)


def test_a_lost_vibrato_counts_as_zero_and_a_steady_input_not_at_all():
    moving, steady = track(vibrato(5.5, 40)), track(np.zeros(200))
    silent = track(vibrato(5.5, 40), np.zeros(200, bool))
    assert vibrato_kept(moving, steady)["vibrato_extent"] == 0
    assert vibrato_kept(moving, silent)["vibrato_extent"] == 0
    assert math.isnan(vibrato_kept(steady, moving)["vibrato_extent"])
    noise = np.random.default_rng(0).normal(0, 20, 200)
    assert math.isnan(vibrato_kept(track(noise), moving)["vibrato_extent"])


def test_notes_start_where_a_voiced_section_or_a_new_semitone_begins():
    cents = np.repeat([0.0, 200.0, 200.0, 500.0, 0.0], [50, 50, 20, 50, 3])
    voiced = np.repeat([True, True, False, True, True], [50, 50, 20, 50, 3])
    assert note_starts(track(cents, voiced)) == pytest.approx([0.0, 0.5, 1.2])
