"""How a bridge divides sound into windows."""

from dataclasses import dataclass

import torch

from audio_diffusion_pytorch.bridge.recording_stats import SILENCE
from audio_diffusion_pytorch.codecs.base import Codec


def window_starts(frames: int, window: int, hop: int) -> list[int]:
    """Return the first frame of each window over `frames` frames; the last window ends flush."""
    last = max(frames - window, 0)
    return [*range(0, last, hop), last]


@dataclass(frozen=True)
class Framing:
    """Codec, window size and level that cutting and joining need of a bridge.

    Args:
        codec: codec of both models.
        window: length of a window in latent frames.
        hop: latent frames from the start of a window to the start of the next.
        level_db: training level of the source model, an RMS in dB of full scale; None: unknown.
        device: device of the models and the codec.
    """

    codec: Codec
    window: int
    hop: int
    level_db: float | None
    device: torch.device

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.window * self.codec.hop_length / self.codec.sample_rate

    def gain(self, level: float) -> float:
        """Return the gain from a recording's RMS `level` to the source model's training level."""
        if self.level_db is None or level < SILENCE:
            return 1.0
        return 10 ** (self.level_db / 20) / level

    def num_frames(self, length: int, sample_rate: float) -> int:
        """Return the latent frames of `length` samples at `sample_rate` Hz."""
        return self.codec.num_frames(int(-(-length * self.codec.sample_rate // sample_rate)))

    def num_windows(self, length: int, sample_rate: float) -> int:
        """Return the windows of `length` samples at `sample_rate` Hz, per channel."""
        return len(window_starts(self.num_frames(length, sample_rate), self.window, self.hop))
