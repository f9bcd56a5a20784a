"""Level, tuning and offset of a recording."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from audio_diffusion_pytorch.audio import HighPass, LevelMeter
from audio_diffusion_pytorch.pitch.tuning import TuningMeter

if TYPE_CHECKING:
    pass


SILENCE = 1e-5  # peak below which everything is silence
QUIET = 5e-4  # ... and below which it is silence beside a recording's level: -66 dB


def audible(blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
    """Blocks [C, n] of a recording -> blocks [C, m] of it without what lies below hearing, see `HighPass`."""
    high_pass = block = None
    for block in blocks:
        high_pass = high_pass or HighPass(sample_rate)
        if (part := high_pass(block)).shape[-1]:
            yield part
    if block is not None:
        yield high_pass(block[:, :0], last=True)


@dataclass(frozen=True)
class RecordingStats:
    """What must be known of a recording before its first window.

    Args:
        level: RMS of its sounding parts.
        cents: how far its tuning lies from A = 440 Hz.
        noise: RMS of what its pauses are filled with.
    """

    level: float
    cents: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, blocks: Iterable[Tensor], sample_rate: int) -> "RecordingStats":
        """Of a recording in blocks [C, n], at sample_rate Hz."""
        return cls.of_audible(audible(blocks, sample_rate), sample_rate)

    @classmethod
    def of_audible(cls, blocks: Iterable[Tensor], sample_rate: int) -> "RecordingStats":
        """`of` of what `audible` gives."""
        level, tuning = LevelMeter(sample_rate), TuningMeter(sample_rate)
        for block in blocks:
            level.update(block)
            tuning.update(block)
        return cls(level.rms, tuning.cents, level.noise)
