"""Recording between the two halves of a bridge."""

from dataclasses import dataclass

from torch import Tensor

from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import Window


@dataclass(frozen=True, eq=False)
class Encoded:
    """Recording as noise at the hand-off sigma.

    Args:
        noise: [N, D, L], one row for each window and channel.
        latents: [N, D, L] codec latents, for levels and for the noise in pauses.
        windows: N windows without their sound.
        channels: channels of the recording.
        length: length of the recording in samples.
        sample_rate: rate of the recording in Hz.
        survey: level and tuning of the recording.
        sigma: hand-off noise level.
        melody: [N, M + 1, L] pitch posteriors, see `drop_unpitched`; None: the bridge that encoded
            the recording used no melody, and the bridge that decodes the noise uses none.
    """

    noise: Tensor
    latents: Tensor
    windows: list[Window]
    channels: int
    length: int
    sample_rate: int
    survey: RecordingStats
    sigma: float
    melody: Tensor | None = None
