"""Frechet distance between two sets of clips, over pooled frames of embeddings, in float64.

Heusel et al. 2017 (arXiv 1706.08500), eq. 6; for audio Kilgour et al. 2019 (arXiv 1812.08466).
Frames, not averages of clips: in 128 dimensions a handful of averages has a singular covariance.
Distances of different embedders or of different numbers of frames are not comparable.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec

FRAMES_PER_DIMENSION = 10  # a distance needs this many times as many frames as dimensions


@dataclass(frozen=True)
class Embedder:
    """Embed sounds in a space of which the Frechet distance compares distributions.

    Attributes:
        name: name in tables.
        sample_rate: rate of the sounds in Hz.
        embed: function of sounds [B, T] that returns frames [B, D, L].
    """

    name: str
    sample_rate: int
    embed: Callable[[Tensor], Tensor]


def codec_embedder(codec: Codec, device: str | torch.device = "cpu") -> Embedder:
    """Make an embedder of a codec: the frames are its latents.

    Args:
        codec: the codec.
        device: device that computes the latents; sounds may be on any device.

    Returns:
        The embedder.
    """
    codec = codec.to(device)

    @torch.inference_mode()
    def embed(wav: Tensor) -> Tensor:
        return codec.encode(wav[:, None].to(device))

    return Embedder(f"{codec.name} codec", codec.sample_rate, embed)


@dataclass(frozen=True)
class Moments:
    """Moments of frames in float64; the moments of several clips are the sums of theirs.

    Attributes:
        count: number of frames.
        total: sum of the frames [D].
        products: sum of the frames' outer products [D, D].
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, frames: Tensor) -> "Moments":
        """Compute the moments of frames [D, L]."""
        x = frames.cpu().double().numpy()
        return cls(x.shape[1], x.sum(1), x @ x.T)

    @classmethod
    def pool(cls, parts: Iterable["Moments"]) -> "Moments":
        """Add the moments of one or more parts."""
        parts = list(parts)
        return cls(
            sum(p.count for p in parts), sum(p.total for p in parts), sum(p.products for p in parts)
        )

    def enough(self) -> bool:
        """Return whether the frames suffice for a distance."""
        return self.count >= FRAMES_PER_DIMENSION * len(self.total)

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean [D] and the unbiased covariance [D, D] of the frames."""
        mean = self.total / self.count
        return mean, (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)

    @cached_property
    def root(self) -> np.ndarray:
        """Symmetric square root of the covariance [D, D]."""
        values, vectors = linalg.eigh(self.mean_and_covariance()[1])
        return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute |mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)).

    (cov_a cov_b)^(1/2) has the eigenvalues of (cov_b^(1/2) cov_a cov_b^(1/2))^(1/2). The latter is
    symmetric, so that its eigenvalues are real and a singular covariance is allowed.

    Args:
        a: moments of one set.
        b: moments of the other set; its root is computed once.

    Returns:
        The distance, at least 0 in spite of rounding.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a.mean_and_covariance(), b.mean_and_covariance()
    values = linalg.eigvalsh(b.root @ cov_a @ b.root).clip(min=0)
    apart = (
        np.square(mean_a - mean_b).sum()
        + np.trace(cov_a)
        + np.trace(cov_b)
        - 2 * np.sqrt(values).sum()
    )
    return max(0.0, float(apart))
