"""A recording between the two halves of a bridge."""

from dataclasses import dataclass

from torch import Tensor

from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import Window


@dataclass(frozen=True, eq=False)
class Encoded:
    """A recording as noise.

    Args:
        noise: [N, D, L] for each window and channel.
        latents: [N, D, L] of the codec, for what is kept: levels, and noise in pauses.
        windows: [N] what each is of, without its sound.
        channels, length: of the recording, in samples.
        sample_rate: of the recording, in Hz.
        survey: its level and tuning.
        sigma: hand-off noise level.
    """

    noise: Tensor
    latents: Tensor
    windows: list[Window]
    channels: int
    length: int
    sample_rate: int
    survey: RecordingStats
    sigma: float
