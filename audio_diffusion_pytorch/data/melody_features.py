"""Latents of a codec with the melody below them, in one tensor of features."""

from __future__ import annotations

import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS, melody_input
from audio_diffusion_pytorch.utils.hashing import fingerprint

_VERSION = 2  # raise it when `melody_input` computes other values


class MelodyFeatures(Codec):
    """Encode waveforms to features [B, D + M, L]: the latents of a codec, then the melody.

    The latent cache and the latent statistics accept this class as a codec. `decode` ignores the
    melody.

    Args:
        codec: codec of the latents.
    """

    def __init__(self, codec: Codec):
        super().__init__()
        self.codec = codec
        self.name = f"{codec.name}+melody"
        self.sample_rate = codec.sample_rate
        self.hop_length = codec.hop_length
        self.latent_channels = codec.latent_channels + MELODY_CHANNELS
        self.edge_frames = codec.edge_frames

    def encode(self, wav: Tensor) -> Tensor:
        """Encode wav [B, 1, T] to features [B, D + M, ceil(T / hop_length)]."""
        latents = self.codec.encode(wav)
        melody = melody_input(wav[:, 0], self.sample_rate, self.hop_length)
        return torch.cat([latents, melody.to(latents.dtype)], dim=1)

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """Decode the first D channels of features [B, D + M, L]."""
        return self.codec.decode(latents[:, : self.codec.latent_channels], length)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that depend on the codec and on this class's version."""
        return fingerprint(self.codec.fingerprint(), "melody", MELODY_CHANNELS, _VERSION)
