"""Melody and sound distances: the original's numbers, exact DTW, silence, odd inputs."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import PITCH_DATA, ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TWO_DECIMALS

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.melody import dtw_distance, jaccard_distance, pitch_metrics
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.pitch.tracker import (
    PITCH_CLASSES,
    fold_octaves,
    median_over_time,
    track_melody,
)

DEMO = Path(os.environ.get("REFERENCE_DEMO", ROOT.parent / "shared" / "reference" / "demo"))
RATE = 24000
TUNE = (60, 64, 67, 72, 71, 67, 62, 65)  # C E G C B G D F


def read(path: Path) -> torch.Tensor:
    """A file at 24 kHz -> [1, T]."""
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    return torch.from_numpy(wav)[None]


def play(notes: tuple[int, ...], seconds: float = 0.5, rate: int = RATE) -> torch.Tensor:
    """MIDI notes one after another, six harmonics each -> [1, T]."""
    t = torch.arange(round(seconds * rate)) / rate
    envelope = (t / 0.01).clamp(max=1) * ((seconds - t) / 0.02).clamp(max=1)
    tones = []
    for note in notes:
        frequency = 440 * 2 ** ((note - 69) / 12)
        tones.append(
            sum(torch.sin(2 * math.pi * frequency * h * t) / h**1.5 for h in range(1, 7))
            * envelope
            * 0.3
        )
    return torch.cat(tones)[None]


def up(semitones: int) -> torch.Tensor:
    return play(tuple(note + semitones for note in TUNE))


@pytest.fixture(scope="module")
def tune() -> torch.Tensor:
    return play(TUNE)


# The original system's numbers


def test_paper_mode_reproduces_the_reference():
    expected = np.load(PITCH_DATA / "golden.npz")["raw24k"]
    found = pitch_metrics(
        read(PITCH_DATA / "a.flac"), read(PITCH_DATA / "b.flac"), RATE, mode="paper"
    )
    assert found.dpd.item() == pytest.approx(expected[0], abs=TWO_DECIMALS)
    assert found.jaccard.item() == pytest.approx(expected[1], abs=TWO_DECIMALS)


def test_paper_mode_on_resampled_clips_reproduces_the_reference():
    """Whole clips at 22.05 kHz: told that they are 24 kHz, `paper` takes them as they are."""
    from audio_diffusion_pytorch.audio import resample

    expected = np.load(PITCH_DATA / "golden.npz")["resampled"]
    clips = [resample(read(PITCH_DATA / f"{name}.flac"), RATE, 22050) for name in "ab"]
    found = pitch_metrics(*clips, RATE, mode="paper")
    assert found.dpd.item() == pytest.approx(expected[0], abs=TWO_DECIMALS)
    assert found.jaccard.item() == pytest.approx(expected[1], abs=TWO_DECIMALS)


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo clips are not part of the repository")
@pytest.mark.parametrize(
    ("real", "generated", "dpd", "jaccard"),
    [
        ("real_flute", "generated_violin_from_flute", 0.067, 0.0),
        ("real_bassoon", "generated_cello_from_bassoon", 0.121, 0.0),
    ],
)
def test_paper_mode_reproduces_the_published_demo(real, generated, dpd, jaccard):
    clips = read(DEMO / f"{real}.wav"), read(DEMO / f"{generated}.wav")
    found = pitch_metrics(*clips, RATE, mode="paper")
    assert found.dpd.item() == pytest.approx(dpd, abs=TWO_DECIMALS)
    assert found.jaccard.item() == pytest.approx(jaccard, abs=TWO_DECIMALS)
    assert pitch_metrics(*clips, RATE).dpd.item() < 0.25


# Constructed melodies


def test_correct_mode_names_the_notes(tune):
    melody = track_melody(tune, RATE)
    middles = melody.classes[0, 21::43][:8]
    assert [PITCH_CLASSES[i] for i in middles] == ["C", "E", "G", "C", "B", "G", "D", "F"]
    assert melody.voiced.all()


@pytest.mark.parametrize("mode", ["paper", "correct"])
def test_a_clip_keeps_its_own_melody(tune, mode):
    found = pitch_metrics(tune, tune.clone(), RATE, mode=mode)
    assert found.dpd.item() == 0 and found.jaccard.item() == 0
    assert found.problems == (None,)


def test_an_octave_higher_is_the_same_melody(tune):
    found = pitch_metrics(tune, up(12), RATE)
    assert found.dpd.item() == 0 and found.jaccard.item() == 0


@pytest.mark.parametrize(("semitones", "distance"), [(1, 1), (3, 3), (6, 6), (7, 5), (11, 1)])
def test_a_transposed_note_is_its_circular_distance_away(semitones, distance):
    """One held note, so that the time alignment can hide nothing."""
    found = pitch_metrics(play((60,), 2.0), play((60 + semitones,), 2.0), RATE)
    # Frames at the notes' edges may hear either note.
    assert found.dpd.item() == pytest.approx(distance, abs=0.1)
    assert found.jaccard.item() == 1


def test_a_transposed_tune_is_far(tune):
    # Frames at the notes' edges may hear either note.
    assert pitch_metrics(tune, up(1), RATE).dpd.item() == pytest.approx(1, abs=0.05)
    assert pitch_metrics(tune, up(6), RATE).dpd.item() > 2


def test_tempo_level_rests_and_sample_rate_do_not_matter(tune):
    rest = torch.cat([play(TUNE[:4]), torch.zeros(1, RATE), play(TUNE[4:])], dim=1)
    for other in (play(TUNE, 0.6), tune * 0.05, rest):
        assert pitch_metrics(tune, other, RATE).dpd.item() < 0.02
    # Frames are 1 % of the clip each; two edges.
    assert pitch_metrics(rest, rest, RATE).voiced_a.item() == pytest.approx(0.8, abs=0.03)
    at_44k = play(TUNE, rate=44100)
    assert torch.equal(track_melody(at_44k, 44100).classes, track_melody(tune, RATE).classes)


def test_missing_notes_cost(tune):
    half = torch.cat([play(TUNE[:4]), torch.zeros(1, 2 * RATE)], dim=1)
    found = pitch_metrics(tune, half, RATE)
    assert found.dpd.item() > 1 and found.jaccard.item() >= 0.4
    # Frames are 1 % of the clip each; two edges.
    assert found.voiced_b.item() == pytest.approx(0.5, abs=0.03)


def test_a_batch_equals_its_pairs(tune):
    noise = torch.randn(tune.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    a, b = torch.cat([tune, tune, tune]), torch.cat([up(3), torch.zeros_like(tune), noise])
    for mode in ("paper", "correct"):
        together = pitch_metrics(a, b, RATE, mode=mode)
        for i in range(3):
            alone = pitch_metrics(a[i : i + 1], b[i : i + 1], RATE, mode=mode)
            # Padding moves the last frames: a frame of some hundred may hear another class.
            assert together.dpd[i].item() == pytest.approx(alone.dpd.item(), abs=0.02, nan_ok=True)
            # ... and one class more or less of at most seven.
            assert together.jaccard[i].item() == pytest.approx(
                alone.jaccard.item(), abs=0.15, nan_ok=True
            )
            assert together.problems[i] == alone.problems[0]


# Silence, noise, very short and unusable audio


def test_silence_has_no_melody(tune):
    silence = torch.zeros_like(tune)
    one = pitch_metrics(tune, silence, RATE)
    assert math.isnan(one.dpd.item()) and one.jaccard.item() == 1 and one.voiced_b.item() == 0
    assert one.problems == ("no voiced frame in b",)
    both = pitch_metrics(silence, silence, RATE)
    assert math.isnan(both.dpd.item()) and math.isnan(both.jaccard.item())
    assert both.problems == ("no voiced frame in a and b",)


def test_silence_has_a_class_in_paper_mode(tune):
    silence = torch.zeros_like(tune)
    assert pitch_metrics(silence, silence, RATE, mode="paper").dpd.item() == 0
    assert pitch_metrics(tune, silence, RATE, mode="paper").dpd.item() > 1


def test_noise_has_hardly_a_melody(tune):
    noise = torch.randn(tune.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    found = pitch_metrics(tune, noise, RATE)
    assert found.voiced_b.item() < 0.5 < found.voiced_a.item()
    assert math.isnan(found.dpd.item()) or 0 <= found.dpd.item() <= 6


@pytest.mark.parametrize("mode", ["paper", "correct"])
@pytest.mark.parametrize("samples", [1, 100, 2400])
def test_very_short_clips_have_an_answer(tune, mode, samples):
    found = pitch_metrics(
        tune[:, 5000 : 5000 + samples], tune[:, 5000 : 5000 + samples], RATE, mode=mode
    )
    if samples == 2400 or mode == "paper":
        assert found.dpd.item() == 0 and found.jaccard.item() == 0
    else:
        assert math.isnan(found.dpd.item()) and found.problems[0]


@pytest.mark.parametrize("metric", [pitch_metrics, log_mel_distance])
def test_unusable_audio_is_refused(metric):
    good = torch.zeros(1, 4000)
    for bad, words in (
        (torch.zeros(1, 0), "no samples"),
        (torch.zeros(4000), "mono clips"),
        (torch.zeros(1, 2, 4000), "mono clips"),
        (good.int(), "floating-point"),
        (torch.full_like(good, math.inf), "finite"),
    ):
        with pytest.raises(InputError, match=f"^b: .*{words}"):
            metric(good, bad, RATE)
    with pytest.raises(InputError, match=r"2 and 1|one length"):
        metric(good.repeat(2, 1), good, RATE)
    with pytest.raises(InputError, match="sample rate"):
        metric(good, good, 0)


def test_unknown_settings_are_refused(tune):
    with pytest.raises(InputError, match="exact"):
        pitch_metrics(tune, tune, RATE, mode="exact")
    with pytest.raises(InputError, match="odd number"):
        pitch_metrics(tune[:, :2400], tune[:, :2400], RATE, median_frames=4)


# Parts


def test_octaves_fold_onto_a():
    note = torch.zeros(1, 3, 88)
    note[0, 0, 0], note[0, 1, 87], note[0, 2, 12 + 3], note[0, 2, 3] = (
        0.5,
        0.6,
        0.7,
        0.4,
    )  # A0, C8, C2 and C1
    chroma = fold_octaves(note)
    assert chroma.shape == (1, 3, 12)
    assert chroma.argmax(dim=-1).tolist() == [[0, 3, 3]]
    assert torch.allclose(chroma.amax(dim=-1), torch.tensor([[0.5, 0.6, 0.7]]))


def test_median_runs_over_time_only():
    """Each clip on its own: a filter that also ran over the batch would give zeros here."""
    classes = torch.tensor([[5, 5, 9, 5, 5, 2, 2], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]])
    found = median_over_time(classes, 3)
    assert found.tolist() == [[5, 5, 5, 5, 5, 2, 2], [0] * 7, [0] * 7]
    assert torch.equal(median_over_time(classes[:1], 3), found[:1])
    assert torch.equal(median_over_time(classes, 0), classes)
    assert median_over_time(classes[:, :2], 7).shape == (3, 2)


def slow_dtw(a: list[int], b: list[int]) -> float:
    """Every path by recursion: the cheapest cost over the shortest length that has it."""

    def best(i: int, j: int) -> tuple[int, int]:
        apart = abs(a[i] - b[j])
        steps = [(i - di, j - dj) for di, dj in ((1, 0), (0, 1), (1, 1)) if i >= di and j >= dj]
        cost, length = min((best(*step) for step in steps), default=(0, 0))
        return cost + min(apart, 12 - apart), length + 1

    cost, length = best(len(a) - 1, len(b) - 1)
    return cost / length


sequences = st.lists(st.integers(0, 11), min_size=1, max_size=5)


@settings(max_examples=examples(40))
@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=4))
def test_dtw_is_exact_batched_and_symmetric(pairs):
    first, second = ([np.array(pair[i]) for pair in pairs] for i in (0, 1))
    found = dtw_distance(first, second)
    assert found == pytest.approx([slow_dtw(*pair) for pair in pairs])
    assert np.array_equal(found, dtw_distance(second, first))
    assert ((found >= 0) & (found <= 6)).all()


def test_dtw_of_nothing_is_nan():
    empty, some = np.array([], dtype=int), np.array([1, 2])
    assert np.isnan(dtw_distance([empty, empty], [empty, some])).all()
    assert np.array_equal(dtw_distance([some, empty], [some, some]), [0, np.nan], equal_nan=True)


def test_dtw_is_never_dearer_than_the_approximation():
    from fastdtw.fastdtw import fastdtw

    generator = np.random.default_rng(0)
    for first, second in itertools.product([40, 75], [40, 90]):
        a, b = (
            generator.integers(0, 6, first),
            generator.integers(0, 6, second),
        )  # circular and plain distance agree
        cost, _ = fastdtw(a, b)
        assert dtw_distance([a], [b])[0] <= cost / max(len(a), len(b))
        assert dtw_distance([a], [a])[0] == 0


def test_jaccard_counts_the_classes_that_occur():
    assert jaccard_distance(np.array([0, 1, 1]), np.array([1, 2])) == pytest.approx(2 / 3)
    assert jaccard_distance(np.array([], dtype=int), np.array([1])) == 1
    assert math.isnan(jaccard_distance(np.array([], dtype=int), np.array([], dtype=int)))


# Log-mel distance


def test_log_mel_distance_measures_level_and_floor():
    noise = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    assert log_mel_distance(noise, noise, RATE).tolist() == [0, 0]
    halved = log_mel_distance(noise, noise * 0.5, RATE)
    # The mel floor adds up to a hundredth.
    assert torch.allclose(halved, torch.full((2,), math.log(2)), atol=0.01)
    silence = torch.zeros_like(noise)
    assert log_mel_distance(silence, silence + 1e-9, RATE).tolist() == [0, 0]
    assert (log_mel_distance(noise, silence, RATE) < -math.log(1e-4)).all()
    assert torch.isfinite(log_mel_distance(noise[:, :100], silence[:, :100], RATE)).all()


def test_log_mel_distance_tells_timbres_apart(tune):
    bright = play(TUNE) + 0.1 * play(tuple(note + 12 for note in TUNE))
    assert (
        0.05
        < log_mel_distance(tune, bright, RATE).item()
        < log_mel_distance(tune, up(5), RATE).item()
    )
