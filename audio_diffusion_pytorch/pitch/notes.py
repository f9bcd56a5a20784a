"""Notes: those that a data set knows, those that the pitch tracker hears, and how well two lists of them agree.

A list of notes is [N, 3] float64: onset and offset in seconds, MIDI pitch; sorted by onset.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from audio_diffusion_pytorch.pitch.tracker import VOICED, frame_seconds

LOWEST = 21  # MIDI pitch of the tracker's first note, A0
ONSET = 0.5  # what an onset's posterior must reach; this and the next two are the official decoder's settings
SHORTEST = 11  # frames of the shortest note: 128 ms
GAP = 11  # frames below VOICED that end a note


def midi_to_hz(pitch: np.ndarray | float) -> np.ndarray | float:
    """Convert MIDI pitch to Hz, A4 = 69 = 440 Hz. `mir_eval` has it, but takes a second to import."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


@dataclass(frozen=True)
class F0Track:
    """times [F] in seconds, hertz [F] (positive), voiced [F] bool."""

    times: np.ndarray
    hertz: np.ndarray
    voiced: np.ndarray


def f0_track(note: Tensor) -> F0Track:
    """Note posteriors [F, 88] -> the strongest note of every frame, in semitone steps.

    Semitone steps suit references that are notes: vibrato and tuning within half a semitone are no error.
    """
    strength, key = note.max(dim=-1)
    return F0Track(
        frame_seconds(len(note)),
        midi_to_hz(key.cpu().numpy() + LOWEST),
        (strength >= VOICED).cpu().numpy(),
    )


def f0_of_notes(notes: np.ndarray, times: np.ndarray) -> F0Track:
    """Known notes at given times; where two overlap the later one counts."""
    hertz, voiced = np.ones(len(times)), np.zeros(len(times), bool)
    for onset, offset, pitch in notes:
        inside = (times >= onset) & (times < offset)
        hertz[inside], voiced[inside] = midi_to_hz(pitch), True
    return F0Track(times, hertz, voiced)


def cut_notes(notes: np.ndarray, start: float, end: float) -> np.ndarray:
    """What of the notes sounds between `start` and `end` seconds, at least 50 ms of it; times from `start` on."""
    onset, offset = notes[:, 0].clip(start, end), notes[:, 1].clip(start, end)
    cut = np.stack([onset - start, offset - start, notes[:, 2]], 1)
    return cut[cut[:, 1] - cut[:, 0] >= 0.05]


def decode_notes(onset: Tensor, note: Tensor) -> np.ndarray:
    """Onset and note posteriors [F, 88] -> the melody's notes as heard.

    As Bittner et al. 2022, section 3.3: a note begins at a peak of the onset posteriors and ends when the note
    posteriors have stayed below a threshold for a while, from the last onset back, and each frame of a key belongs to
    one note. Of these, only notes whose key is the strongest in half of their frames are a melody's: the others are
    octaves and twelfths of it.
    """
    onsets, left = onset.cpu().numpy(), note.cpu().numpy().copy()
    strongest, times, found = left.argmax(1), frame_seconds(len(left)), []
    padded = np.pad(onsets, ((1, 1), (0, 0)))
    peaks = (onsets >= ONSET) & (onsets > padded[:-2]) & (onsets > padded[2:])
    for start, key in np.argwhere(peaks)[::-1]:
        end = _end_of_note(left[:, key], start)
        if end - start > SHORTEST:
            left[start:end, max(0, key - 1) : key + 2] = (
                0  # the neighbours' share of the same note, too
            )
            if (strongest[start:end] == key).mean() >= 0.5:
                found.append((times[start], times[end], key + LOWEST))
    return np.array(sorted(found), float).reshape(-1, 3)


def _end_of_note(strength: np.ndarray, start: int) -> int:
    """First frame after which the key stays below VOICED for GAP frames."""
    frame, quiet = start + 1, 0
    while frame < len(strength) - 1 and quiet < GAP:
        quiet = quiet + 1 if strength[frame] < VOICED else 0
        frame += 1
    return frame - quiet
