"""Decode a stream hop by hop: the sound of each hop continues the sound before."""

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.framing import Framing
from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes
from audio_diffusion_pytorch.bridge.overlap_add import continued
from audio_diffusion_pytorch.bridge.pauses import QuietFollower

_MOST = 16.0  # highest power by which the output's level is corrected, up or down
FEATURES = 4  # rows below the latents: active, power, broken, gain


class HopDecoder:
    """Decode the rows of a stream's hops.

    Args:
        framing: codec and device.
        sizes: sizes of the hops.
        channels: channels of the stream.
    """

    def __init__(self, framing: Framing, sizes: HopSizes, channels: int):
        self._codec = framing.codec
        self._device = framing.device
        self._sizes = sizes
        self._follower = QuietFollower(0.0)
        rows = framing.codec.latent_channels + FEATURES
        hop = framing.codec.hop_length
        self._past_rows = torch.zeros(channels, rows, sizes.decoder_context)
        self._past = torch.zeros(channels, sizes.decoder_context * hop)
        self._next = torch.zeros(channels, hop)  # of the block before, beyond its end
        self._gain = torch.zeros(channels, 1)  # of the frame before
        self._correction: Tensor | None = None

    def decode(self, rows: Tensor, level: float) -> Tensor:
        """Decode the next hop.

        Args:
            rows: [C, D + 4, hop + decoder_ahead] latents, then the features active, power, broken,
                and the gain that the input received.
            level: RMS of the input's active parts at the source model's level.

        Returns:
            [C, samples] of the hop at the codec's rate, at the input's level.
        """
        sizes = self._sizes
        block = torch.cat([self._past_rows, rows], -1)
        new = slice(sizes.decoder_context, sizes.decoder_context + sizes.hop)
        self._past_rows = block[..., sizes.hop : new.stop].clone()
        wav = self._sound(block, new)
        active, power, broken, gain = block[:, -FEATURES:].unbind(1)
        self._follower.level = level
        follow = self._follower.gains(wav, power, broken, new)
        hop = self._codec.hop_length
        wav = wav[:, new.start * hop : new.stop * hop]
        return wav * self._ramp((follow * active / gain)[:, new] * self._settle())

    def _settle(self) -> Tensor:
        """Return the gain [C, hop] of each frame that brings the output to the input's level."""
        correction = self._follower.ratio.clamp(1 / _MOST, _MOST) ** -0.5
        before = correction if self._correction is None else self._correction
        self._correction = correction
        share = torch.arange(1, self._sizes.hop + 1) / self._sizes.hop
        return torch.lerp(before, correction, share)

    def _ramp(self, gains: Tensor) -> Tensor:
        """Interpolate gains of frames [C, hop] to samples, from the gain of the frame before."""
        before = torch.cat([self._gain, gains[:, :-1]], -1)
        self._gain = gains[:, -1:].clone()
        share = torch.arange(1, self._codec.hop_length + 1) / self._codec.hop_length
        return torch.lerp(before[..., None], gains[..., None], share).flatten(1)

    def _sound(self, block: Tensor, new: slice) -> Tensor:
        """Decode a block [C, D + 4, L] to [C, L * hop], joined to the sound before."""
        hop = self._codec.hop_length
        begin, end = new.start * hop, new.stop * hop
        if block[:, -FEATURES, new].any():
            latents = block[:, :-FEATURES].to(self._device)
            past = self._past[:, None].to(self._device)
            wav = self._codec.decode_after(latents, past)[:, 0].cpu()
        else:  # silence
            wav = torch.zeros(len(block), block.shape[-1] * hop)
        wav = continued(self._past, self._next, wav)
        self._next = wav[:, end : end + hop].clone()
        self._past = wav[:, end - begin : end].clone()
        return wav
