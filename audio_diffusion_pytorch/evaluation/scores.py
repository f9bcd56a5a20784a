"""Score single clips: melody, timbre, distance to the true performance.

The scores of a clip are a dict. A score is NaN if it is undefined: no pitch, no known notes, no
classifier.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.metrics.melody import PitchMetrics, melody_distances
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.metrics.transcription import note_scores, pitch_accuracy
from audio_diffusion_pytorch.pitch.notes import F0Track, decode_notes, f0_of_notes, f0_track
from audio_diffusion_pytorch.pitch.tracker import Melody, Mode, melody_of, posteriors, track_melody

VERSION = 7  # raise it when a score of the same sound changes: kept scores are then computed again
_REMEMBERED = 512  # clips
_LEVEL = 0.1  # RMS of the active parts at which sounds are compared

MELODY = (
    "dpd",
    "jd",
    "dpd_paper",
    "jd_paper",
    "voiced",
    "rpa",
    "rca",
    "note_precision",
    "note_recall",
    "note_f1",
)


class Classifier(Protocol):
    """An instrument classifier."""

    instruments: Sequence[str]

    def probabilities(self, wav: Tensor, sample_rate: int) -> Tensor:
        """Return the probabilities [B, N] of the instruments for sounds [B, T]."""
        ...


@dataclass(frozen=True)
class PitchAnalysis:
    """Pitches of one clip.

    Attributes:
        melody: melody of a batch of one clip, in the mode `correct`.
        paper: melody of a batch of one clip, in the mode `paper`.
        f0: pitch track.
        notes: onset, offset (seconds) and MIDI pitch of each note [N, 3].
    """

    melody: Melody
    paper: Melody
    f0: F0Track
    notes: np.ndarray

    def moved(self, octaves: int) -> "PitchAnalysis":
        """Return the analysis with the pitch track and the notes in another register.

        The melodies stay: their pitch classes have no octave.

        Args:
            octaves: octaves upwards.
        """
        f0 = replace(self.f0, hertz=self.f0.hertz * 2.0**octaves)
        return replace(self, f0=f0, notes=self.notes + np.array([0, 0, 12 * octaves]))


class PitchAnalyser:
    """Track pitches, and remember the analyses of recent clips.

    Args:
        sample_rate: rate of the clips in Hz.
        track: function of clips [B, T] and their rate that analyses each clip; None for
            `analyse_pitch`.
    """

    def __init__(
        self, sample_rate: int, track: Callable[[Tensor, int], list[PitchAnalysis]] | None = None
    ):
        self.sample_rate = sample_rate
        self.track = track or analyse_pitch
        self._memory: OrderedDict[str, PitchAnalysis] = OrderedDict()

    def __call__(self, wavs: Sequence[Tensor], keys: Sequence[str]) -> list[PitchAnalysis]:
        """Analyse clips.

        Args:
            wavs: clips [T] of one length.
            keys: key of each clip's content.

        Returns:
            The analysis of each clip.
        """
        new = {key: wav for key, wav in zip(keys, wavs, strict=True) if key not in self._memory}
        if new:
            analyses = self.track(torch.stack(list(new.values())), self.sample_rate)
            self._memory.update(zip(new, analyses, strict=True))
        found = [self._memory[key] for key in keys]
        while len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        return found


def analyse_pitch(wavs: Tensor, sample_rate: int) -> list[PitchAnalysis]:
    """Track the pitches of clips with Basic Pitch.

    Args:
        wavs: clips [B, T].
        sample_rate: rate of the clips in Hz.

    Returns:
        The analysis of each clip.
    """
    found = posteriors(wavs, sample_rate)
    correct = melody_of(found["note"])
    paper = track_melody(wavs, sample_rate, "paper")
    return [
        PitchAnalysis(
            _one(correct, i),
            _one(paper, i),
            f0_track(found["note"][i]),
            decode_notes(found["onset"][i], found["note"][i]),
        )
        for i in range(len(wavs))
    ]


def _one(melody: Melody, index: int) -> Melody:
    part = slice(index, index + 1)
    return Melody(
        melody.classes[part], melody.strength[part], melody.voiced[part], melody.chroma[part]
    )


def melody_scores(
    inputs: Sequence[PitchAnalysis],
    outputs: Sequence[PitchAnalysis],
    references: Sequence[np.ndarray | PitchAnalysis],
) -> list[dict[str, float]]:
    """Score the melodies of outputs.

    Args:
        inputs: transferred recordings; DPD and JD compare the pitch classes of outputs and inputs
            in any octave.
        outputs: outputs of the transfers.
        references: known notes [N, 3] in the output's register; without known notes, the pitches
            of the input, moved into this register.

    Returns:
        The scores of each output, with the names in `MELODY`.
    """
    modes: tuple[Mode, Mode] = ("correct", "paper")
    distances = {mode: _distances(inputs, outputs, mode) for mode in modes}
    rows = []
    for i, (output, reference) in enumerate(zip(outputs, references, strict=True)):
        if isinstance(reference, PitchAnalysis):
            truth, notes = reference.f0, reference.notes
        else:
            truth, notes = f0_of_notes(reference, output.f0.times), reference
        correct = distances["correct"]
        paper = distances["paper"]
        values = (
            correct.dpd[i].item(),
            correct.jaccard[i].item(),
            paper.dpd[i].item(),
            paper.jaccard[i].item(),
            float(correct.voiced_b[i]),
            *pitch_accuracy(truth, output.f0),
            *note_scores(notes, output.notes),
        )
        rows.append(dict(zip(MELODY, values, strict=True)))
    return rows


def _distances(
    inputs: Sequence[PitchAnalysis], outputs: Sequence[PitchAnalysis], mode: Mode
) -> PitchMetrics:
    a, b = (
        _batch([clip.melody if mode == "correct" else clip.paper for clip in side])
        for side in (inputs, outputs)
    )
    return melody_distances(a, b, mode)


def _batch(melodies: Sequence[Melody]) -> Melody:
    names = ("classes", "strength", "voiced", "chroma")
    return Melody(**{name: torch.cat([getattr(m, name) for m in melodies]) for name in names})


def timbre_scores(
    classifier: Classifier | None, wavs: Tensor, sample_rate: int, targets: Sequence[str]
) -> list[dict[str, Any]]:
    """Classify the instruments of sounds.

    Args:
        classifier: the classifier; None gives unknown scores.
        wavs: sounds [B, T].
        sample_rate: rate of the sounds in Hz.
        targets: instrument that each sound should have.

    Returns:
        For each sound the classified instrument (`taken_for`; None for silence), whether it is the
        target (`taken`: 1 or 0), and the target's probability.
    """
    if classifier is None:
        return [
            {"taken_for": None, "taken": math.nan, "target_probability": math.nan} for _ in targets
        ]
    probabilities = classifier.probabilities(wavs, sample_rate).cpu().double()
    names = [name.replace("_", " ") for name in classifier.instruments]
    rows = []
    for row, target in zip(probabilities, targets, strict=True):
        silent = row.max() - row.min() <= 1e-6  # equal probabilities
        found = None if silent else names[int(row.argmax())]
        known = target in names
        chance = float(row[names.index(target)]) if known else math.nan
        taken = float(found == target) if known else math.nan
        rows.append({"taken_for": found, "taken": taken, "target_probability": chance})
    return rows


def distance_to_truth(
    wavs: Sequence[Tensor], truths: Sequence[Tensor | None], sample_rate: int
) -> list[float]:
    """Measure log-mel distances to true performances, both at one level.

    Args:
        wavs: clips [T].
        truths: true performance of each clip, of the same length; None if unknown.
        sample_rate: rate of the clips in Hz.

    Returns:
        The distance of each clip; NaN without a true performance.
    """
    distances = []
    for wav, truth in zip(wavs, truths, strict=True):
        if truth is None:
            distances.append(math.nan)
            continue
        a, b = (at_level(x[None], sample_rate) for x in (wav, truth))
        distances.append(float(log_mel_distance(a, b, sample_rate)))
    return distances


def at_level(wav: Tensor, sample_rate: int) -> Tensor:
    """Scale a sound to the level of comparisons, because gain is not a part of timbre.

    Args:
        wav: sound [C, T].
        sample_rate: rate of the sound in Hz.

    Returns:
        The scaled sound [C, T].
    """
    return wav * (_LEVEL / max(active_rms(wav, sample_rate), 1e-6))


def noise_scores(noise: Tensor, sigma: float, sigma_data: float) -> dict[str, float]:
    """Measure how close to Gaussian the noise at the hand-off is.

    Args:
        noise: noise [D, L] of one clip.
        sigma: noise level of the hand-off.
        sigma_data: standard deviation of the normalised latents.

    Returns:
        noise_spread: standard deviation as a share of sqrt(sigma^2 + sigma_data^2), 1 for perfect
            noise.
        noise_channel_correlation: root mean square over pairs of channels, about 1 / sqrt(L) for
            perfect noise.
        noise_time_correlation: of neighbouring frames, mean over channels, about 0 for perfect
            noise.
    """
    noise = noise.cpu().double()
    centred = noise - noise.mean(1, keepdim=True)
    power = centred.square().sum(1).clamp_min(1e-12)
    correlation = centred @ centred.T / (power[:, None] * power[None]).sqrt()
    channels = len(noise)
    others = (correlation.square().sum() - channels) / max(1, channels * (channels - 1))
    in_time = (centred[:, 1:] * centred[:, :-1]).sum(1) / power
    return {
        "noise_spread": float(noise.std() / math.hypot(sigma, sigma_data)),
        "noise_channel_correlation": float(others.clamp_min(0).sqrt()),
        "noise_time_correlation": float(in_time.mean()),
    }
