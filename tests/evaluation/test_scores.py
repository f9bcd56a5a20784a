"""Scores of clips with known answers: transposed, delayed, noise, silence, a pure tone."""

import math

import numpy as np
import pytest
import torch

from audio_diffusion_pytorch.evaluation.scores import (
    MELODY,
    PitchAnalyser,
    distance_to_truth,
    melody_scores,
    noise_scores,
    timbre_scores,
)
from audio_diffusion_pytorch.metrics.transcription import note_scores, pitch_accuracy
from audio_diffusion_pytorch.pitch.notes import cut_notes, decode_notes, f0_of_notes
from audio_diffusion_pytorch.pitch.tracker import frame_seconds

RATE = 24000
TUNE = (60, 64, 67, 72, 71, 67, 62, 65)
NOTES = np.array([[0.5 * i, 0.5 * i + 0.48, pitch] for i, pitch in enumerate(TUNE)])


def play(notes: np.ndarray, harmonics: int = 6, seconds: float = 4.0) -> torch.Tensor:
    """Notes -> [T]."""
    t = torch.arange(round(seconds * RATE)) / RATE
    wav = torch.zeros_like(t)
    for onset, offset, pitch in notes:
        envelope = ((t - onset) / 0.01).clamp(0, 1) * ((offset - t) / 0.02).clamp(0, 1)
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        wav += (
            sum(
                torch.sin(2 * math.pi * frequency * h * t) / h**1.5 for h in range(1, harmonics + 1)
            )
            * envelope
        )
    return 0.3 * wav


def moved(seconds: float = 0.0, semitones: float = 0.0) -> np.ndarray:
    return NOTES + np.array([seconds, seconds, semitones])


CASES = {
    "itself": play(NOTES),
    "octave": play(moved(semitones=12)),
    "transposed": play(moved(semitones=1)),
    "delayed": play(moved(0.2)),
    "noise": 0.1 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0)),
    "silence": torch.zeros(4 * RATE),
    "tone": play(np.array([[0.0, 4.0, 60.0]]), 1),
    "target": play(NOTES, 12),
}


@pytest.fixture(scope="module")
def scored() -> dict[str, dict[str, float]]:
    """Each case as an output for the tune as input, against its known notes."""
    listen = PitchAnalyser(RATE)
    wavs = list(CASES.values())
    heard = listen(wavs, list(CASES))
    rows = melody_scores([heard[0]] * len(wavs), heard, [NOTES] * len(wavs))
    return dict(zip(CASES, rows, strict=True))


def test_the_input_itself_and_the_targets_own_recording(scored):
    for name in ("itself", "target"):
        row = scored[name]
        assert set(row) == set(MELODY)
        assert row["dpd"] < 0.01 and row["jd"] == 0 and row["rpa"] > 0.97 and row["rca"] > 0.97
        assert row["note_f1"] > 0.85
    assert scored["itself"]["dpd_paper"] == 0 and scored["itself"]["jd_paper"] == 0


def test_another_octave_keeps_chroma_only(scored):
    row = scored["octave"]
    assert row["dpd"] < 0.01 and row["rca"] > 0.97
    assert row["rpa"] < 0.05 and row["note_f1"] < 0.1


def test_a_transposed_copy_is_wrong_everywhere(scored):
    row = scored["transposed"]
    assert row["dpd"] > 0.9 and row["rpa"] < 0.05 and row["rca"] < 0.05 and row["note_f1"] < 0.1


def test_a_delayed_copy_is_the_same_melody_with_late_notes(scored):
    row = scored["delayed"]
    assert row["dpd"] < 0.01  # time may warp
    assert 0.4 < row["rca"] < 0.75 and row["note_f1"] < 0.1


def test_noise_silence_and_a_tone_are_no_melody(scored):
    assert scored["noise"]["voiced"] < 0.5 and scored["noise"]["note_f1"] < 0.1
    assert scored["silence"]["voiced"] == 0 and math.isnan(scored["silence"]["dpd"])
    assert (
        scored["silence"]["jd"] == 1
        and scored["silence"]["note_f1"] == scored["silence"]["rca"] == 0
    )
    assert scored["tone"]["dpd"] > 1 and scored["tone"]["jd"] > 0.8
    assert 0.05 < scored["tone"]["rca"] < 0.3  # one note in eight


def test_where_no_notes_are_known_the_input_is_the_reference():
    listen = PitchAnalyser(RATE)
    heard = listen([CASES["itself"], CASES["target"], CASES["transposed"]], ["a", "b", "c"])
    rows = melody_scores([heard[0]] * 2, heard[1:], [heard[0]] * 2)
    assert rows[0]["rca"] > 0.95 and rows[0]["note_recall"] > 0.85
    assert rows[1]["rca"] < 0.05


def test_the_listener_remembers():
    listen = PitchAnalyser(RATE)
    first = listen([CASES["itself"]], ["a"])
    assert listen([CASES["noise"], CASES["itself"]], ["b", "a"])[1] is first[0]


