"""Clips of a training set: choose them, and render one."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.render.chorales import digest, split_of
from audio_diffusion_pytorch.render.options import RenderOptions
from audio_diffusion_pytorch.render.player import (
    INSTRUMENTS,
    SAMPLE_RATE,
    Performance,
    octaves_into,
    perform,
    play,
    played_pitch,
)
from audio_diffusion_pytorch.render.sampler import SampleLibrary, play_samples
from audio_diffusion_pytorch.render.studies import study

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = ".render-"  # start of the names of incomplete files


def generator(*key: Any) -> np.random.Generator:
    """Return a random generator that depends on `key` only, not on global state."""
    import numpy as np

    return np.random.default_rng(digest(*key))


@dataclass(frozen=True)
class Clip:
    """A clip to render.

    Attributes:
        split: train, valid or test.
        piece: name of the piece.
        part: name of the part, such as p1.
        take: index of the performance.
        instrument: name of the instrument.
        octaves: octaves by which the part is transposed.
        notes: notes of the part, see `chorales.read_piece`.
    """

    split: str
    piece: str
    part: str
    take: int
    instrument: str
    octaves: int
    notes: list[list[float]]

    @property
    def stem(self) -> str:
        """The path in the output folder, without suffix."""
        name = f"{self.piece}_{self.part}_t{self.take}_{self.instrument}"
        return f"{self.split}/{self.instrument}/{name}"


@dataclass(frozen=True)
class ClipRenderer:
    """Render clips of one run.

    Args:
        output: folder to write.
        soundfonts: paths of the SoundFonts.
        seed: seed of the performances.
        paired: give all instruments the same performance and SoundFont.
        samples: folder of recorded notes, which play instead of SoundFonts.
    """

    output: Path
    soundfonts: tuple[str, ...]
    seed: int
    paired: bool
    samples: Path | None = None

    def performance(self, clip: Clip) -> tuple[Performance, str]:
        """Draw the performance of a clip, and its SoundFont; empty path without SoundFonts."""
        key = self.seed, clip.piece, clip.part, clip.take, "" if self.paired else clip.instrument
        soundfont = ""
        if self.soundfonts:
            soundfont = self.soundfonts[digest("soundfont", *key) % len(self.soundfonts)]
        return perform(clip.notes, generator("performance", *key)), soundfont

    def __call__(self, clip: Clip) -> None:
        """Write a clip as .flac, then its notes as .json, which marks the clip as complete."""
        import soundfile

        performance, soundfont = self.performance(clip)
        written = [pitch for _, _, pitch, _ in performance.notes]
        pitches = [played_pitch(clip.instrument, pitch, clip.octaves) for pitch in written]
        program = INSTRUMENTS[clip.instrument][0]
        if self.samples is None:
            audio = play(performance, pitches, soundfont, program)
        else:
            rng = generator("samples", self.seed, clip.stem)
            audio = play_samples(performance, pitches, _library(self.samples, clip.instrument), rng)
        flac = io.BytesIO()
        soundfile.write(flac, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        sounding = zip(performance.notes, pitches, strict=True)
        about = {
            "piece": clip.piece,
            "part": clip.part,
            "take": clip.take,
            "instrument": clip.instrument,
            "program": program,
            "soundfont": Path(soundfont).name,
            "samples": None if self.samples is None else self.samples.name,
            "octave_shift": clip.octaves,
            "paired": self.paired,
            "bpm": round(performance.bpm, 2),
            "sample_rate": SAMPLE_RATE,
            "duration": len(audio) / SAMPLE_RATE,
            "sha256": hashlib.sha256(flac.getvalue()).hexdigest(),
            "notes": [[round(on, 6), round(off, 6), pitch] for (on, off, _, _), pitch in sounding],
        }
        write_file(self.output / f"{clip.stem}.flac", flac.getvalue())
        write_file(self.output / f"{clip.stem}.json", json.dumps(about).encode())


@lru_cache(maxsize=16)
def _library(samples: Path, instrument: str) -> SampleLibrary:
    return SampleLibrary(samples, instrument)


def choose_clips(pieces: dict[str, dict[str, Any]], options: RenderOptions) -> list[Clip]:
    """Draw the clips of a run.

    Each instrument plays some parts of each piece, drawn among the parts that fit its range. In a
    paired run all instruments play the same parts, drawn among those that fit all ranges.

    Args:
        pieces: content of each piece, see `pieces.load_pieces`.
        options: options of the run.
    """
    clips = []
    for piece, content in pieces.items():
        for group in options.groups:
            clips += _clips_of_group(piece, content, group, options)
    return clips + [clip for name in options.instruments for clip in _studies(name, options)]


def _studies(instrument: str, options: RenderOptions) -> list[Clip]:
    """Compose the studies of an instrument that belong to the splits of the run."""
    _, low, high = INSTRUMENTS[instrument]
    clips = []
    for number in range(options.studies):
        split = split_of(options.seed, [number])
        if split in options.splits:
            notes = study(low, high, generator("study", options.seed, number, instrument))
            clips.append(Clip(split, f"study{number:04d}", "p1", 0, instrument, 0, notes))
    return clips


def _clips_of_group(
    piece: str, content: dict[str, Any], group: list[str], options: RenderOptions
) -> list[Clip]:
    rng = generator("parts", options.seed, piece, "" if options.paired else group[0])
    count = max(1, int(options.parts_per_piece + rng.random()))
    names = list(content["parts"])
    clips: list[Clip] = []
    chosen = 0
    for part in (names[index] for index in rng.permutation(len(names))):
        notes = content["parts"][part]["notes"]
        pitches = [pitch for _, _, pitch, _ in notes]
        octaves = {name: octaves_into(name, pitches) for name in group}
        if chosen == count or None in octaves.values():
            continue
        chosen += 1
        clips += [
            Clip(content["split"], piece, part, take, name, octaves[name] or 0, notes)
            for take in range(options.takes)
            for name in group
        ]
    return clips


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it: `path` is never incomplete.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
