"""The scores of single clips: melody, timbre, distance to the true performance.

A clip's scores are a dict; a score that cannot be given (no pitch, no known notes, no classifier) is NaN.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.metrics.melody import melody_distances
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.metrics.transcription import note_scores, pitch_accuracy
from audio_diffusion_pytorch.pitch.notes import F0Track, decode_notes, f0_of_notes, f0_track
from audio_diffusion_pytorch.pitch.tracker import Melody, melody_of, posteriors, track_melody

VERSION = 3  # raise it when a score of the same sound changes
_REMEMBERED = 512  # clips
_LEVEL = 0.1  # RMS of the sounding parts at which sounds are compared

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


@dataclass(frozen=True)
class PitchAnalysis:
    """What the pitch tracker hears in one clip: melodies of a batch of one, pitch track, notes [N, 3]."""

    melody: Melody
    paper: Melody
    f0: F0Track
    notes: np.ndarray


class PitchAnalyser:
    """The pitch tracker, with a memory of the clips that it has heard lately."""

    def __init__(
        self, sample_rate: int, track: Callable[[Tensor, int], list["PitchAnalysis"]] | None = None
    ):
        self.sample_rate = sample_rate
        self.track = track or analyse_pitch
        self._memory: OrderedDict[str, PitchAnalysis] = OrderedDict()

    def __call__(self, wavs: Sequence[Tensor], keys: Sequence[str]) -> list[PitchAnalysis]:
        """Clips [T] of one length -> what is heard; `keys` name their content."""
        new = {key: wav for key, wav in zip(keys, wavs, strict=True) if key not in self._memory}
        if new:
            self._memory.update(
                zip(new, self.track(torch.stack(list(new.values())), self.sample_rate), strict=True)
            )
        heard = [self._memory[key] for key in keys]
        while len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        return heard


def analyse_pitch(wavs: Tensor, sample_rate: int) -> list[PitchAnalysis]:
    """Track clips [B, T] with Basic Pitch; returns an analysis for each."""
    found = posteriors(wavs, sample_rate)
    correct, paper = melody_of(found["note"]), track_melody(wavs, sample_rate, "paper")
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
    """Scores of outputs, names in MELODY.

    Args:
        inputs: the recordings that were transferred; DPD and JD compare pitch classes with these, in any octave.
        references: known notes [N, 3] in the output's register, or where none are known the input as heard there.
    """
    distances = {
        mode: melody_distances(
            *(_batch([_of(h, mode) for h in side]) for side in (inputs, outputs)), mode
        )
        for mode in ("correct", "paper")
    }
    rows = []
    for i, (output, reference) in enumerate(zip(outputs, references, strict=True)):
        if isinstance(reference, PitchAnalysis):
            truth, notes = reference.f0, reference.notes
        else:
            truth, notes = f0_of_notes(reference, output.f0.times), reference
        rpa, rca = pitch_accuracy(truth, output.f0)
        values = [
            distances[mode].__dict__[name][i].item()
            for mode in distances
            for name in ("dpd", "jaccard")
        ]
        voiced = float(distances["correct"].voiced_b[i])
        rows.append(
            dict(
                zip(
                    MELODY,
                    (*values, voiced, rpa, rca, *note_scores(notes, output.notes)),
                    strict=True,
                )
            )
        )
    return rows


def _of(heard: PitchAnalysis, mode: str) -> Melody:
    return heard.melody if mode == "correct" else heard.paper


def _batch(melodies: Sequence[Melody]) -> Melody:
    names = ("classes", "strength", "voiced", "chroma")
    return Melody(**{name: torch.cat([getattr(m, name) for m in melodies]) for name in names})


def timbre_scores(classifier, wavs: Tensor, sample_rate: int, targets: Sequence[str]) -> list[dict]:
    """Which instrument a classifier hears in wavs [B, T].

    Args:
        classifier: with `instruments` and `probabilities(wav, sample_rate)` -> [B, N]; None scores nothing.
        targets: what each should be.
    """
    if classifier is None:
        return [
            {"taken_for": None, "taken": math.nan, "target_probability": math.nan} for _ in targets
        ]
    probabilities = classifier.probabilities(wavs, sample_rate).cpu().double()
    names, rows = [name.replace("_", " ") for name in classifier.instruments], []
    for row, target in zip(probabilities, targets, strict=True):
        heard = (
            names[int(row.argmax())] if row.max() - row.min() > 1e-6 else None
        )  # all alike: silence
        known = target in names
        chance = float(row[names.index(target)]) if known else math.nan
        taken = float(heard == target) if known else math.nan
        rows.append({"taken_for": heard, "taken": taken, "target_probability": chance})
    return rows


def distance_to_truth(
    wavs: Sequence[Tensor], truths: Sequence[Tensor | None], sample_rate: int
) -> list[float]:
    """Log-mel distances of clips [T] to true performances of the same length, at one level; NaN where there is none."""
    return [
        math.nan
        if truth is None
        else float(
            log_mel_distance(*(at_level(x[None], sample_rate) for x in (wav, truth)), sample_rate)
        )
        for wav, truth in zip(wavs, truths, strict=True)
    ]


def at_level(wav: Tensor, sample_rate: int) -> Tensor:
    """wav [C, T] at the level at which sounds are compared: a bridge keeps its input's level, and gain is no timbre."""
    return wav * (_LEVEL / max(active_rms(wav, sample_rate), 1e-6))


def noise_scores(noise: Tensor, sigma: float, sigma_data: float) -> dict[str, float]:
    """How Gaussian the noise of one clip is, [D, L] at the hand-off.

    noise_spread: standard deviation as a share of sqrt(sigma^2 + sigma_data^2), 1 for perfect noise.
    noise_channel_correlation: root mean square over pairs of channels, about 1 / sqrt(L) for perfect noise.
    noise_time_correlation: of neighbouring frames, mean over channels, about 0 for perfect noise.
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
