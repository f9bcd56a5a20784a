"""Decode notes from pitch posteriors, cut notes, and convert them to tracks of frequency.

A list of notes is [N, 3] float64: onset and offset in seconds, MIDI pitch; sorted by onset.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from audio_diffusion_pytorch.pitch.tracker import VOICED, frame_seconds

LOWEST = 21  # MIDI pitch of the tracker's first note, A0
# Settings of the official decoder.
ONSET = 0.5  # lowest onset posterior of a note
SHORTEST = 11  # frames that a note must exceed: 128 ms
GAP = 11  # frames below VOICED that end a note


def midi_to_hz(pitch: np.ndarray | float) -> np.ndarray | float:
    """Convert MIDI pitch to Hz, A4 = 69 = 440 Hz; the import of `mir_eval` takes a second."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


@dataclass(frozen=True)
class F0Track:
    """Track of the fundamental frequency.

    Attributes:
        times: times of the frames in seconds [F].
        hertz: frequencies in Hz [F], positive.
        voiced: whether each frame has a pitch, bool [F].
    """

    times: np.ndarray
    hertz: np.ndarray
    voiced: np.ndarray


def f0_track(note: Tensor) -> F0Track:
    """Select the strongest note of each frame of note posteriors [F, 88].

    Frequencies are quantised to semitones to match references of notes: vibrato and tuning within
    half a semitone do not count as errors.
    """
    strength, key = note.max(dim=-1)
    return F0Track(
        frame_seconds(len(note)),
        midi_to_hz(key.cpu().numpy() + LOWEST),
        (strength >= VOICED).cpu().numpy(),
    )


def f0_of_notes(notes: np.ndarray, times: np.ndarray) -> F0Track:
    """Sample notes [N, 3] at `times` [F] in seconds; of overlapping notes the later one counts."""
    hertz = np.ones(len(times))
    voiced = np.zeros(len(times), bool)
    for onset, offset, pitch in notes:
        inside = (times >= onset) & (times < offset)
        hertz[inside] = midi_to_hz(pitch)
        voiced[inside] = True
    return F0Track(times, hertz, voiced)


def cut_notes(notes: np.ndarray, start: float, end: float) -> np.ndarray:
    """Cut notes [N, 3] to the section from `start` to `end` seconds, and drop remains below 50 ms.

    Returns:
        Notes [M, 3] with times relative to `start`.
    """
    onset = notes[:, 0].clip(start, end)
    offset = notes[:, 1].clip(start, end)
    cut = np.stack([onset - start, offset - start, notes[:, 2]], 1)
    return cut[cut[:, 1] - cut[:, 0] >= 0.05]


def decode_notes(onset: Tensor, note: Tensor) -> np.ndarray:
    """Decode the notes of a melody (Bittner et al. 2022, section 3.3).

    A note starts at a peak of the onset posteriors, and ends once the note posteriors stay below a
    threshold for several frames. Decoding proceeds from the last onset to the first; each frame of
    a key belongs to one note. A note belongs to the melody if its key is the strongest in half of
    its frames; other notes are octaves and twelfths.

    Args:
        onset: onset posteriors [F, 88].
        note: note posteriors [F, 88].

    Returns:
        Notes [N, 3].
    """
    onsets = onset.cpu().numpy()
    left = note.cpu().numpy().copy()
    strongest = left.argmax(1)
    times = frame_seconds(len(left))
    found = []
    padded = np.pad(onsets, ((1, 1), (0, 0)))
    peaks = (onsets >= ONSET) & (onsets > padded[:-2]) & (onsets > padded[2:])
    for start, key in np.argwhere(peaks)[::-1]:
        end = _end_of_note(left[:, key], start)
        if end - start > SHORTEST:
            # Clear the neighbouring keys, too: they respond to the same note.
            left[start:end, max(0, key - 1) : key + 2] = 0
            if (strongest[start:end] == key).mean() >= 0.5:
                found.append((times[start], times[end], key + LOWEST))
    return np.array(sorted(found), float).reshape(-1, 3)


def _end_of_note(strength: np.ndarray, start: int) -> int:
    """Return the first frame from which the key stays below VOICED for GAP frames."""
    frame = start + 1
    quiet = 0
    while frame < len(strength) - 1 and quiet < GAP:
        quiet = quiet + 1 if strength[frame] < VOICED else 0
        frame += 1
    return frame - quiet
