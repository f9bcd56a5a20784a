"""`tracker=crepe` adds the judge's scores to every clip."""

import numpy as np
import pytest
import torch

from audio_diffusion_pytorch.evaluation import judge
from audio_diffusion_pytorch.evaluation.scores import PitchAnalysis
from audio_diffusion_pytorch.pitch.notes import F0Track

RATE = 24000


@pytest.fixture
def steady(monkeypatch):
    """CREPE's place is taken by a tracker that finds 440 Hz in every frame with sound."""

    def track(wavs: torch.Tensor, sample_rate: int) -> list[F0Track]:
        tracks = []
        for wav in wavs:
            sounds = wav.unfold(0, 240, 240).square().mean(1).numpy() > 1e-6
            times = np.arange(len(sounds)) * 0.01
            tracks.append(F0Track(times, np.full(len(sounds), 440.0), sounds))
        return tracks

    monkeypatch.setattr(judge, "track_crepe", track)


def sound(start: float) -> torch.Tensor:
    time = torch.arange(2 * RATE) / RATE
    return 0.3 * torch.sin(2 * torch.pi * 440 * time) * (time >= start)


def analyse(wav: torch.Tensor) -> PitchAnalysis:
    return judge.analyse_crepe(wav[None], RATE)[0]


def test_a_late_output_loses_frames_and_has_a_delay(steady):
    given, late = sound(0.5), sound(0.54)
    rows = judge.judge_scores(
        [(given, given), (given, late)],
        [analyse(given)] * 2,
        [analyse(given), analyse(late)],
        RATE,
    )
    assert all(set(row) == set(judge.COLUMNS) for row in rows)
    assert rows[0]["raw_chroma"] == 1 and rows[0]["onset_median"] == 0
    assert rows[1]["raw_chroma"] == pytest.approx(146 / 150, abs=0.01)
    assert rows[1]["onset_median"] == pytest.approx(40, abs=2.1)


def test_a_moved_input_keeps_its_track_in_another_register(steady):
    given = analyse(sound(0.5))
    moved = given.moved(-2)
    assert moved.f0.hertz == pytest.approx(110)
    assert (moved.f0.voiced == given.f0.voiced).all()
    assert moved.notes[:, 2] == pytest.approx(given.notes[:, 2] - 24)
    assert (moved.notes[:, :2] == given.notes[:, :2]).all()
    (row,) = judge.judge_scores([(sound(0.5), sound(0.5))], [moved], [given], RATE)
    assert row["raw_chroma"] == 1 and row["raw_pitch"] == 0
