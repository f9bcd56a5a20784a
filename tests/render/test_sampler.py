"""Performances of recorded notes: pitch, length, level, and files that cannot be used."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render.clips import generator
from audio_diffusion_pytorch.render.player import PEAK, SAMPLE_RATE, Performance, perform
from audio_diffusion_pytorch.render.sampler import SampleLibrary, play_samples
from audio_diffusion_pytorch.render.studies import study

RATE = 44100
NAMES = {60: "C4", 62: "D4", 64: "E4", 65: "F4"}


def frequency(midi: float) -> float:
    return 440 * 2 ** ((midi - 69) / 12)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flute").mkdir()
    time = np.arange(RATE) / RATE
    for pitch, name in NAMES.items():
        sound = np.pad(0.3 * np.sin(2 * np.pi * frequency(pitch) * time), RATE // 10)
        for dynamic in ("piano", "forte"):
            path = tmp_path / "flute" / f"flute_{name}_1_{dynamic}_normal.wav"
            soundfile.write(path, sound, RATE)
    return tmp_path


def performance(*notes: tuple[float, float, int, int]) -> Performance:
    return Performance(list(notes), [(0.0, "expression", 127)], notes[-1][1] + 0.5, 90.0)


def strongest(audio: np.ndarray, start: float, end: float) -> float:
    part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 18))
    return 69 + 12 * np.log2(np.argmax(spectrum) * SAMPLE_RATE / (1 << 18) / 440)


def test_each_note_has_its_pitch_and_place(folder):
    notes = performance((0.2, 0.7, 60, 80), (0.9, 1.4, 64, 80), (1.6, 3.6, 63, 80))
    audio = play_samples(notes, [60, 64, 63], SampleLibrary(folder, "flute"), generator(0))
    assert np.abs(audio[: round(0.19 * SAMPLE_RATE)]).max() < 1e-3
    assert abs(strongest(audio, 0.25, 0.65) - 60) < 0.4
    assert abs(strongest(audio, 0.95, 1.35) - 64) < 0.4
    assert abs(strongest(audio, 1.7, 3.5) - 63) < 0.4  # moved, and prolonged to twice its length
    level = [np.abs(audio[round(t * SAMPLE_RATE) :][:2400]).max() for t in (1.8, 2.6, 3.3)]
    assert min(level) > 0.7 * max(level)
    assert np.abs(audio).max() == pytest.approx(PEAK, rel=1e-5)


def test_equal_seeds_play_equally(folder):
    library = SampleLibrary(folder, "flute")
    notes = performance((0.1, 0.6, 60, 80), (0.6, 1.2, 62, 80))
    first, second, other = (
        play_samples(notes, [60, 62], library, generator(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_files_that_cannot_be_used(folder):
    for name in ("flute_C4_phrase_forte_normal", "flute_C4_1_forte_trill", "notes"):
        soundfile.write(folder / "flute" / f"{name}.wav", np.zeros(100), RATE)
    soundfile.write(folder / "flute" / "flute_A6_1_forte_normal.wav", np.zeros(RATE), RATE)
    library = SampleLibrary(folder, "flute")
    assert library.skipped == {"phrases": 1, "other articulations": 1, "other names": 1}
    notes = performance((0.1, 0.6, 93, 80), (0.7, 1.2, 80, 80), (1.3, 1.8, 67, 80))
    audio = play_samples(notes, [93, 80, 67], library, generator(0))
    assert np.abs(audio[: SAMPLE_RATE * 5 // 4]).max() < 1e-3  # silent, and out of reach
    assert abs(strongest(audio, 1.35, 1.75) - 67) < 0.4
    assert library.moved == 1
    with pytest.raises(InputError, match="oboe holds no recorded notes"):
        SampleLibrary(folder, "oboe")


@pytest.mark.parametrize("seed", range(5))
def test_studies_stay_in_range_and_can_be_performed(seed):
    notes = study(60, 93, generator(seed))
    pitches = [pitch for _, _, pitch, _ in notes]
    assert min(pitches) >= 60 and max(pitches) <= 93
    assert all(a[0] + a[1] <= b[0] + 1e-9 for a, b in pairwise(notes))
    assert perform(notes, generator(seed)).duration > 10
