"""Codecs: wav [B, 1, T] <-> latents [B, D, L]. EnCodec 24 kHz, and the small mel codec that ships.

Frame rate and hop come from the codec; nothing else configures them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.utils.hashing import _fingerprint


class Codec(nn.Module):
    """What every codec offers. Lengths come back exactly as they went in.

    Attributes:
        cheap: encoding takes no longer than reading latents from a disk does.
        spectral: the latents' channels are neighbouring frequency bands.
        edge: latent frames at each end of a recording that see beyond it.
    """

    cheap = spectral = False
    edge = 0
    name: str
    sample_rate: int
    hop_length: int
    latent_channels: int

    def encode(self, wav: Tensor) -> Tensor:
        """wav [B, 1, T] in [-1, 1] -> latents [B, D, ceil(T / hop_length)]."""
        raise NotImplementedError

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """latents [B, D, L] -> wav [B, 1, T], T = `length` samples (None: L * hop_length)."""
        raise NotImplementedError

    def levels(self, latents: Tensor) -> Tensor:
        """Level of each frame of latents [B, D, L], a logarithm [B, L]; zeros where the latents do not tell."""
        return torch.zeros_like(latents[:, 0])

    def follow(self, latents: Tensor, levels: Tensor) -> Tensor:
        """Latents [B, D, L] made to rise and fall as `levels` [B, L] do, where the codec knows how."""
        return latents

    def num_frames(self, length: int) -> int:
        """Latent frames of `length` samples."""
        return math.ceil(length / self.hop_length)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this codec's latents from those of another, or of other weights."""
        return _fingerprint(type(self).__name__, self.hop_length, self.state_dict())

    def freeze(self) -> "Codec":
        return self.eval().requires_grad_(False)

    def _pad(self, wav: Tensor) -> Tensor:
        if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
            raise ValueError(f"a codec takes wav [B, 1, T] with T > 0, not {list(wav.shape)}")
        return F.pad(wav, (0, -wav.shape[-1] % self.hop_length))
