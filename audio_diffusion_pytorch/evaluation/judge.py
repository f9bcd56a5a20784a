"""Judge transfers by the pitch tracker CREPE: `tracker=crepe`.

CREPE judges and nothing else: it never trains, conditions or chooses a model of this project.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.evaluation.extensions import TRACKERS, analysis_of_pitches
from audio_diffusion_pytorch.evaluation.scores import PitchAnalysis
from audio_diffusion_pytorch.metrics.harmonicity import harmonics_to_noise
from audio_diffusion_pytorch.metrics.onsets import delay_scores, onset_delays
from audio_diffusion_pytorch.metrics.pitch_tracks import frame_accuracy, note_starts, vibrato_kept
from audio_diffusion_pytorch.pitch.crepe import HOP, RATE, track_crepe

VERSION = 1  # raise it when a score of the same sound changes
CREPE = "crepe"
# Columns of the judge's table: score, heading.
COLUMNS = {
    "raw_pitch": "raw pitch",
    "raw_chroma": "raw chroma",
    "voicing_recall": "voiced",
    "voicing_false_alarm": "wrongly voiced",
    "vibrato_extent": "vibrato extent",
    "vibrato_rate": "vibrato rate",
    "onset_median": "onset delay, ms",
    "onset_p95": "p95",
    "hnr": "HNR, dB",
    "hnr_low": "below C4",
    "hnr_mid": "C4 to C5",
    "hnr_high": "C5 to C6",
    "hnr_top": "above C6",
}


@TRACKERS.register(CREPE)
def analyse_crepe(wavs: Tensor, sample_rate: int) -> list[PitchAnalysis]:
    """Track the pitches of clips [B, T] with CREPE.

    Raises:
        InputError: torchcrepe is not installed.
    """
    analyses = []
    for track in track_crepe(wavs, sample_rate):
        midi = torch.from_numpy(69 + 12 * np.log2(track.hertz / 440.0))
        midi[~torch.from_numpy(track.voiced)] = torch.nan
        analyses.append(analysis_of_pitches(midi, RATE / HOP))
    return analyses


def judge_scores(
    sounds: Sequence[tuple[Tensor, Tensor]],
    inputs: Sequence[PitchAnalysis],
    outputs: Sequence[PitchAnalysis],
    sample_rate: int,
) -> list[dict[str, float]]:
    """Score outputs against the pitches of their inputs, both in the output's register.

    The inputs are tracked in their own register, and the tracks are moved: CREPE finds wrong
    pitches in a sound that was moved by octaves.

    Args:
        sounds: recording, if possible through the codec alone, and output, of each clip, both [T].
        inputs: pitches of the inputs, see `PitchAnalysis.moved`.
        outputs: pitches of the outputs.
        sample_rate: rate of the sounds in Hz.

    Returns:
        The scores of each clip, with the names in `COLUMNS`. Onset delays are relative to the
        first sound.
    """
    rows = []
    for (coded, output), before, after in zip(sounds, inputs, outputs, strict=True):
        onsets = note_starts(before.f0).tolist()
        rows.append(
            {
                **frame_accuracy(before.f0, after.f0),
                **vibrato_kept(before.f0, after.f0),
                **delay_scores(onset_delays(coded, output, sample_rate, onsets)),
                **harmonics_to_noise(output, sample_rate, after.f0),
            }
        )
    return rows
