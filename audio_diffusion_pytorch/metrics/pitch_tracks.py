"""Compare two pitch tracks frame by frame: pitch, chroma, voicing and vibrato."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.signal import detrend

from audio_diffusion_pytorch.pitch.notes import F0Track

TOLERANCE = 50.0  # cents
SHORTEST_NOTE = 0.4  # seconds, of a note whose vibrato is measured
WIDEST_VIBRATO = 120.0  # cents from the middle of a note
SLOWEST, FASTEST = 4.0, 9.0  # Hz, of a vibrato
SMALLEST_EXTENT = 10.0  # cents, of a vibrato
LEAST_VOICED = 0.8  # share of a note's frames in which the output has a pitch
SHARE = 0.5  # of the pitch's movement that the vibrato explains


def frame_accuracy(reference: F0Track, output: F0Track) -> dict[str, float]:
    """Compute raw pitch and chroma accuracy over the voiced frames of the reference.

    An unvoiced frame of the output is wrong there. A pitch is right within 50 cents; chroma ignores
    octaves (Poliner et al. 2007, raw pitch and raw chroma accuracy).

    Args:
        reference: track of the input, in the output's register.
        output: track of the output, with the same distance between frames.

    Returns:
        raw_pitch, raw_chroma: shares of the reference's voiced frames; NaN without any.
        voicing_recall: share of these frames that are voiced in the output.
        voicing_false_alarm: share of the other frames that are voiced in the output.
    """
    frames = min(len(reference.voiced), len(output.voiced))
    counted = reference.voiced[:frames]
    voiced = output.voiced[:frames]
    cents = 1200 * np.log2(output.hertz[:frames] / reference.hertz[:frames])
    folded = fold_octaves(cents)
    return {
        "raw_pitch": _share(voiced & (np.abs(cents) <= TOLERANCE), counted),
        "raw_chroma": _share(voiced & (np.abs(folded) <= TOLERANCE), counted),
        "voicing_recall": _share(voiced, counted),
        "voicing_false_alarm": _share(voiced, ~counted),
    }


def fold_octaves(cents: np.ndarray) -> np.ndarray:
    """Return distances in cents to the nearest octave, from -600 to 600.

    Args:
        cents: distances of pitches.
    """
    return cents - 1200 * np.round(cents / 1200)


@dataclass(frozen=True)
class Vibrato:
    """Periodic movement of a note's pitch.

    Attributes:
        rate: Hz.
        extent: cents from the middle to the peak.
    """

    rate: float
    extent: float


def vibrato_kept(reference: F0Track, output: F0Track) -> dict[str, float]:
    """Compare the vibrato of the reference's notes with the same sections of the output.

    Args:
        reference: track of the input.
        output: track of the output, with the same distance between frames.

    Returns:
        vibrato_extent, vibrato_rate: median over the notes with vibrato of the output's value,
            divided by the reference's; NaN without such notes. An output without vibrato, or
            without pitch in more than a fifth of the frames, counts with an extent of 0 and no
            rate.
    """
    step = float(reference.times[1] - reference.times[0]) if len(reference.times) > 1 else 1.0
    extents = []
    rates = []
    for note in _notes(reference, step):
        given = fit_vibrato(_cents(reference, note), step)
        if given is None:
            continue
        kept = None
        voiced = output.voiced[note]
        if note.stop <= len(output.voiced) and voiced.mean() >= LEAST_VOICED:
            frames = np.arange(len(voiced))
            cents = np.interp(frames, frames[voiced], _cents(output, note)[voiced])
            kept = fit_vibrato(cents, step, smallest=0.0)
        extents.append(0.0 if kept is None else kept.extent / given.extent)
        if kept is not None:
            rates.append(kept.rate / given.rate)
    return {
        "vibrato_extent": float(np.median(extents)) if extents else math.nan,
        "vibrato_rate": float(np.median(rates)) if rates else math.nan,
    }


def note_starts(track: F0Track, shortest: float = 0.1) -> np.ndarray:
    """Return the times in seconds [N] at which voiced sections or new semitones begin.

    Args:
        track: pitch track.
        shortest: duration in seconds below which a section is not a note.
    """
    keys = np.where(track.voiced, np.round(12 * np.log2(track.hertz / 440.0)), np.nan)
    both_unvoiced = np.isnan(keys[1:]) & np.isnan(keys[:-1])
    edges = np.flatnonzero((keys[1:] != keys[:-1]) & ~both_unvoiced)
    borders = [0, *(edges + 1).tolist(), len(keys)]
    return np.array(
        [
            track.times[begin]
            for begin, end in pairwise(borders)
            if not math.isnan(keys[begin]) and track.times[end - 1] - track.times[begin] >= shortest
        ]
    )


def _share(right: np.ndarray, counted: np.ndarray) -> float:
    return float(right[counted].mean()) if counted.any() else math.nan


def _notes(track: F0Track, step: float) -> Iterator[slice]:
    """Yield sections of voiced frames whose pitch stays near the pitch at their beginning."""
    begin = 0
    for frame in range(len(track.voiced) + 1):
        inside = frame < len(track.voiced) and track.voiced[frame]
        if inside and frame > begin:
            middle = np.median(track.hertz[begin:frame][:20])
            inside = abs(1200 * math.log2(track.hertz[frame] / middle)) <= WIDEST_VIBRATO
        if not inside:
            if (frame - begin) * step >= SHORTEST_NOTE and track.voiced[begin]:
                yield slice(begin, frame)
            stays = frame < len(track.voiced) and track.voiced[frame]
            begin = frame if stays else frame + 1


def _cents(track: F0Track, note: slice) -> np.ndarray:
    """Pitch of a note's frames relative to its median, octave errors folded."""
    cents = 1200 * np.log2(track.hertz[note] / np.median(track.hertz[note]))
    return fold_octaves(cents)


def fit_vibrato(
    cents: np.ndarray, step: float, smallest: float = SMALLEST_EXTENT
) -> Vibrato | None:
    """Fit a sinusoid to the pitch of a note.

    Args:
        cents: pitch of the note's frames [F].
        step: seconds between frames.
        smallest: extent in cents of the smallest vibrato.

    Returns:
        The vibrato; None unless it explains half of the movement.
    """
    movement = detrend(cents)
    times = np.arange(len(movement)) * step
    rates = np.arange(SLOWEST, FASTEST, 0.05)
    waves = np.exp(-2j * np.pi * rates[:, None] * times)
    found = np.abs(waves @ movement) * 2 / len(movement)
    best = int(found.argmax())
    explained = found[best] ** 2 / 2 / max(movement.var(), 1e-9)
    if found[best] < smallest or explained < SHARE:
        return None
    return Vibrato(float(rates[best]), float(found[best]))
