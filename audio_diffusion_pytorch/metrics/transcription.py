"""Pitch accuracy and note scores."""

import math

import numpy as np
from mir_eval import melody, transcription
from mir_eval.util import midi_to_hz

from audio_diffusion_pytorch.pitch.notes import F0Track

ONSET_TOLERANCE = 0.05  # seconds


def pitch_accuracy(reference: F0Track, estimate: F0Track) -> tuple[float, float]:
    """Raw pitch and raw chroma accuracy (mir_eval.melody, within 50 cents) over the reference's voiced frames.

    The estimate's pitch counts where it is unvoiced, too, but 0 where it is never voiced, as in silence. NaN where the
    reference is never voiced.

    Args:
        reference, estimate: at the same times.
    """
    if not reference.voiced.any():
        return math.nan, math.nan
    if not estimate.voiced.any():
        return 0.0, 0.0
    cents = [melody.hz2cents(track.hertz) for track in (reference, estimate)]
    given = reference.voiced.astype(float), cents[0], estimate.voiced.astype(float), cents[1]
    return float(melody.raw_pitch_accuracy(*given)), float(melody.raw_chroma_accuracy(*given))


def note_scores(reference: np.ndarray, estimate: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of notes: onset within 50 ms, pitch within 50 cents, offsets free (mir_eval).

    NaN where the reference has no note; 0 where only the estimate has none.
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
    scores = transcription.precision_recall_f1_overlap(
        *given, onset_tolerance=ONSET_TOLERANCE, offset_ratio=None
    )
    precision, recall, f1 = map(float, scores[:3])
    return precision, recall, f1
