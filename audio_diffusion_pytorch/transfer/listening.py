"""Analyse the start of a recording: register, instrument, and number of voices.

The thresholds were chosen on half of the shipped clips and their mixes; `benchmarks/listening.py`
measures the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.pitch.octaves import (
    clear_pitches,
    first_sound,
    share_outside,
    without_pauses,
)

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.audio import AudioReader
    from audio_diffusion_pytorch.models.classifier import InstrumentClassifier
    from audio_diffusion_pytorch.models.instrument import InstrumentSpec

UNLIKELY = 0.1  # probability below which the given source is wrong ...
LIKELY = 0.3  # ... if another instrument has at least this probability
MANY_OUTSIDE = 0.1  # share of the notes outside the target's range that gives a warning
SEVERAL_VOICES = 0.15  # share of pitched frames with two notes from which several voices play
SHORTEST = 0.5  # seconds of pitched sound below which the evidence is too weak for a warning
LEAST_PITCHED = 0.05  # least share of pitched sound in a melody
LONG = 2.0  # seconds; a shorter recording gets no warning about missing pitch
_SEGMENT = 6.0  # seconds per segment of the classifier
_LOUD = 0.1  # RMS relative to the loudest segment, below which a segment is ignored
_NOTE = 0.4  # note posterior from which a key sounds
_HELD = 17  # frames (0.2 s) of overlap for two voices: reverberation and legato are shorter
# Semitones from a note to its partials, at which the pitch tracker detects spurious notes. A
# semitone and a whole tone are vibrato and glides.
_PARTIALS = (0, 1, 12, 19, 24, 28, 31, 34, 36, 38, 40, 42, 43)


@dataclass(frozen=True)
class Analysis:
    """Analysis of the start of a recording.

    Args:
        pitches: MIDI pitch of each frame with a clear note.
        instruments: instrument -> probability, the most probable first; empty for silent or short
            recordings.
        overlap: share of the pitched frames with two notes that are not partials of each other.
        seconds: duration of the pitched sound.
        duration: seconds of the analysed sound, up to a minute.
        silent: whether the recording holds no sound.
    """

    pitches: Sequence[float] = ()
    instruments: dict[str, float] = field(default_factory=dict)
    overlap: float = 0.0
    seconds: float = 0.0
    duration: float = 0.0
    silent: bool = False

    @property
    def several_voices(self) -> bool:
        """Whether several voices sound at once."""
        return self.seconds >= SHORTEST and self.overlap >= SEVERAL_VOICES

    @property
    def unpitched(self) -> bool:
        """Whether hardly any sound has a clear pitch."""
        return self.duration >= LONG and self.seconds < LEAST_PITCHED * self.duration

    def is_unlikely(self, instrument: str) -> bool:
        """Return whether another instrument plays; False for names unknown to the classifier.

        Args:
            instrument: name of the expected instrument.
        """
        probability = self.instruments.get(instrument.replace("_", " "))
        if probability is None or self.seconds < SHORTEST:
            return False
        return probability < UNLIKELY and max(self.instruments.values()) >= LIKELY

    def warning(
        self, source: str | None, target: InstrumentSpec | None = None, octaves: int = 0
    ) -> str | None:
        """Return a sentence about unsuitable sound or a wrong source; None without a reason.

        Args:
            source: name of the source model's instrument; None: this analysis chose it.
            target: specification of the target model, whose range the notes should fit.
            octaves: octaves by which the recording moves.
        """
        if self.silent:
            return "the recording is silent"
        if self.unpitched:
            return "no clear pitch, as in drums or noise: the models play melodies"
        if self.several_voices:
            share = f"{self.overlap:.0%} of it"
            return f"several voices at once in {share}: the models play one voice at a time"
        if source is not None and self.is_unlikely(source):
            best, probability = next(iter(self.instruments.items()))
            return (
                f"it sounds like {best} ({probability:.0%}), not like {source}: "
                f"use source={model_name(best)}, or source=auto"
            )
        return None if target is None else self._warning_about_range(target, octaves)

    def _warning_about_range(self, target: InstrumentSpec, octaves: int) -> str | None:
        from audio_diffusion_pytorch.models.instrument import pitch_range

        limits = pitch_range(target)
        if limits is None or self.seconds < SHORTEST:
            return None
        outside = share_outside(self.pitches, octaves, *limits)
        if outside < MANY_OUTSIDE:
            return None
        return f"{outside:.0%} of it is outside the {target.name}'s range: expect wrong octaves"

    def source(self) -> str | None:
        """Choose the source model: a shipped one, or `all:NAME` for a far more probable instrument.

        None for silent or short recordings.
        """
        from audio_diffusion_pytorch.models.loading import shipped_instruments

        shipped = {
            name: self.instruments[name]
            for name in shipped_instruments()
            if name in self.instruments
        }
        if not shipped:
            return None
        best = max(self.instruments, key=self.instruments.__getitem__)
        nearest = max(shipped, key=shipped.__getitem__)
        return model_name(best if self.instruments[best] >= 2 * shipped[nearest] else nearest)

    def facts(self) -> dict[str, str | float | None]:
        """Return the facts of a report."""
        best, probability = next(iter(self.instruments.items()), (None, 0.0))
        return {
            "sounds_like": best,
            "sounds_like_probability": round(probability, 3),
            "voices_overlap": round(self.overlap, 3),
        }


def model_name(instrument: str) -> str:
    """Return the name of an instrument's model for `load_instrument`: `flute`, `all:oboe`."""
    from audio_diffusion_pytorch.models.loading import ALL, shipped_instruments

    return instrument if instrument in shipped_instruments() else f"{ALL}:{instrument}"


