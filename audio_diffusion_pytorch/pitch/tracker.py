"""Which pitch class sounds when: Basic Pitch's note posteriors, folded into one octave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from basic_pitch_torch import SAMPLE_RATE, BasicPitch
from basic_pitch_torch.model import HOP, OVERLAP_FRAMES, WINDOW
from torch import Tensor

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.devices import exact_device

Mode = Literal["paper", "correct"]

PITCH_CLASSES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")
PAPER_RATE = (
    24000  # what the authors feed to a model of 22.05 kHz: everything reads 1.47 semitones sharp
)
VOICED = (
    0.3  # a frame has a pitch where a note's posterior reaches this (the official note threshold)
)


@dataclass(frozen=True)
class Melody:
    """The strongest pitch class of every frame.

    classes [B, F] int64, index into PITCH_CLASSES; strength [B, F], its posterior; voiced [B, F], strength >= VOICED;
    chroma [B, F, 12], the posteriors that they were chosen from.
    """

    classes: Tensor
    strength: Tensor
    voiced: Tensor
    chroma: Tensor


@lru_cache(maxsize=4)
def _tracker(device: torch.device) -> BasicPitch:
    """The model, loaded once per device."""
    return BasicPitch.load(device)


def fold_octaves(note: Tensor) -> Tensor:
    """Note posteriors [B, F, 88] from A0 upwards -> pitch-class posteriors [B, F, 12], the maximum over octaves."""
    octaves = -(-note.shape[-1] // 12)
    padded = F.pad(
        note, (0, octaves * 12 - note.shape[-1])
    )  # posteriors are positive, so zeros never win
    return padded.unflatten(-1, (octaves, 12)).amax(dim=-2)


def median_over_time(classes: Tensor, frames: int) -> Tensor:
    """Running median of [B, F] over `frames` (odd) frames of each clip on its own; the edges are mirrored.

    0 and 1 change nothing.

    Raises:
        InputError: an even or negative number of frames.
    """
    if frames < 0 or (frames > 1 and frames % 2 == 0):
        raise InputError(
            f"the median window is an odd number of frames, or 0 for none; got {frames}"
        )
    length = classes.shape[-1]
    if frames <= 1 or length == 0:
        return classes
    index = torch.arange(-(frames // 2), length + frames // 2, device=classes.device) % (2 * length)
    index = torch.minimum(index, 2 * length - 1 - index)  # ... 1 0 | 0 1 2 ... F-1 | F-1 F-2 ...
    return classes[:, index].unfold(-1, frames, 1).median(dim=-1).values


@torch.no_grad()
def track_melody(
    wav: Tensor, sample_rate: int, mode: Mode = "correct", median_frames: int = 0
) -> Melody:
    """The melody of every clip; the model runs where wav is.

    wav [B, T] mono at sample_rate. `correct` resamples to the model's 22.05 kHz and runs the official 2-second windows
    (F = floor(86 * seconds)). `paper` does as the authors do: 24 kHz audio is fed as if it were 22.05 kHz, in one piece
    (F = 1 + T // 256). `median_frames` smooths the classes over time.

    Raises:
        InputError: an unknown mode, or audio that is empty, not [B, T] or not finite.
    """
    check_clips(wav, sample_rate)
    wav = wav.to(exact_device(wav.device))
    if mode not in ("correct", "paper"):
        raise InputError(f'the mode is "paper" or "correct"; got {mode!r}')
    if mode == "correct":
        return melody_of(posteriors(wav, sample_rate)["note"], median_frames)
    return melody_of(
        _tracker(wav.device)(resample(wav.float(), sample_rate, PAPER_RATE))["note"], median_frames
    )


@torch.no_grad()
def posteriors(wav: Tensor, sample_rate: int) -> dict[str, Tensor]:
    """wav [B, T] mono -> Basic Pitch's `onset` and `note` [B, F, 88] and `contour` [B, F, 264], in 2-second windows.

    Frame times: `frame_seconds`. The model runs where wav is (`exact_device`).
    """
    wav = wav.to(exact_device(wav.device))
    return _tracker(wav.device).predict(resample(wav.float(), sample_rate, SAMPLE_RATE))


def melody_of(note: Tensor, median_frames: int = 0) -> Melody:
    """The melody in note posteriors [B, F, 88]; `median_frames` as in `track_melody`."""
    chroma = fold_octaves(note)
    strength, classes = chroma.max(dim=-1)
    return Melody(median_over_time(classes, median_frames), strength, strength >= VOICED, chroma)


def frame_seconds(count: int) -> np.ndarray:
    """Times [count] in seconds of the frames of `posteriors`, which keeps 142 frames 256 samples apart of each window.

    The windows begin 36164 samples apart, so a frame at the end of one lies up to 7 ms after the next one's first.
    """
    frame = np.arange(count)
    step, kept = WINDOW - OVERLAP_FRAMES * HOP, 1 + WINDOW // HOP - OVERLAP_FRAMES
    return (frame // kept * step + frame % kept * HOP) / SAMPLE_RATE


def check_clips(wav: Tensor, sample_rate: int, name: str = "audio") -> None:
    """Refuse what has no melody to look for.

    Raises:
        InputError: wav is not [B, T], holds no samples, or samples that are not finite; an impossible sample rate.
    """
    if wav.ndim != 2:
        raise InputError(
            f"{name}: expected mono clips [batch, samples], got shape {tuple(wav.shape)}"
        )
    if wav.numel() == 0:
        raise InputError(f"{name}: no samples, shape {tuple(wav.shape)}")
    if not wav.is_floating_point() or not torch.isfinite(wav).all():
        raise InputError(
            f"{name}: expected finite floating-point samples, got {wav.dtype} with NaN or infinite values"
        )
    if not isinstance(sample_rate, int) or sample_rate <= 0:
        raise InputError(f"a sample rate is a positive integer, got {sample_rate!r}")
