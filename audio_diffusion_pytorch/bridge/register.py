"""The octaves that bring a recording into the range of a target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.models.instrument import InstrumentSpec
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import first_sound, octaves_for, pitches_of


def octaves_into_range(blocks: Iterable[Tensor], sample_rate: int, spec: InstrumentSpec) -> int:
    """Octaves that bring the first minute of a recording into the range of a model's instrument.

    0 where it lies there, where it has no clear pitch, and where the range is not known.

    Args:
        blocks: [C, n] at sample_rate Hz.
    """
    limits = pitch_range(spec)
    if limits is None:
        return 0
    wav = first_sound(blocks, sample_rate, mid=True)
    return 0 if wav is None else octaves_for(pitches_of(wav, sample_rate), *limits)
