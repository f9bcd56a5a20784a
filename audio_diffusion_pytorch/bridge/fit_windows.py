"""Windows of recordings on their way through a bridge, for the fit of solvers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import info as read_info
from audio_diffusion_pytorch.audio import read, to_mono
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.schedules import Schedules
from audio_diffusion_pytorch.bridge.windows import Window, WindowCutter
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentSpec, pitch_range
from audio_diffusion_pytorch.pitch.octaves import first_sound, octaves_for, pitches_of

PLAYED = 0.5  # least share of played sound in a window of the fit


@dataclass(frozen=True, eq=False)
class Recording:
    """Recording of a source, analysed once for all bridges.

    Args:
        wav: [C, T] in [-1, 1].
        sample_rate: in Hz.
    """

    wav: Tensor
    sample_rate: int

    @cached_property
    def audible(self) -> Tensor:
        """The average of the channels without inaudible frequencies [1, T]."""
        return torch.cat(list(audible([to_mono(self.wav)], self.sample_rate)), -1)

    @cached_property
    def stats(self) -> RecordingStats:
        """Level and tuning."""
        return RecordingStats.of_audible([self.audible], self.sample_rate)

    @cached_property
    def _pitches(self) -> list[float]:
        sound = first_sound([self.audible], self.sample_rate, mid=True)
        return [] if sound is None else pitches_of(sound, self.sample_rate)

    def octaves_into(self, spec: InstrumentSpec) -> int:
        """Return the octaves by which a bridge moves the recording to this target."""
        limits = pitch_range(spec)
        return 0 if limits is None else octaves_for(self._pitches, *limits)


def read_recordings(files: Sequence[Path], count: int, seconds: float) -> list[Recording]:
    """Read the beginnings of recordings, spread over the files of an instrument.

    Args:
        files: the files.
        count: most recordings.
        seconds: most seconds of a recording.

    Raises:
        InputError: a file cannot be read.
    """
    recordings = []
    for file in files[:: -(-len(files) // count)]:
        info = read_info(file)
        frames = min(info.frames, round(seconds * info.sample_rate))
        recordings.append(Recording(*read(file, 0, frames)))
    return recordings


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a source's recordings on the way to a target.

    Args:
        pair: source and target, in single precision.
        latents: codec latents of the source [N, D, L].
        played: weight of the played sound in each frame [N, L].
        melody: output of `ModelPair.with_melody` [N, M + 1, L]; None: without melody.
    """

    pair: ModelPair
    latents: Tensor
    played: Tensor
    melody: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of windows N."""
        return len(self.latents)

    def noise(self, sigmas: Tensor) -> Tensor:
        """Map the latents to noise over falling levels; prepare it for the target: [N, D, L]."""
        return self.hand_over(_at_levels(self.pair, sigmas).to_noise(self.latents, self.melody))

    def hand_over(self, noise: Tensor) -> Tensor:
        """Prepare noise of the source for the target: [N, D, L]."""
        return self.pair.hand_over(noise, self.played)

    def result(self, noise: Tensor, sigmas: Tensor) -> Tensor:
        """Map the output of `noise` to normalised latents of the target over falling levels."""
        exact = _at_levels(self.pair, sigmas)
        return self.pair.target.normalise(exact.from_noise(noise, self.melody))


def cut_windows(
    pair: ModelPair, recordings: Iterable[Recording], count: int
) -> tuple[Windows, Windows]:
    """Cut played windows from recordings of the source, as a bridge does.

    Args:
        pair: source and target.
        recordings: recordings of the source instrument.
        count: most windows of each result.

    Returns:
        Windows for a fit and windows for its check, of different recordings if there are several.

    Raises:
        InputError: the recordings contain too few windows with played sound.
    """
    cut = [found for recording in recordings if (found := played_windows(pair, recording))]
    if len(cut) == 1:  # neighbours overlap by a quarter
        middle = -(-len(cut[0]) // 2)
        cut = [cut[0][:middle], cut[0][middle:]]
    if len(cut) < 2 or not cut[1]:
        raise InputError(
            f"too few recordings of {pair.source.spec.name}: the fit needs two recordings or more, "
            f"each with {pair.framing.seconds:.1f} s of sound; choose another folder with --data"
        )
    halves = [_spread(cut[start::2], count) for start in (0, 1)]
    return encode_windows(pair, halves[0]), encode_windows(pair, halves[1])


def _at_levels(pair: ModelPair, sigmas: Tensor) -> ModelPair:
    """Return a pair with falling levels in both halves that shares the models."""
    other = copy.copy(pair)
    other.schedules = Schedules(sigmas.flip(0), sigmas)
    return other


def played_windows(pair: ModelPair, recording: Recording) -> list[Window]:
    """Cut the windows of a recording, in the target's register, in which sound is played.

    Args:
        pair: source and target.
        recording: recording of the source instrument.
    """
    octaves = recording.octaves_into(pair.target.spec)
    cutter = WindowCutter(pair.framing, recording.sample_rate, 1, recording.stats, octaves)
    windows = cutter.windows([recording.audible])
    return [window for window in windows if window.played.mean() > PLAYED]


def _spread(recordings: Sequence[Sequence[Window]], count: int) -> list[Window]:
    """Choose windows spread over recordings, and over the time of each."""
    each = -(-count // len(recordings))
    chosen = [
        recording[index]
        for recording in recordings
        for index in np.unique(np.linspace(0, len(recording) - 1, each + 2).round().astype(int))
    ]
    kept = np.unique(np.linspace(0, len(chosen) - 1, count).astype(int))
    return [chosen[index] for index in kept]


@torch.inference_mode()
def encode_windows(pair: ModelPair, windows: Sequence[Window]) -> Windows:
    """Encode windows as a bridge does, without vibrato and with the melody of the unmoved sound.

    Args:
        pair: source and target.
        windows: windows of the source's recordings.
    """
    windows, melody = pair.with_melody(windows)
    played = torch.stack([window.played for window in windows]).to(pair.device)
    return Windows(pair, pair.encode_windows(windows), played, melody)
