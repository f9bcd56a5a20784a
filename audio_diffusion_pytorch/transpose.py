"""Moving a melody by whole octaves into the range of another instrument, at its own tempo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.instrument import InstrumentSpec

# Lowest and highest sounding MIDI pitch of each instrument, as in the rendered data.
PITCH_RANGES = {
    "violin": (55, 93),
    "viola": (48, 81),
    "cello": (36, 74),
    "double bass": (28, 60),
    "flute": (60, 93),
    "oboe": (58, 88),
    "clarinet": (50, 86),
    "bassoon": (34, 70),
    "saxophone": (49, 81),
    "trumpet": (54, 82),
    "horn": (41, 77),
    "trombone": (40, 72),
    "tuba": (28, 60),
}
STRAYS = 0.02  # share of the notes that may lie outside a range
FARTHEST = 5  # octaves


def pitch_range(spec: InstrumentSpec) -> tuple[int, int] | None:
    """Lowest and highest MIDI pitch of a model's instrument: its own, else the one known for the name; or None."""
    if spec.pitch_range is not None:
        low, high = spec.pitch_range
        return low, high
    return PITCH_RANGES.get(spec.name.replace("_", " "))


def nearest_octaves(pitches: Sequence[float], low: float, high: float) -> tuple[int, float]:
    """Octaves that bring a part into a range, nearest its middle, and the share of the notes still outside.

    Args:
        pitches: MIDI numbers, one or more.
        low, high: the range, both included.
    """
    mean = sum(pitches) / len(pitches)

    def cost(octaves: int) -> tuple[int, float]:
        outside = sum(not low <= pitch + 12 * octaves <= high for pitch in pitches)
        return outside, abs(mean + 12 * octaves - (low + high) / 2)

    best = min(range(-FARTHEST, FARTHEST + 1), key=cost)
    return best, cost(best)[0] / len(pitches)


def octaves_for(pitches: Sequence[float], low: float, high: float) -> int:
    """Octaves by which a melody is moved for an instrument: 0 where it lies in the range, else `nearest_octaves`.

    Up to 2 % of the notes may lie outside. No pitches: 0.
    """
    outside = sum(not low <= pitch <= high for pitch in pitches)
    return 0 if outside <= STRAYS * len(pitches) else nearest_octaves(pitches, low, high)[0]


def shift_octaves(wav: Tensor, octaves: int, sample_rate: int) -> Tensor:
    """wav [C, T] moved by whole octaves, duration kept (a phase vocoder); the peak stays at or below 1."""
    if octaves == 0:
        return wav
    import torch

    from audio_diffusion_pytorch.pitch_shift import shift_pitch

    out = torch.from_numpy(shift_pitch(wav.cpu().numpy(), 12 * octaves, sample_rate)).to(wav.device)
    return out / max(1.0, float(out.abs().max()))
