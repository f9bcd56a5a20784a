"""The Bach chorales of the music21 corpus as lists of notes."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import Any

LONGEST_REST = 4.0  # quarter notes; longer rests are shortened
_FEWEST_NOTES = 16  # of a part
_FEWEST_PITCHES = 5  # of a part
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def read_piece(path: str) -> dict[str, Any]:
    """Read the monophonic parts of a score.

    Parts with chords or two voices, parts with few notes or pitches (timpani), and doublings of an
    earlier part are excluded. Tied notes are merged.

    Args:
        path: a score that music21 can read.

    Returns:
        {"parts": {"p1": {"name", "notes"}}, "melody": [interval, ...]}; a note is [onset in quarter
        notes, length in quarter notes, MIDI pitch, 1 under a fermata or 0].
    """
    from music21 import converter

    score = converter.parse(path, forceSource=True, storePickle=False)
    fermatas: set[float] = set()
    lines = []
    for part in score.parts:
        notes = _monophonic_notes(part, fermatas)
        if (
            notes
            and len(notes) >= _FEWEST_NOTES
            and len({note[2] for note in notes}) >= _FEWEST_PITCHES
        ):
            lines.append((" ".join(str(part.partName or "part").split()), notes))

    parts: dict[str, Any] = {}
    written: list[list[list[float]]] = []
    for name, notes in lines:
        if notes not in written:
            written.append(notes)
            parts[f"p{len(parts) + 1}"] = {
                "name": name,
                "notes": without_long_rests(notes, fermatas),
            }
    all_notes = [part["notes"] for part in parts.values()]
    sopranos = [part["notes"] for part in parts.values() if part["name"].startswith("Soprano")]
    tune: list[list[float]] = next(iter([*sopranos, *all_notes]), [])
    return {"parts": parts, "melody": opening(tune)}


def _monophonic_notes(part: Any, fermatas: set[float]) -> list[list[float]] | None:
    """Read the notes [onset, length, pitch] of a part, and its fermatas; None: polyphonic."""
    notes: list[list[float]] = []
    monophonic = True
    for note in part.flatten().notes:
        onset = float(note.offset)
        length = float(note.quarterLength)
        if note.duration.isGrace:
            continue
        end = sum(notes[-1][:2]) if notes else -math.inf
        monophonic = monophonic and note.isNote and onset > end - 1e-3
        if any("Fermata" in mark.classes for mark in note.expressions):
            fermatas.add(round(onset + length, 3))
        if not monophonic:
            continue
        is_tied = note.tie is not None and note.tie.type in ("stop", "continue")
        if is_tied and notes and notes[-1][2] == note.pitch.midi and abs(end - onset) < 1e-3:
            notes[-1][1] += length
        else:
            notes.append([onset, length, note.pitch.midi])
    return notes if monophonic else None


def opening(notes: list[list[float]]) -> list[int]:
    """Return the first intervals of a tune from beat to beat, without its key and ornaments."""
    beats = [
        pitch
        for onset, length, pitch, _ in notes
        for _ in range(math.ceil(onset), math.ceil(onset + length))
    ]
    moves = [int(after - before) for before, after in pairwise(beats) if after != before]
    return moves[:6]


def without_long_rests(notes: list[list[float]], fermatas: set[float]) -> list[list[float]]:
    """Shorten rests to LONGEST_REST, move the first onset to 0, and mark notes under fermatas.

    A note is marked if it sounds at the end of a fermata.

    Args:
        notes: notes [onset, length, pitch].
        fermatas: ends of the fermatas.

    Returns:
        Notes [onset, length, pitch, 1 under a fermata or 0].
    """
    out = []
    end = shift = notes[0][0]
    for onset, length, pitch in notes:
        shift += max(0.0, onset - end - LONGEST_REST)
        end = onset + length
        held = any(onset < fermata <= end + 1e-3 for fermata in fermatas)
        out.append([round(onset - shift, 4), round(length, 4), pitch, int(held)])
    return out


def digest(*key: Any) -> int:
    """Hash a key to a 64-bit number, the same in each process and version of Python."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


def split_of(seed: int, melody: list[int]) -> str:
    """Return the split of all pieces with this melody: chorales on one tune share a split."""
    position = digest(seed, "split", melody) / 2**64
    for name, share in SPLITS.items():
        if position < share:
            return name
        position -= share
    return name
