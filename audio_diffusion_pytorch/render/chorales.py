"""The Bach chorales of the music21 corpus as plain lists, for render_dataset.py."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import Any

LONGEST_REST = 4.0  # quarter notes: longer rests are cut to this
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def read_piece(path: str) -> dict[str, Any]:
    """The monophonic parts of a score: {"parts": {"p1": {"name", "notes"}}, "melody": [interval, ...]}.

    A note is [onset, length (both in quarter notes), MIDI pitch, 1 under a fermata else 0]; ties are merged. Parts with
    chords or two voices, with few notes or pitches (timpani) and doublings of an earlier part are left out.
    """
    from music21 import converter

    score, fermatas, lines = converter.parse(path, forceSource=True, storePickle=False), set(), []
    for part in score.parts:
        notes, monophonic = [], True
        for note in part.flatten().notes:
            onset, length = float(note.offset), float(note.quarterLength)
            if note.duration.isGrace:
                continue
            monophonic = (
                monophonic and note.isNote and (not notes or onset > sum(notes[-1][:2]) - 1e-3)
            )
            if any("Fermata" in mark.classes for mark in note.expressions):
                fermatas.add(round(onset + length, 3))
            if not monophonic:
                continue
            tied = note.tie is not None and note.tie.type in ("stop", "continue")
            if (
                tied
                and notes
                and notes[-1][2] == note.pitch.midi
                and abs(sum(notes[-1][:2]) - onset) < 1e-3
            ):
                notes[-1][1] += length
            else:
                notes.append([onset, length, note.pitch.midi])
        if monophonic and len(notes) >= 16 and len({pitch for _, _, pitch in notes}) >= 5:
            lines.append((" ".join(str(part.partName or "part").split()), notes))

    parts: dict[str, Any] = {}
    for name, notes in lines:
        if any([n[:3] for n in other["written"]] == notes for other in parts.values()):
            continue
        parts[f"p{len(parts) + 1}"] = {
            "name": name,
            "written": notes,
            "notes": without_long_rests(notes, fermatas),
        }
    for part in parts.values():
        del part["written"]
    tune = next((p["notes"] for p in parts.values() if p["name"].startswith("Soprano")), None)
    return {
        "parts": parts,
        "melody": opening(tune or next((p["notes"] for p in parts.values()), [])),
    }


def opening(notes: list[list[float]]) -> list[int]:
    """A tune's first intervals from beat to beat, which stay where the tune comes back in another key or ornamented."""
    beats = [
        pitch
        for onset, length, pitch, _ in notes
        for _ in range(math.ceil(onset), math.ceil(onset + length))
    ]
    moves = [int(after - before) for before, after in pairwise(beats) if after != before]
    return moves[:6]


def without_long_rests(notes: list[list[float]], fermatas: set[float]) -> list[list[float]]:
    """The part from its first note on, no rest over LONGEST_REST, 1 on the notes that sound when a fermata ends."""
    out, end, shift = [], notes[0][0], notes[0][0]
    for onset, length, pitch in notes:
        shift += max(0.0, onset - end - LONGEST_REST)
        end = onset + length
        held = any(onset < fermata <= end + 1e-3 for fermata in fermatas)
        out.append([round(onset - shift, 4), round(length, 4), pitch, int(held)])
    return out


def digest(*key: Any) -> int:
    """The same 64-bit number for the same key, in every process and version of Python."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


def split_of(seed: int, melody: list[int]) -> str:
    """The split of every piece with this melody: chorales on one tune, in whatever key, never lie in two splits."""
    position = digest(seed, "split", melody) / 2**64
    for name, share in SPLITS.items():
        if position < share:
            return name
        position -= share
    return name
