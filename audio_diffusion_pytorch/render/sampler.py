"""A player of recorded notes: string single notes of real players together to a performance.

The folder has one folder for each instrument; names as in the Philharmonia Orchestra's library:
`violin_A3_1_forte_arco-normal.mp3`, where `As3` is A sharp.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render.player import PEAK, RENDER_RATE, Performance, halve

if TYPE_CHECKING:
    import numpy as np

_NAME = re.compile(r"_([A-G]s?)(\d)_([^_]+)_([^_]+)_([^_]+)$")
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_DYNAMICS = ("pianissimo", "piano", "mezzo-piano", "mezzo-forte", "forte", "fortissimo")
_PLAIN = ("normal", "arco-normal", "molto-vibrato", "non-vibrato")
_FARTHEST = 2  # semitones by which a note may be moved
_SILENCE = 0.01  # of the peak
_PCM = 32767  # largest value of a stored sample
_LEAST = 0.15  # seconds of sound in a usable note
_LOOP = 0.12  # seconds of the cross-fade where a note is prolonged


@dataclass(frozen=True)
class Note:
    """A recorded note.

    Attributes:
        path: the file.
        pitch: MIDI pitch.
        dynamic: index in the list of dynamics, from pianissimo to fortissimo.
    """

    path: Path
    pitch: int
    dynamic: int


class SampleLibrary:
    """Recorded notes of one instrument.

    Args:
        folder: folder of all instruments.
        instrument: name of the instrument, and of its folder.

    Attributes:
        notes: all notes by pitch.
        skipped: reason -> number of files that are not used.
        moved: number of played notes whose pitch was missing.

    Raises:
        InputError: the folder holds no note of the instrument.
    """

    def __init__(self, folder: Path, instrument: str):
        self.notes: dict[int, list[Note]] = {}
        self.skipped: Counter[str] = Counter()
        self.moved = 0
        for path in sorted((folder / instrument).glob("*")):
            note = _parse(path)
            if isinstance(note, str):
                self.skipped[note] += 1
            else:
                self.notes.setdefault(note.pitch, []).append(note)
        if not self.notes:
            raise InputError(
                f"{folder / instrument} holds no recorded notes: names are like "
                "violin_A3_1_forte_arco-normal.mp3"
            )

    def candidates(self, pitch: int) -> list[Note]:
        """Return the notes of the nearest pitch; empty: none within two semitones."""
        nearest = min(self.notes, key=lambda known: (abs(known - pitch), known))
        if abs(nearest - pitch) > _FARTHEST:
            return []
        self.moved += nearest != pitch
        return self.notes[nearest]

    def choose(
        self, pitch: int, seconds: float, velocity: int, rng: np.random.Generator
    ) -> tuple[Note, np.ndarray] | None:
        """Choose a recording of a note; return it with its int16 sound [T], or None.

        Args:
            pitch: MIDI pitch.
            seconds: length of the note.
            velocity: MIDI velocity, which selects the dynamic.
            rng: source of randomness.
        """
        import numpy as np

        wanted = np.clip((velocity - 30) / 80, 0, 1) * (len(_DYNAMICS) - 1)
        found = [
            (note, sound)
            for note in self.candidates(pitch)
            if (sound := _read(note.path)) is not None
        ]
        if not found:
            return None
        misfit = [
            abs(note.dynamic - wanted)
            + 2 * max(0.0, seconds - len(sound) / RENDER_RATE)
            + 0.2 * max(0.0, len(sound) / RENDER_RATE - 2 * seconds)
            + rng.random()
            for note, sound in found
        ]
        return found[int(np.argmin(misfit))]


def _parse(path: Path) -> Note | str:
    """Read the name of a file; return the reason why it is not a note."""
    match = _NAME.search(path.stem)
    if match is None:
        return "other names"
    step, octave, length, dynamic, articulation = match.groups()
    if length == "phrase":
        return "phrases"
    if articulation not in _PLAIN or dynamic not in _DYNAMICS:
        return "other articulations"
    pitch = 12 * (int(octave) + 1) + _STEPS[step[0]] + step.endswith("s")
    return Note(path, pitch, _DYNAMICS.index(dynamic))


@lru_cache(maxsize=4000)
def _read(path: Path) -> np.ndarray | None:
    """Read a note, int16 [T] at RENDER_RATE, without silence around it; None: unusable."""
    import numpy as np
    import torch

    from audio_diffusion_pytorch import audio

    try:
        wav, rate = audio.read_mono(path)
    except InputError as error:
        logging.getLogger(__name__).warning(f"skipped: {error}")
        return None
    sound = audio.resample(wav.to(torch.float32), rate, RENDER_RATE)[0].numpy()
    block = RENDER_RATE // 200
    loud = np.abs(sound[: len(sound) // block * block].reshape(-1, block)).max(1, initial=0)
    audible = np.flatnonzero(loud > max(_SILENCE * loud.max(initial=0), 1e-4))
    if not len(audible) or (audible[-1] - audible[0]) * block < _LEAST * RENDER_RATE:
        return None
    start = max(0, audible[0] - 2) * block
    kept = sound[start : (audible[-1] + 2) * block].clip(-1, 1)
    return (kept * _PCM).round().astype(np.int16)  # half the memory of float32


def play_samples(
    performance: Performance,
    pitches: Sequence[int],
    library: SampleLibrary,
    rng: np.random.Generator,
) -> np.ndarray:
    """Play a performance with recorded notes.

    Args:
        performance: the performance.
        pitches: sounding MIDI pitch of each note.
        library: recorded notes.
        rng: source of randomness: intonation, vibrato, glides, choice of the recordings.

    Returns:
        Waveform [T] at `player.SAMPLE_RATE`, float32, with a peak of `player.PEAK`.
    """
    import numpy as np

    out = np.zeros(round((performance.duration + 1) * RENDER_RATE), np.float32)
    style = _Style.draw(rng)
    previous: tuple[float, int] | None = None  # end and pitch of the note before
    for (onset, offset, _, velocity), pitch in zip(performance.notes, pitches, strict=True):
        slurred = previous is not None and onset - previous[0] < 0.03
        seconds = offset - onset + style.release
        chosen = library.choose(pitch, seconds, velocity, rng)
        if chosen is None:
            previous = None
            continue
        note, sound = chosen
        interval = 0.0 if not slurred or previous is None else previous[1] - pitch
        cents = style.curve(pitch - note.pitch, interval, seconds, slurred, rng)
        wav = _repitched(sound, cents, slurred)
        wav = _enveloped(wav, style.attack if slurred else 0.004, style.release)
        wav *= 10 ** ((velocity - 100) / 80)
        first = round(onset * RENDER_RATE)
        wav = wav[: len(out) - first]
        out[first : first + len(wav)] += wav
        previous = (offset, pitch)
    out *= _expression(performance, len(out))
    audio = halve(out)
    return audio * (PEAK / max(float(np.abs(audio).max()), 1e-9))


@dataclass(frozen=True)
class _Style:
    """Habits of the player of one clip; times in seconds, intervals in cents."""

    attack: float
    release: float
    vibrato: float
    rate: float
    glides: float

    @staticmethod
    def draw(rng: np.random.Generator) -> _Style:
        vibrato = rng.uniform(8, 45) if rng.random() < 0.5 else 0.0
        return _Style(
            rng.uniform(0.02, 0.06),
            rng.uniform(0.05, 0.2),
            vibrato,
            rng.uniform(4.5, 6.8),
            rng.uniform(0, 0.3) if rng.random() < 0.4 else 0.0,
        )

    def curve(
        self,
        shift: int,
        interval: float,
        seconds: float,
        slurred: bool,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Draw the pitch of a note in cents relative to its recording, one value a millisecond."""
        import numpy as np

        time = np.arange(round(seconds * 1000) + 1) / 1000
        cents = np.full(len(time), 100.0 * shift + rng.normal(0, 6))
        if self.vibrato and seconds > 0.3:
            depth = self.vibrato * np.clip((time - rng.uniform(0.05, 0.3)) / 0.25, 0, 1)
            phase = 2 * np.pi * (self.rate * rng.uniform(0.93, 1.07) * time + rng.random())
            cents += depth * np.sin(phase)
        if slurred and 0 < abs(interval) <= 5 and rng.random() < self.glides:
            cents += 100 * interval * np.clip(1 - time / rng.uniform(0.06, 0.15), 0, 1)
        cents += rng.normal(0, 4) * np.clip(time / max(seconds, 0.1), 0, 1)  # a slow drift
        return cents


