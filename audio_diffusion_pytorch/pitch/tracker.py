"""Melody tracking: note posteriors of Basic Pitch (Bittner et al. 2022), folded into one octave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from basic_pitch_torch import SAMPLE_RATE, BasicPitch
from basic_pitch_torch.model import HOP, OVERLAP_FRAMES, WINDOW, Head
from torch import Tensor

from audio_diffusion_pytorch.audio import resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.devices import exact_device

Mode = Literal["paper", "correct"]

PITCH_CLASSES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")
# The authors pass audio at this rate to a model of 22.05 kHz: all pitches are 1.47 semitones sharp.
PAPER_RATE = 24000
VOICED = 0.3  # lowest note posterior of a voiced frame: the official threshold


@dataclass(frozen=True)
class Melody:
    """The strongest pitch class of each frame.

    Attributes:
        classes: indices into PITCH_CLASSES [B, F], int64.
        strength: posteriors of the classes [B, F].
        voiced: strength >= VOICED [B, F].
        chroma: posteriors of all classes [B, F, 12].
    """

    classes: Tensor
    strength: Tensor
    voiced: Tensor
    chroma: Tensor


@lru_cache(maxsize=4)
def _tracker(device: torch.device) -> BasicPitch:
    """Load the model, once for each device."""
    return BasicPitch.load(device)


def fold_octaves(note: Tensor) -> Tensor:
    """Fold note posteriors [B, F, 88] from A0 upwards to pitch classes [B, F, 12] by maximum."""
    octaves = -(-note.shape[-1] // 12)
    # Posteriors are positive, so the padding never is the maximum.
    padded = F.pad(note, (0, octaves * 12 - note.shape[-1]))
    return padded.unflatten(-1, (octaves, 12)).amax(dim=-2)


def median_over_time(classes: Tensor, frames: int) -> Tensor:
    """Apply a running median to each clip, with mirrored edges.

    Args:
        classes: [B, F].
        frames: odd length of the window; 0 or 1: no smoothing.

    Raises:
        InputError: the number of frames is even or negative.
    """
    if frames < 0 or (frames > 1 and frames % 2 == 0):
        raise InputError(
            f"the median window must be an odd number of frames, or 0 for none; got {frames}"
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
    """Track the melody of each clip, on the device of wav.

    Args:
        wav: mono clips [B, T].
        sample_rate: sample rate in Hz.
        mode: "correct" resamples to the 22.05 kHz of the model and uses the official 2-second
            windows (F = floor(86 * seconds)); "paper" reproduces the authors (Mancusi et al. 2025):
            audio at 24 kHz is interpreted as 22.05 kHz, in one piece (F = 1 + T // 256).
        median_frames: odd length of a median filter over the classes; 0: none.

    Raises:
        InputError: the mode is unknown, or the audio is empty, not [B, T] or not finite.
    """
    check_clips(wav, sample_rate)
    wav = wav.to(exact_device(wav.device))
    if mode not in ("correct", "paper"):
        raise InputError(f'mode must be "paper" or "correct"; got {mode!r}')
    if mode == "correct":
        return melody_of(note_posteriors(wav, sample_rate), median_frames)
    wav = resample(wav.float(), sample_rate, PAPER_RATE)
    return melody_of(_tracker(wav.device)(wav, until="note")["note"], median_frames)


@torch.no_grad()
def posteriors(wav: Tensor, sample_rate: int) -> dict[str, Tensor]:
    """Run Basic Pitch over 2-second windows, on the device of wav.

    Args:
        wav: mono clips [B, T].
        sample_rate: sample rate in Hz.

    Returns:
        Posteriors `onset` and `note` [B, F, 88] and `contour` [B, F, 264]; times of the frames:
        `frame_seconds`.
    """
    return _predict(wav, sample_rate, "onset")


@torch.no_grad()
def note_posteriors(wav: Tensor, sample_rate: int) -> Tensor:
    """Return the posteriors `note` [B, F, 88] of `posteriors`, without the work for the others."""
    return _predict(wav, sample_rate, "note")["note"]


def _predict(wav: Tensor, sample_rate: int, until: Head) -> dict[str, Tensor]:
    wav = wav.to(exact_device(wav.device))
    wav = resample(wav.float(), sample_rate, SAMPLE_RATE)
    return _tracker(wav.device).predict(wav, until=until)


def melody_of(note: Tensor, median_frames: int = 0) -> Melody:
    """Derive the melody from note posteriors [B, F, 88]; `median_frames` as in `track_melody`."""
    chroma = fold_octaves(note)
    strength, classes = chroma.max(dim=-1)
    return Melody(median_over_time(classes, median_frames), strength, strength >= VOICED, chroma)


def frame_seconds(count: int) -> np.ndarray:
    """Return the times in seconds [count] of the frames of `posteriors`.

    `posteriors` keeps 142 frames of each window, 256 samples apart. Windows start 36164 samples
    apart, so the last frame of a window is up to 7 ms later than the first frame of the next.
    """
    frame = np.arange(count)
    step = WINDOW - OVERLAP_FRAMES * HOP
    kept = 1 + WINDOW // HOP - OVERLAP_FRAMES
    return (frame // kept * step + frame % kept * HOP) / SAMPLE_RATE


def check_clips(wav: Tensor, sample_rate: int, name: str = "audio") -> None:
    """Validate clips for melody tracking.

    Args:
        wav: mono clips [B, T].
        sample_rate: sample rate in Hz.
        name: name of the clips in messages.

    Raises:
        InputError: wav is not [B, T], is empty or not finite, or the sample rate is not a positive
            integer.
    """
    if wav.ndim != 2:
        raise InputError(
            f"{name}: expected mono clips [batch, samples], got shape {tuple(wav.shape)}"
        )
    if wav.numel() == 0:
        raise InputError(f"{name}: no samples, shape {tuple(wav.shape)}")
    if not wav.is_floating_point() or not torch.isfinite(wav).all():
        raise InputError(
            f"{name}: expected finite floating-point samples, got {wav.dtype} with NaN or infinite "
            "values"
        )
    if not isinstance(sample_rate, int) or sample_rate <= 0:
        raise InputError(f"the sample rate must be a positive integer, got {sample_rate!r}")
