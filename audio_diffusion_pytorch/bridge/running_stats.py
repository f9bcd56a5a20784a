"""Level, noise and tuning of a stream, measured while it passes, in bounded memory."""

from collections import deque

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import active_level, pause_noise
from audio_diffusion_pytorch.bridge.inputs import FIRST_SOUND
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.pitch.tuning import TuningMeter

_BLOCKS = 20  # per second
_SECONDS = 20.0  # that determine level and noise; the level counts seconds with sound only
_TUNED = 1.5  # seconds of sound before the first correction of the tuning, and between corrections


class RunningStats:
    """Measure the level, the noise and the tuning of a stream.

    Args:
        sample_rate: in Hz.
        survey: statistics of the stream if they are known; they then stay constant.
    """

    def __init__(self, sample_rate: int, survey: RecordingStats | None = None):
        self._sample_rate = sample_rate
        self._survey = survey
        self._block = max(1, sample_rate // _BLOCKS)
        self._rest: Tensor | None = None
        size = round(_SECONDS * _BLOCKS)
        self._loud: deque[float] = deque(maxlen=size)
        self._all: deque[float] = deque(maxlen=size)
        self._tuning = TuningMeter(sample_rate)
        self._since = 0  # blocks with sound since the tuning was read
        self._cents = 0.0

    def update(self, wav: Tensor) -> None:
        """Add the next samples [C, n]."""
        if self._survey is not None:
            return
        wav = wav if self._rest is None else torch.cat([self._rest, wav], -1)
        whole = wav.shape[-1] // self._block * self._block
        self._rest = wav[:, whole:].clone()
        if not whole:
            return
        wav = wav[:, :whole]
        blocks = wav.unflatten(-1, (-1, self._block))
        powers = blocks.double().square().mean((0, 2)).tolist()
        peaks = blocks.abs().amax((0, 2)).tolist()
        loud = [p for p, peak in zip(powers, peaks, strict=True) if peak > FIRST_SOUND]
        self._all.extend(powers)
        self._loud.extend(loud)
        if loud:
            self._tuning.update(wav)
            self._since += len(loud)
        if self._since >= _TUNED * _BLOCKS:
            self._since = 0
            self._cents = self._tuning.cents

    @property
    def now(self) -> RecordingStats:
        """Statistics so far; a level of 0 before the first sound above `FIRST_SOUND`."""
        if self._survey is not None:
            return self._survey
        level = active_level(torch.tensor(self._loud, dtype=torch.float64))
        noise = pause_noise(torch.tensor(self._all, dtype=torch.float64), level)
        return RecordingStats(level, self._cents, noise)

    @property
    def tuned_rate(self) -> float:
        """Rate in Hz at which the stream's samples are tuned to A = 440 Hz."""
        cents = self._cents if self._survey is None else self._survey.cents
        return RecordingStats(0.0, cents).tuned_rate(self._sample_rate)
