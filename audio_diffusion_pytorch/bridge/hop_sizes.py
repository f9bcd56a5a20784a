"""Sizes of a stream with low latency: hop, context and look-ahead in latent frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.bridge.windows import EDGE
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_number

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.framing import Framing

FADE = 4  # frames of the cross-fade from one window to the next
_DECODER_CONTEXT = 24  # frames before a hop that the decoder receives again
_CONTEXT = 80  # frames before a hop that the networks receive: about a second
_LOOK_AHEAD = 0.3  # share of the delay
_MOST_AHEAD = 64  # frames
_LEAST_AHEAD = EDGE + FADE
_SLACK = 0.04  # seconds: parts of 10 ms, kernels of the resamplers, retuning by up to 50 cents


@dataclass(frozen=True)
class HopSizes:
    """Sizes in latent frames. Each window is [context | hop | look-ahead].

    Args:
        window: frames that pass through the networks at once.
        hop: frames that a window adds to the output.
        look_ahead: frames of a window after its hop.
        seconds: length of a frame.
    """

    window: int
    hop: int
    look_ahead: int
    seconds: float

    @classmethod
    def for_latency(cls, latency: float, framing: Framing, factor: int) -> HopSizes:
        """Choose the sizes of a stream by its delay.

        Args:
            latency: largest delay from sound in to sound out, in seconds.
            framing: codec, and the window of the models.
            factor: frames of which a window holds a whole number.

        Raises:
            InputError: the delay is too short for the codec.
        """
        check_number("latency", latency, above=0)
        seconds = framing.codec.hop_length / framing.codec.sample_rate
        frames = int((latency - _SLACK) / seconds)
        look_ahead = min(round(_LOOK_AHEAD * frames), _MOST_AHEAD, framing.window // 4)
        hop = min((frames - look_ahead) // 2, framing.window // 2)
        if look_ahead < _LEAST_AHEAD or hop < FADE:
            least = cls.least_latency(framing)
            raise InputError(f"latency={latency:g} must be at least {least:.2f} s")
        window = -(-(_CONTEXT + hop + look_ahead) // factor) * factor
        return cls(min(window, framing.window), hop, look_ahead, seconds)

    @staticmethod
    def least_latency(framing: Framing) -> float:
        """Return a delay in seconds that is long enough for a codec."""
        seconds = framing.codec.hop_length / framing.codec.sample_rate
        return (round(_LEAST_AHEAD / _LOOK_AHEAD) + 1) * seconds + _SLACK

    @property
    def context(self) -> int:
        """Frames of a window before its hop."""
        return self.window - self.hop - self.look_ahead

    @property
    def decoder_context(self) -> int:
        """Frames before a hop that the decoder receives again."""
        return min(_DECODER_CONTEXT, self.context)

    @property
    def decoder_ahead(self) -> int:
        """Frames after a hop that the decoder receives; those at the window's edge lack context."""
        return self.look_ahead - EDGE

    @property
    def hop_seconds(self) -> float:
        """Length of a hop, in which it must be computed."""
        return self.hop * self.seconds

    @property
    def lag_seconds(self) -> float:
        """Delay of the output's samples behind the input's, without the time of computing."""
        return (self.hop + self.look_ahead) * self.seconds + _SLACK

    @property
    def latency_seconds(self) -> float:
        """Delay from sound in to sound out: the lag, and one hop during which it is computed."""
        return self.lag_seconds + self.hop_seconds
