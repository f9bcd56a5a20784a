"""Level, tuning and noise of a recording, measured before its first window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from audio_diffusion_pytorch.audio import HighPass, LevelMeter
from audio_diffusion_pytorch.pitch.tuning import TuningMeter

SILENCE = 1e-5  # peak below which all sound is silence
QUIET = 5e-4  # peak relative to a recording's level (-66 dB) below which sound is silence


def audible(blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
    """Remove inaudible frequencies from a recording, see `HighPass`.

    Args:
        blocks: [C, n].
        sample_rate: in Hz.

    Yields:
        [C, m], with the same number of samples in total.
    """
    high_pass = None
    for block in blocks:
        high_pass = high_pass or HighPass(sample_rate)
        if (part := high_pass(block)).shape[-1]:
            yield part
    if high_pass is not None:
        yield high_pass(block[:, :0], last=True)


@dataclass(frozen=True)
class RecordingStats:
    """Statistics of a whole recording that each of its windows needs.

    Args:
        level: RMS of the active parts.
        cents: deviation of the tuning from A = 440 Hz.
        noise: RMS of the background noise in the pauses.
    """

    level: float
    cents: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, blocks: Iterable[Tensor], sample_rate: int) -> "RecordingStats":
        """Measure a recording in blocks [C, n] at `sample_rate` Hz."""
        return cls.of_audible(audible(blocks, sample_rate), sample_rate)

    @classmethod
    def of_audible(cls, blocks: Iterable[Tensor], sample_rate: int) -> "RecordingStats":
        """Measure a recording whose blocks [C, n] are high-passed by `audible`."""
        level = LevelMeter(sample_rate)
        tuning = TuningMeter(sample_rate)
        for block in blocks:
            level.update(block)
            tuning.update(block)
        return cls(level.rms, tuning.cents, level.noise)

    def tuned_rate(self, sample_rate: int) -> float:
        """Return the rate in Hz at which the recording's samples are tuned to A = 440 Hz."""
        return sample_rate * 2 ** (-self.cents / 1200) if self.cents else sample_rate
