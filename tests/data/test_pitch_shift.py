"""Pitch-shift augmentation: frequencies, duration, level, clicks, share, range and cache."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, damage, melody

from audio_diffusion_pytorch.data import pitch_shift
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.pitch_shift import PitchShift, make_pitch_shift
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch import phase_vocoder
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch


def tone(
    frequency: float = 440.0, seconds: float = 2.0, rate: int = RATE, partials: int = 5
) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    wav = sum(0.4**k * np.sin(2 * np.pi * (k + 1) * frequency * time + k) for k in range(partials))
    return (0.3 * wav)[None].astype(np.float32)


def cents(wav: np.ndarray, frequency: float, rate: int = RATE) -> float:
    """How much sharper the partial near `frequency` is."""
    middle = wav[rate // 2 : -rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * len(middle)))
    bins = np.arange(len(spectrum)) * rate / (16 * len(middle))
    near = np.abs(np.log2(np.maximum(bins, 1) / frequency)) < 1 / 12
    return 1200 * np.log2(bins[near][spectrum[near].argmax()] / frequency)


@pytest.mark.parametrize("semitones", [-25, -12, -7, -1, 1, 4, 12, 19, 25])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_tone_moves_by_the_interval_and_keeps_its_partials(semitones, rate):
    wav = tone(rate=rate)
    out = shift_pitch(wav, semitones, rate)
    assert out.shape == wav.shape and out.dtype == np.float32
    ratio = 2 ** (semitones / 12)
    assert all(abs(cents(out[0], 440 * k * ratio, rate)) < 2.5 for k in (1, 2, 3))

    middle = out[0, rate // 2 : -rate // 2]
    # The quotient of the windows is the ratio to a few cents.
    before, after = phase_vocoder._windows(ratio, rate)
    angle = 2 * np.pi * 440 * before / after * np.arange(len(middle)) / rate
    angles = np.outer(angle, [k for k in range(1, 6) if 440 * k * ratio < 0.48 * rate])
    basis = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    weights, *_ = np.linalg.lstsq(basis, middle, rcond=None)
    amplitudes = np.hypot(*weights.reshape(2, -1))
    # A partial between two bins of the spectrum reads up to 2 % low.
    np.testing.assert_allclose(amplitudes, 0.3 * 0.4 ** np.arange(len(amplitudes)), rtol=0.02)
    residue = np.sqrt(np.square(middle - basis @ weights).mean())
    assert residue < 10 ** (-60 / 20) * np.sqrt(np.square(middle).mean())


@pytest.mark.parametrize("semitones", [-19, -5, 5, 19])
def test_tempo_stays_and_nothing_clicks(semitones):
    """Onsets of separate notes keep their times; second differences show no clicks."""
    wav = np.concatenate([np.zeros(RATE // 4), np.hanning(RATE // 4) * tone(seconds=0.25)[0]] * 4)[
        None
    ]
    out = shift_pitch(wav.astype(np.float32), semitones, RATE)

    def envelope(x: np.ndarray) -> np.ndarray:
        return np.sqrt(np.convolve(np.square(x), np.ones(480) / 480, "same"))

    before, after = envelope(wav[0]), envelope(out[0])
    lag = np.correlate(after[::24], before[::24], "full").argmax() - (len(before[::24]) - 1)
    assert abs(lag) <= 5  # ms
    assert np.corrcoef(before, after)[0, 1] > (0.95 if semitones > -12 else 0.85)

    def crest(x: np.ndarray) -> float:
        second = np.diff(x, 2)
        return np.abs(second).max() / np.sqrt(np.square(second).mean())

    assert crest(out[0]) < 1.3 * crest(wav[0])


def test_vibrato_is_followed():
    time = np.arange(3 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(440 * 2 ** (np.sin(2 * np.pi * 5.5 * time) / 24)) / RATE
    out = shift_pitch(np.sin(phase)[None].astype(np.float32), 7, RATE)[0, RATE:-RATE]
    analytic = np.fft.ifft(
        np.fft.fft(out) * np.r_[2 * np.ones(len(out) // 2), np.zeros(len(out) // 2)]
    )
    level = np.abs(analytic)[500:-500]
    frequency = np.convolve(np.diff(np.unwrap(np.angle(analytic))), np.ones(400) / 400, "valid")[
        500:-500
    ]
    depth = 1200 * np.log2(frequency.max() / frequency.min())
    assert 85 < depth < 105 and level.max() / level.min() < 1.1


def test_channels_keep_their_difference_and_any_length_works():
    wav = np.concatenate([tone(), -0.5 * tone()])
    left, right = shift_pitch(wav, 5, RATE)
    # Both channels go through the same float32 transforms.
    np.testing.assert_allclose(right, -0.5 * left, atol=1e-5)
    for length in (0, 1, 100, 5000):
        out = shift_pitch(np.zeros((1, length), np.float32), -9, RATE)
        assert out.shape == (1, length) and not out.any()
    noise = np.random.default_rng(0).standard_normal((1, RATE)).astype(np.float32)
    assert 0.7 < shift_pitch(noise, -3, RATE).std() < 1.2
    wav = tone(seconds=30)[:, : 30 * RATE]  # more than one block of frames
    assert np.isfinite(shift_pitch(wav, 12, RATE)).all()


# In the data set.


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tones")
    for index in range(4):
        soundfile.write(path / f"flute_{index}.wav", tone(400.0 + index, seconds=2.5)[0], RATE)
    return path


def dataset(folder: Path, cache: Path | None, sign: int = -1, **settings) -> InstrumentDataset:
    shift = (
        PitchShift(sign, cache, **{"probability": 1.0, "semitones": (1, 12), **settings})
        if cache
        else None
    )
    return InstrumentDataset(folder, ["flute"], length=2 * RATE, pitch_shift=shift)


def test_share_direction_and_range():
    rng = np.random.default_rng(0)
    for sign in (1, -1):
        shift = PitchShift(sign, "unused")
        shift.keys = {f"{i}.wav": f"{i * 7919:032x}" for i in range(400)}
        drawn = [shift.draw(f"{i % 400}.wav", rng) for i in range(8000)]
        moved = [sign * interval for interval in drawn if interval is not None]
        assert 0.33 < len(moved) / len(drawn) < 0.37
        assert set(moved) == set(range(1, 26))
        counts = Counter(moved)
        assert (
            min(counts.values()) > 0.6 * len(moved) / 25
            and max(counts.values()) < 1.4 * len(moved) / 25
        )
        own = sorted(sign * interval for interval in shift.intervals("5.wav"))
        assert [(interval - 1) // 5 for interval in own] == [0, 1, 2, 3, 4]
    every = PitchShift(1, "unused", variants=None)
    every.keys = {"a": "0f"}
    assert every.intervals("a") == list(range(1, 26))


def test_crops_are_shifted_and_the_same_each_time(folder, tmp_path):
    data = dataset(folder, tmp_path / "cache", variants=2)
    data.prepare()
    files = sorted((tmp_path / "cache").rglob("*.flac"))
    assert len(files) == 8 and not [
        name for name in os.listdir(tmp_path / "cache") if "tmp" in name
    ]
    moved = []
    for index in range(4):
        for epoch in range(6):
            data.set_epoch(epoch)
            crop = data[index]
            assert crop.shape == (1, 2 * RATE)
            intervals = data.variation.pitch_shift.intervals(data.wavs[index])
            moved += [
                i
                for i in intervals
                if abs(cents(crop[0].numpy(), (400 + index) * 2 ** (i / 12))) < 3
            ]
    assert len(moved) == 24 and len(set(moved)) > 4 and all(-12 <= i <= -1 for i in moved)
    assert sorted((tmp_path / "cache").rglob("*.flac")) == files

    fresh = dataset(folder, tmp_path / "other", variants=2)  # made when drawn, in another folder
    fresh.set_epoch(5)
    assert torch.equal(fresh[3], crop)
    shutil.copytree(folder, tmp_path / "moved")  # the key is the content, not the path
    moved = dataset(tmp_path / "moved", tmp_path / "cache", variants=2)
    moved.set_epoch(5)
    assert torch.equal(moved[3], crop)
    assert sorted((tmp_path / "cache").rglob("*.flac")) == files


def test_what_is_prepared_is_not_made_again(folder, tmp_path, monkeypatch):
    data = Datamodule(dataset(folder, tmp_path, variants=1), batch_size=2, num_workers=1)
    state = torch.random.get_rng_state()
    data.train_set.prepare(1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(list(tmp_path.rglob("*.flac"))) == len(data.train_set.wavs) == 3
    monkeypatch.setattr(pitch_shift, "shift_pitch", None)  # calling it would fail
    again = Datamodule(dataset(folder, tmp_path, variants=1), batch_size=2)
    assert len(list(again.train_dataloader())) == 16  # an epoch of few recordings is filled
    assert again.valid_set.variation.pitch_shift is None


def test_off_changes_nothing(folder, tmp_path):
    plain, never = dataset(folder, None), dataset(folder, tmp_path, probability=0.0)
    assert torch.equal(plain[0], torch.from_numpy(_read(folder, plain, 0)))
    for value in (None, 0, "None", "null", "", " none "):
        assert make_pitch_shift(value, cache=tmp_path) is None
    assert [make_pitch_shift(sign, cache=tmp_path).sign for sign in (1, -1, "1", "-1", "+1")] == [
        1,
        -1,
        1,
        -1,
        1,
    ]
    assert never[0].shape == plain[0].shape and not list(tmp_path.iterdir())


def _read(folder: Path, data: InstrumentDataset, index: int) -> np.ndarray:
    """A crop as data sets without pitch shift draw it."""
    rng = np.random.default_rng([0, 0, index, 0])
    wav, _ = soundfile.read(data.wavs[index], dtype="float32")
    start = int(rng.integers(len(wav) - 2 * RATE + 1))
    return wav[None, start : start + 2 * RATE]


def test_loud_recordings_do_not_clip(tmp_path):
    wav = np.sign(tone(200.0, 2.5)[0]).astype(np.float32)
    for index in range(2):
        soundfile.write(tmp_path / f"flute_{index}.wav", wav, RATE)
    out = dataset(tmp_path, tmp_path / "cache", variants=1)[0]
    assert 0.3 < out.abs().max() <= 1.0 and (out.abs() > 0.999).sum() < 100


def test_bad_files_and_folders(tmp_path):
    for index in range(3):
        soundfile.write(tmp_path / f"flute_{index}.flac", melody(2.5, seed=index), RATE)
    damage(tmp_path / "flute_1.flac")
    damaged = dataset(tmp_path, tmp_path / "cache", variants=1)
    damaged.prepare()
    with pytest.warns(UserWarning, match=r"skipped: cannot read .*flute_1.flac"):
        assert damaged[1].abs().max() > 0.1  # from another file
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cache of pitch-shifted recordings"):
        dataset(tmp_path, tmp_path / "file")[0]
    broken = next(path for path in (tmp_path / "cache").rglob("*.flac"))
    broken.write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped: .*is empty"):
        _ = [damaged[index] for index in (0, 2)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sign": 2}, "use 1 to shift up, -1 to shift down"),
        ({"sign": "up"}, "use 1 to shift up, -1 to shift down"),
        ({"sign": 1, "semitones": (0, 5)}, "semitones"),
        ({"sign": 1, "semitones": (9,)}, "semitones"),
        ({"sign": 1, "probability": 35}, "probability"),
        ({"sign": 1, "variants": 0}, "variants"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        make_pitch_shift(cache="unused", **settings)
