"""Register metrics and pitch trackers of an evaluation by name, also from a user's module."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mir_eval.util import midi_to_hz
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.scores import MELODY, PitchAnalysis, analyse_pitch
from audio_diffusion_pytorch.pitch.notes import F0Track
from audio_diffusion_pytorch.pitch.tracker import Melody
from audio_diffusion_pytorch.utils.hashing import digest
from audio_diffusion_pytorch.utils.registry import Registry

Metric = Callable[[Tensor, Tensor, int], float]  # (output [T], input [T], sample_rate) -> score
Tracker = Callable[[Tensor, int], list[PitchAnalysis]]  # (clips [B, T], sample_rate) -> B analyses

DEFAULT_TRACKER = "basic_pitch"
SHORTEST_NOTE = 0.05  # seconds
TAKEN_NAMES = {  # columns of results.csv and figures of results.json
    *(*MELODY, "taken_for", "taken", "target_probability", "log_mel_truth", "frechet"),
    "level_envelope",
    *("system", "pair", "clip", "clips", "input", "output", "start", "seconds", "octaves", "sigma"),
    *("frames", "embedder", "num_steps", "solver", "evaluations", "schedule", "seconds_per_second"),
}
METRICS: Registry[Metric] = Registry("metrics")
TRACKERS: Registry[Tracker] = Registry("tracker", {DEFAULT_TRACKER: analyse_pitch})


def own_parts_key(tracker: str, metrics: Sequence[str]) -> str | None:
    """Return a key of a user's tracker and metrics that changes with their code; None without any.

    Args:
        tracker: name in `TRACKERS`.
        metrics: names in `METRICS`.

    Raises:
        InputError: a name is not registered, or a metric has the name of a built-in score.
    """
    if taken := TAKEN_NAMES.intersection(metrics):
        raise InputError(f"metrics: {min(taken)} names a built-in score: choose another name")
    functions: dict[str, Any] = {name: METRICS.find(name) for name in metrics}
    found = TRACKERS.find(tracker)
    if tracker != DEFAULT_TRACKER:
        functions[f"tracker {tracker}"] = found
    if not functions:
        return None
    return digest({name: _source(function) for name, function in functions.items()})


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # built-in functions, instances of classes
        return repr(type(function))


def measure(
    names: Sequence[str], output: Tensor, given: Tensor, sample_rate: int
) -> dict[str, float]:
    """Compute a user's metrics of one clip.

    Args:
        names: names in `METRICS`.
        output: output of the system [T].
        given: input in the output's register [T].
        sample_rate: rate of both in Hz.

    Returns:
        Name of each metric -> score.

    Raises:
        InputError: a metric fails, or does not return a number.
    """
    scores = {}
    for name in names:
        try:
            scores[name] = float(METRICS.find(name)(output, given, sample_rate))
        except Exception as error:
            raise InputError(f"metrics: {name} fails: {type(error).__name__}: {error}") from error
    return scores


def analysis_of_pitches(midi: Tensor, frames_per_second: float) -> PitchAnalysis:
    """Convert the pitches of a user's tracker for the melody scores.

    Args:
        midi: MIDI pitch of each frame [F], NaN for unvoiced frames; fractions are allowed.
        frames_per_second: rate of the frames in Hz.

    Returns:
        The analysis. A note is a run of frames with one rounded pitch. The paper's scores, which
        need a pitch class in every frame, extend each pitch over the unvoiced frames after it.
    """
    voiced = ~midi.isnan()
    keys = midi.nan_to_num(0.0).round().long()
    times = np.arange(len(midi)) / frames_per_second
    hertz = midi_to_hz(torch.where(voiced, midi, 69.0).double().numpy())
    last_voiced = torch.where(voiced, torch.arange(len(midi)), 0).cummax(0).values
    return PitchAnalysis(
        _melody(keys, voiced),
        _melody(keys[last_voiced], voiced),
        F0Track(times, hertz, voiced.numpy()),
        _notes(keys.numpy(), voiced.numpy(), frames_per_second),
    )


def _melody(keys: Tensor, voiced: Tensor) -> Melody:
    classes = (keys - 69) % 12  # 0 is A
    chroma = torch.nn.functional.one_hot(classes, 12) * voiced[:, None]
    parts = classes, voiced.float(), voiced, chroma.float()
    return Melody(*(part[None] for part in parts))


def _notes(keys: np.ndarray, voiced: np.ndarray, frames_per_second: float) -> np.ndarray:
    """Runs of frames with one pitch, [N, 3]: onset and offset in seconds, MIDI pitch."""
    pitches = np.where(voiced, keys, math.nan)
    changes = [i for i in range(1, len(pitches)) if pitches[i] != pitches[i - 1]]
    notes = []
    for start, end in zip([0, *changes], [*changes, len(pitches)], strict=True):
        onset, offset = start / frames_per_second, end / frames_per_second
        if offset - onset >= SHORTEST_NOTE and voiced[start]:
            notes.append((onset, offset, pitches[start]))
    return np.array(notes, float).reshape(-1, 3)
