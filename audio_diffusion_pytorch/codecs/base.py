"""The interface of codecs, which map wav [B, 1, T] to latents [B, D, L] and back.

A codec declares its sample rate and hop; every frame count of the package derives from both.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.utils.hashing import fingerprint

# Old name -> name. Subclasses of users may define or call either.
RENAMED = {
    "cheap": "encodes_fast",
    "spectral": "has_frequency_bands",
    "edge": "edge_frames",
    "levels": "frame_levels",
    "follow": "impose_levels",
}
_OTHER_NAME = RENAMED | {new: old for old, new in RENAMED.items()}


class Codec(nn.Module):
    """Base class of all codecs.

    A subclass sets the attributes, and implements `encode` and `decode`. `decode` returns exactly
    as many samples as `encode` received if the caller passes `length`. The old names in `RENAMED`
    are aliases: a subclass may define either name of a member.

    Attributes:
        name: name of the codec in configurations and model files.
        sample_rate: sample rate in Hz.
        hop_length: samples of one latent frame.
        latent_channels: channels D of the latents.
        encodes_fast: whether encoding is as fast as reading cached latents from a disk.
        has_frequency_bands: whether neighbouring latent channels are neighbouring frequency bands.
        edge_frames: latent frames at each end of a recording whose analysis window extends beyond
            the recording.
        phase_rounds: rounds of the phase reconstruction of `decode`; 0 without one.
    """

    name: str
    sample_rate: int
    hop_length: int
    latent_channels: int
    encodes_fast: bool = False
    has_frequency_bands: bool = False
    edge_frames: int = 0
    phase_rounds: int = 0

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        for old, new in RENAMED.items():
            _alias(cls, old, new)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; set both names of a renamed attribute."""
        super().__setattr__(name, value)
        if name in _OTHER_NAME:
            super().__setattr__(_OTHER_NAME[name], value)

    def encode(self, wav: Tensor) -> Tensor:
        """Encode a waveform.

        Args:
            wav: [B, 1, T] in [-1, 1] at `sample_rate`.

        Returns:
            Latents [B, D, ceil(T / hop_length)].
        """
        raise NotImplementedError

    def decode(self, latents: Tensor, length: int | None = None) -> Tensor:
        """Decode latents.

        Args:
            latents: [B, D, L].
            length: samples to return; None: L * hop_length.

        Returns:
            Waveform [B, 1, length].
        """
        raise NotImplementedError

    def decode_after(self, latents: Tensor, past: Tensor) -> Tensor:
        """Decode latents whose first frames were decoded before.

        Args:
            latents: [B, D, L].
            past: sound of the first frames [B, 1, n], n < L * hop_length.

        Returns:
            Waveform [B, 1, L * hop_length]. A codec that reconstructs phases continues those of
            `past`; others decode as usual.
        """
        return self.decode(latents)

    def with_phase_rounds(self, rounds: int) -> Codec:
        """Return a codec with these weights and, if it reconstructs phases, so many rounds."""
        return self

    def frame_levels(self, latents: Tensor) -> Tensor:
        """Measure the log level of each latent frame.

        Args:
            latents: [B, D, L].

        Returns:
            [B, L]; zeros for codecs whose latents do not encode level.
        """
        return torch.zeros_like(latents[:, 0])

    def impose_levels(self, latents: Tensor, levels: Tensor) -> Tensor:
        """Scale latents so that their level follows given levels over time.

        Args:
            latents: [B, D, L].
            levels: log level of each frame [B, L], as `frame_levels` measures it.

        Returns:
            Scaled latents [B, D, L]; the input for codecs whose latents do not encode level.
        """
        return latents

    def num_frames(self, length: int) -> int:
        """Return the number of latent frames of `length` samples."""
        return math.ceil(length / self.hop_length)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ between codecs whose latents differ."""
        return fingerprint(type(self).__name__, self.hop_length, self.state_dict())

    def freeze(self) -> Codec:
        """Switch to evaluation mode, and disable gradients of the parameters."""
        return self.eval().requires_grad_(False)

    def _pad(self, wav: Tensor) -> Tensor:
        if wav.dim() != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
            raise ValueError(f"wav must be [B, 1, T] with T > 0, got {list(wav.shape)}")
        return F.pad(wav, (0, -wav.shape[-1] % self.hop_length))


def _alias(cls: type[Codec], old: str, new: str) -> None:
    """Bind both names to the definition that comes first in the method resolution order."""
    for base in cls.__mro__:
        members = vars(base)
        if old in members and new in members:
            return
        if old in members or new in members:
            member = members[new] if new in members else members[old]
            setattr(cls, old, member)
            setattr(cls, new, member)
            return


for _old, _new in RENAMED.items():
    _alias(Codec, _old, _new)
