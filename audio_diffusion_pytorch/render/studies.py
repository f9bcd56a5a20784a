"""Studies over the whole range of an instrument: scales, arpeggios, leaps, runs and long notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),  # major
    (0, 2, 3, 5, 7, 8, 11),  # harmonic minor
    (0, 4, 7),  # major triad
    (0, 3, 7),  # minor triad
    (0, 3, 6, 9),  # diminished chord
    tuple(range(12)),  # chromatic
)
_LENGTHS = (0.25, 0.25, 0.5, 0.5, 0.5, 1.0, 2.0)  # quarter notes
_NOTES = 80  # of a study, about


def study(low: int, high: int, rng: np.random.Generator) -> list[list[float]]:
    """Compose a study.

    Args:
        low: lowest MIDI pitch.
        high: highest MIDI pitch.
        rng: source of randomness.

    Returns:
        Notes [onset in quarter notes, length in quarter notes, MIDI pitch, 1 under a fermata or 0].
    """
    notes: list[list[float]] = []
    onset = 0.0
    while len(notes) < _NOTES:
        length = float(rng.choice(_LENGTHS))
        figure = _figure(low, high, rng)
        for pitch in figure:
            notes.append([onset, length, pitch, 0])
            onset += length
        notes[-1][1] += 1.0
        notes[-1][3] = int(rng.random() < 0.5)
        onset += 1.0
        if rng.random() < 0.3:  # a rest
            onset += float(rng.choice((0.5, 1.0)))
    return notes


def _figure(low: int, high: int, rng: np.random.Generator) -> list[int]:
    """Draw a run over a scale, or a line of leaps, within the range."""
    import numpy as np

    root = int(rng.integers(12))
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    steps = np.array([p for p in range(low, high + 1) if (p - root) % 12 in scale])
    count = int(rng.integers(4, 14))
    place = int(rng.integers(len(steps)))
    if rng.random() < 0.6:  # a run that turns round at the ends of the range
        moves = np.full(count, int(rng.choice((-1, 1))))
        if rng.random() < 0.4:
            moves[count // 2 :] *= -1
    else:
        moves = rng.integers(-5, 6, count)
    walk = place + np.concatenate([[0], np.cumsum(moves)[:-1]])
    last = len(steps) - 1
    folded = last - np.abs(last - walk % max(2 * last, 1))
    return [int(pitch) for pitch in steps[folded]]