def test_pitch_accuracy_counts_the_references_voiced_frames():
    times = np.arange(0, 4, 0.01)
    reference = f0_of_notes(NOTES, times)
    assert pitch_accuracy(reference, reference) == (1.0, 1.0)
    half = f0_of_notes(np.concatenate([NOTES[:4], moved(semitones=-12)[4:]]), times)
    rpa, rca = pitch_accuracy(reference, half)
    # One frame of some hundred at the edge.
    assert rpa == pytest.approx(0.5, abs=0.01) and rca == 1
    empty = f0_of_notes(np.empty((0, 3)), times)
    assert all(math.isnan(value) for value in pitch_accuracy(empty, reference))
    assert pitch_accuracy(reference, empty)[0] == 0


def test_note_scores_have_their_limits():
    assert note_scores(NOTES, NOTES) == (1, 1, 1)
    assert note_scores(NOTES, moved(0.04)) == (1, 1, 1)
    assert note_scores(NOTES, moved(0.06))[2] == 0
    assert note_scores(NOTES, NOTES[:4])[:2] == (1, 0.5)
    assert note_scores(NOTES, np.empty((0, 3))) == (0, 0, 0)
    assert all(math.isnan(value) for value in note_scores(np.empty((0, 3)), NOTES))


def test_cut_notes_start_at_the_excerpt():
    cut = cut_notes(NOTES, 0.25, 1.03)
    assert np.allclose(
        cut, [[0, 0.23, 60], [0.25, 0.73, 64]]
    )  # what remains of the third is too short


def test_notes_are_decoded_from_posteriors():
    onset, note = torch.zeros(200, 88), torch.zeros(200, 88)
    onset[20, 40], note[20:60, 40] = 0.9, 0.8
    onset[60, 42], note[60:100, 42] = 0.9, 0.8
    onset[60, 54], note[60:100, 54] = 0.9, 0.4  # an octave above, weaker
    onset[150, 30], note[150:155, 30] = 0.9, 0.9  # too short
    times = frame_seconds(200)
    assert decode_notes(onset, note) == pytest.approx(
        # Frames are 12 ms apart.
        np.array([[times[20], times[60], 61], [times[60], times[100], 63]]),
        abs=0.02,
    )
    assert decode_notes(torch.zeros(50, 88), torch.zeros(50, 88)).shape == (0, 3)


def test_frame_times_follow_the_windows():
    times = frame_seconds(400)
    assert (
        times[0] == 0
        and times[1] == pytest.approx(256 / 22050)
        and times[142] == pytest.approx(36164 / 22050)
    )


class Ear:
    """Takes loud clips for a violin, silence for nothing."""

    instruments = ("flute", "violin", "double_bass")

    def probabilities(self, wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
        loud = wav.abs().amax(1) > 0
        return torch.where(
            loud[:, None], torch.tensor([[0.1, 0.8, 0.1]]), torch.full((1, 3), 1 / 3)
        )


def test_timbre_is_what_the_classifier_hears():
    wavs = torch.stack([CASES["itself"], CASES["itself"], CASES["silence"], CASES["itself"]])
    rows = timbre_scores(Ear(), wavs, RATE, ["violin", "double bass", "flute", "kazoo"])
    assert [row["taken_for"] for row in rows] == ["violin", "violin", None, "violin"]
    assert [row["taken"] for row in rows[:3]] == [1, 0, 0] and math.isnan(rows[3]["taken"])
    assert rows[1]["target_probability"] == pytest.approx(0.1)
    assert math.isnan(timbre_scores(None, wavs[:1], RATE, ["violin"])[0]["taken"])


def test_distance_to_the_truth():
    found = distance_to_truth([CASES["itself"]] * 3, [CASES["itself"], CASES["target"], None], RATE)
    assert found[0] == 0 and found[1] > 0.05 and math.isnan(found[2])


def test_gaussian_noise_is_told_from_other():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(16, 4000, generator=generator) * math.hypot(4, 1)
    found = noise_scores(white, 4.0, 1.0)
    # Of 64,000 normal numbers: at least four standard errors.
    assert found["noise_spread"] == pytest.approx(1, abs=0.02)
    assert found["noise_channel_correlation"] < 0.03 and abs(found["noise_time_correlation"]) < 0.02
    same = noise_scores(white[:1].expand(16, -1), 4.0, 1.0)
    assert same["noise_channel_correlation"] == pytest.approx(1)
    smooth = noise_scores((white[:, 1:] + white[:, :-1]) / 2, 4.0, 1.0)
    # Of 64,000 normal numbers: at least four standard errors.
    assert smooth["noise_time_correlation"] == pytest.approx(0.5, abs=0.03)
    assert smooth["noise_spread"] == pytest.approx(math.sqrt(0.5), abs=0.02)
