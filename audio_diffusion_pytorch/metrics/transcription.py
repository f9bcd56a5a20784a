"""Pitch accuracy and note scores of mir_eval (Raffel et al. 2014)."""

import math

import numpy as np
from mir_eval import melody, transcription
from mir_eval.util import midi_to_hz

from audio_diffusion_pytorch.pitch.notes import F0Track

ONSET_TOLERANCE = 0.05  # seconds


def pitch_accuracy(reference: F0Track, estimate: F0Track) -> tuple[float, float]:
    """Compute raw pitch and raw chroma accuracy within 50 cents over the reference's voiced frames.

    The pitch of an unvoiced frame of the estimate counts, too.

    Args:
        reference: pitch track of the reference.
        estimate: pitch track at the same times.

    Returns:
        Both accuracies; 0 for an estimate without a voiced frame, NaN for a reference without a
        voiced frame.
    """
    if not reference.voiced.any():
        return math.nan, math.nan
    if not estimate.voiced.any():
        return 0.0, 0.0
    cents = [melody.hz2cents(track.hertz) for track in (reference, estimate)]
    given = reference.voiced.astype(float), cents[0], estimate.voiced.astype(float), cents[1]
    return float(melody.raw_pitch_accuracy(*given)), float(melody.raw_chroma_accuracy(*given))


def note_scores(reference: np.ndarray, estimate: np.ndarray) -> tuple[float, float, float]:
    """Compute precision, recall and F1 of notes: onset within 50 ms, pitch within 50 cents.

    Args:
        reference: onset, offset (seconds) and MIDI pitch of each note [N, 3].
        estimate: notes [M, 3].

    Returns:
        The three scores; 0 for an estimate without notes, NaN for a reference without notes.
    """
    if len(reference) == 0:
        return math.nan, math.nan, math.nan
    if len(estimate) == 0:
        return 0.0, 0.0, 0.0
    given = (
        reference[:, :2],
        midi_to_hz(reference[:, 2]),
        estimate[:, :2],
        midi_to_hz(estimate[:, 2]),
    )
    precision, recall, f1, _ = transcription.precision_recall_f1_overlap(
        *given, onset_tolerance=ONSET_TOLERANCE, offset_ratio=None
    )
    return float(precision), float(recall), float(f1)