def analyse(file: AudioReader, mid: bool = False) -> Analysis:
    """Analyse the first minute of sound of an open recording.

    Args:
        file: the recording.
        mid: analyse the channels' average (`AudioReader.mono_blocks`), not the loudest channel.

    Raises:
        InputError: the recording cannot be read.
    """
    from audio_diffusion_pytorch.bridge.recording_stats import audible

    blocks = file.mono_blocks() if mid else file.blocks()
    wav = first_sound(audible(blocks, file.info.sample_rate), file.info.sample_rate, mid)
    return Analysis(silent=True) if wav is None else analyse_wav(wav, file.info.sample_rate)


def analyse_wav(wav: Tensor, sample_rate: int) -> Analysis:
    """Analyse wav [1, T] at sample_rate Hz; below a tenth of a second, the analysis is empty."""
    from audio_diffusion_pytorch.pitch.tracker import note_posteriors

    if wav.shape[1] < sample_rate // 10:
        return Analysis()
    note = without_pauses(note_posteriors(wav, sample_rate)[0], wav)
    overlap, seconds = voices_overlap(note)
    return Analysis(
        clear_pitches(note),
        instrument_probabilities(wav, sample_rate),
        overlap,
        seconds,
        wav.shape[1] / sample_rate,
    )


def instrument_probabilities(wav: Tensor, sample_rate: int) -> dict[str, float]:
    """Classify wav [1, T] by the mean over its loud segments: instrument -> probability, sorted."""
    import torch

    from audio_diffusion_pytorch.audio import resample

    classifier = _classifier()
    rate = classifier.sample_rate
    wav = resample(wav.cpu(), sample_rate, rate)
    parts = list(wav.split(round(_SEGMENT * rate), -1))
    parts = [part for part in parts if part.shape[1] >= rate] or parts[:1]
    levels = torch.tensor([part.square().mean().sqrt() for part in parts])
    if not levels.any():
        return {}
    loud = [
        part for part, level in zip(parts, levels, strict=True) if level >= _LOUD * levels.max()
    ]
    mean = torch.cat([classifier.probabilities(part, rate) for part in loud]).mean(0).tolist()
    found = zip(classifier.instruments, mean, strict=True)
    return dict(sorted(found, key=lambda pair: -pair[1]))


def voices_overlap(note: Tensor) -> tuple[float, float]:
    """Measure the overlap of voices.

    Two keys count as two voices if both sound for 0.2 s and neither is a partial of the other.

    Args:
        note: [F, 88] note posteriors.

    Returns:
        Share of the pitched frames with two voices, and the pitched seconds.
    """
    import torch.nn.functional as F
    from basic_pitch_torch import SAMPLE_RATE
    from basic_pitch_torch.model import HOP

    if not len(note):
        return 0.0, 0.0
    around = F.max_pool1d(note, 3, 1, 1)  # [F, 88], over neighbouring keys
    on = (note >= _NOTE) & (note == around)
    pitched = int(on.any(1).sum())
    if pitched == 0:
        return 0.0, 0.0
    held = _runs(on)
    two = held.new_zeros(len(held))
    for interval in range(1, held.shape[1]):
        if interval not in _PARTIALS:
            two |= (held[:, interval:] & held[:, :-interval]).any(1)
    return float(_runs(two[:, None]).sum()) / pitched, pitched * HOP / SAMPLE_RATE


def _runs(on: Tensor) -> Tensor:
    """Remove runs of less than `_HELD` frames from on [F, K]."""
    import torch.nn.functional as F

    if len(on) < _HELD:
        return on & False
    whole = on.T.float().unfold(-1, _HELD, 1).amin(-1)  # [K, F - _HELD + 1] starts of runs
    return F.max_pool1d(F.pad(whole, (_HELD - 1, _HELD - 1)), _HELD, 1).T > 0


@lru_cache(maxsize=1)
def _classifier() -> InstrumentClassifier:
    from audio_diffusion_pytorch.models.classifier import load_classifier

    return load_classifier()