def _repitched(sound: np.ndarray, cents: np.ndarray, slurred: bool) -> np.ndarray:
    """Play a recorded note, int16 [T], at a pitch curve [milliseconds]: cubic interpolation."""
    import numpy as np

    count = (len(cents) - 1) * RENDER_RATE // 1000
    at = np.arange(count) * (1000 / RENDER_RATE)
    speed = 2 ** (np.interp(at, np.arange(len(cents)), cents) / 1200)
    start = 0.05 * RENDER_RATE if slurred and len(sound) > 0.3 * RENDER_RATE else 0.0
    position = start + np.concatenate([[0.0], np.cumsum(speed)[:-1]])
    source = _prolonged(sound.astype(np.float32) / _PCM, int(position[-1]) + 4 if count else 4)
    whole = position.astype(np.int64).clip(1, len(source) - 3)
    x = (position - whole).astype(np.float32)
    a, b, c, d = (source[whole + offset] for offset in (-1, 0, 1, 2))
    # Catmull-Rom spline
    return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))


def _prolonged(sound: np.ndarray, length: int) -> np.ndarray:
    """Prolong a note [T] to `length` samples: repeat its middle, cross-faded in phase."""
    import numpy as np

    missing = length - len(sound)
    if missing <= 0:
        return sound
    fade = min(round(_LOOP * RENDER_RATE), len(sound) // 8)
    start, end = round(0.3 * len(sound)), round(0.75 * len(sound))
    if fade < RENDER_RATE // 100 or missing < RENDER_RATE // 50:
        return np.pad(sound, (0, missing))
    # The lag at which the loop's start resembles its end most.
    window = sound[end - fade : end]
    search = sound[start : start + 2 * fade]
    scores = np.correlate(search[: fade + fade // 2], window[: fade // 2], "valid")
    start += int(np.argmax(scores))
    ramp = np.sin(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
    joint = window * (1 - ramp) + sound[start : start + fade] * ramp
    repeat = np.concatenate([joint, sound[start + fade : end - fade]])
    if not len(repeat):
        return np.pad(sound, (0, missing))
    rounds = -(-missing // len(repeat))
    return np.concatenate([sound[: end - fade], *[repeat] * rounds, sound[end - fade :]])


def _enveloped(wav: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Fade a note [T] in and out."""
    import numpy as np

    for seconds, side in ((attack, slice(None)), (release, slice(None, None, -1))):
        count = min(round(seconds * RENDER_RATE), len(wav) // 2)
        if count:
            ramp = np.sin(np.linspace(0, np.pi / 2, count, dtype=np.float32)) ** 2
            wav[side][:count] *= ramp
    return wav


def _expression(performance: Performance, length: int) -> np.ndarray:
    """Return the gain [length] of the performance's swells."""
    import numpy as np

    changes = [(time, value) for time, kind, value in performance.controls if kind == "expression"]
    if not changes:
        return np.ones(length, np.float32)
    times, values = np.array(changes, dtype=np.float64).T
    gain = np.interp(np.arange(0, length, 48) / RENDER_RATE, times, (values / 127) ** 2)
    return np.repeat(gain.astype(np.float32), 48)[:length]
