"""Augmentation: each change has its effect; all random numbers come from the generator."""

import numpy as np
import pytest
from conftest import RATE, melody

from audio_diffusion_pytorch.data.augment import RecordingAugment

OFF = dict(
    level_db=0.0, tuning_cents=0.0, tone_db=0.0, room_level=(0.0, 0.0), noise_db=(-300.0, -300.0)
)


def change(
    seed: int = 0, length: int = RATE, wav: np.ndarray | None = None, **settings
) -> np.ndarray:
    augment = RecordingAugment(**{"probability": 1.0, **OFF, **settings})
    wav = melody(2.0)[None] if wav is None else wav
    return augment(
        wav[:, : length + augment.margin(length)], length, RATE, np.random.default_rng(seed)
    )


def rms(wav: np.ndarray) -> float:
    return float(np.sqrt(np.square(wav).mean()))


def test_nothing_chosen_changes_nothing():
    wav = melody(2.0)[None]
    out = RecordingAugment(probability=0.0)(wav, RATE, RATE, np.random.default_rng(0))
    assert out.shape == (1, RATE) and out.dtype == np.float32
    # Nothing is varied: float32 filters that pass everything.
    assert np.abs(out - wav[:, :RATE]).max() < 1e-5


def test_level():
    gains = [20 * np.log10(rms(change(seed, level_db=9.0)) / rms(change())) for seed in range(20)]
    assert min(gains) < -5 and max(gains) > 3 and all(abs(gain) <= 9.01 for gain in gains)


def test_tuning_moves_a_tone_by_its_cents():
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)[None].astype(np.float32)
    moved = []
    for seed in range(10):
        out = change(seed, wav=tone, tuning_cents=50.0)[0]
        spectrum = np.abs(np.fft.rfft(out * np.hanning(RATE), 8 * RATE))
        moved.append(1200 * np.log2(spectrum.argmax() / 8 / 1000))
    assert np.ptp(moved) > 20 and all(abs(cents) < 52 for cents in moved)


def test_tone_keeps_within_its_range():
    noise = np.random.default_rng(0).standard_normal((1, 2 * RATE)).astype(np.float32) * 0.02
    ratio = np.abs(np.fft.rfft(change(3, wav=noise, tone_db=6.0))) / np.abs(
        np.fft.rfft(change(3, wav=noise))
    )
    gains = 20 * np.log10(ratio[0, 10:-10])
    assert np.abs(gains).max() < 6.5 and np.ptp(gains) > 2


def test_tilt_is_one_straight_line_over_log_frequency():
    noise = np.random.default_rng(0).standard_normal((1, 2 * RATE)).astype(np.float32) * 0.02
    tilts = []
    before = np.abs(np.fft.rfft(change(wav=noise)))
    for seed in range(10):
        ratio = np.abs(np.fft.rfft(change(seed, wav=noise, tilt_db=12.0))) / before
        low, middle, high = (
            20 * np.log10(ratio[0, round(hertz)]) for hertz in (60, 60 * 200**0.5, 11999)
        )
        assert abs(middle - (low + high) / 2) < 0.5
        tilts.append(high - low)
    assert min(tilts) < -3 and max(tilts) > 3 and all(abs(tilt) < 12.5 for tilt in tilts)


def test_room_rings_on_after_the_sound():
    click = np.zeros((1, 2 * RATE), np.float32)
    click[0, 1000] = 1.0
    out = change(1, wav=click, room_level=(0.5, 0.5), room_seconds=(0.3, 0.3))[0]
    early, late = rms(out[1100:3000]), rms(out[6000:8000])
    assert 10 * late < early * 10 and late < 0.5 * early and early > 1e-3
    assert out[1000] == np.abs(out).max()


def test_noise_floor_lies_where_it_should():
    silence = np.zeros((1, 2 * RATE), np.float32)
    silence[0, 0] = 1.0  # the peak that the floor is measured against
    out = change(2, wav=silence, noise_db=(-40.0, -40.0))[0, 100:]
    # The noise is random: its level over a second scatters by some tenths of a dB.
    assert 20 * np.log10(rms(out)) == pytest.approx(-40, abs=1.0)


@pytest.mark.parametrize("length", [100, 24000, 81920])
def test_length_range_and_repeatability(length):
    settings = dict(
        level_db=20.0,
        tuning_cents=100.0,
        tone_db=12.0,
        room_level=(0.5, 1.0),
        noise_db=(-20.0, -10.0),
    )
    wav = np.tile(melody(4.0), 2)[None].repeat(2, 0)
    for seed in range(3):
        out = change(seed, length, wav, **settings)
        assert out.shape == (2, length) and np.isfinite(out).all() and np.abs(out).max() <= 1.0
        assert np.array_equal(out, change(seed, length, wav, **settings))
    assert not np.array_equal(out, change(0, length, wav, **settings))
