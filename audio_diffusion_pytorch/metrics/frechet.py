"""Frechet distance between two sets of clips, over the pooled frames of their embeddings, in float64.

Heusel et al. 2017 (arXiv 1706.08500), eq. 6; for audio Kilgour et al. 2019 (arXiv 1812.08466). Frames, not averages
of clips: in 128 dimensions a handful of averages has a singular covariance. Distances of different embedders or of
different numbers of frames are not comparable.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec

FRAMES_PER_DIMENSION = 10  # fewer frames than this times the dimensions give no distance


@dataclass(frozen=True)
class Embedder:
    """A name and a function of wav [B, T] at `sample_rate` Hz -> frames [B, D, L]."""

    name: str
    sample_rate: int
    embed: Callable[[Tensor], Tensor]


def codec_embedder(codec: Codec, device: str | torch.device = "cpu") -> Embedder:
    """A codec's latents, computed on `device`; clips may lie anywhere."""
    codec = codec.to(device)

    @torch.inference_mode()
    def embed(wav: Tensor) -> Tensor:
        return codec.encode(wav[:, None].to(device))

    return Embedder(f"{codec.name} codec", codec.sample_rate, embed)


@dataclass(frozen=True)
class Moments:
    """Number of frames, their sum [D] and the sum of their outer products [D, D]; adds up over clips, float64."""

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, frames: Tensor) -> "Moments":
        """frames [D, L]."""
        x = frames.cpu().double().numpy()
        return cls(x.shape[1], x.sum(1), x @ x.T)

    @classmethod
    def pool(cls, parts: Iterable["Moments"]) -> "Moments":
        """The moments of all parts together, one or more."""
        parts = list(parts)
        return cls(
            sum(p.count for p in parts), sum(p.total for p in parts), sum(p.products for p in parts)
        )

    def enough(self) -> bool:
        return self.count >= FRAMES_PER_DIMENSION * len(self.total)

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self.total / self.count
        return mean, (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)

    @cached_property
    def root(self) -> np.ndarray:
        """Symmetric square root of the covariance [D, D]."""
        values, vectors = linalg.eigh(self.mean_and_covariance()[1])
        return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), never below 0.

    The last root has the eigenvalues of (cov_b^(1/2) cov_a cov_b^(1/2))^(1/2), which is symmetric: nothing turns
    complex, and a singular covariance does no harm. b's own root is computed once.
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
