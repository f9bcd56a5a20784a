"""Latents of whole recordings on disk, encoded once; training reads crops of them.

Each recording and each `CachedVariant` of it has one .safetensors file. Its name depends on the
content of the recording and on the codec, so experiments share files. Files are written atomically:
several processes may fill one cache, and an interrupted process resumes.
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError

_VERSION = "2"  # raise it when the stored values change their meaning
_SECTION = 22500  # frames (300 s at 75/s) that are read, varied and encoded together
_CONTEXT = 150  # frames (2 s) of audio on both sides of a section
_TAIL = 75  # frames of silence after a recording, for crops that exceed it


@dataclass(frozen=True)
class CachedVariant:
    """One variant of a recording in the cache.

    Args:
        semitones: interval of the pitch shift; None for the original pitch.
        variant: number of the variation; None for the recording as it is.
        variation: hash of the settings of the variation.
    """

    semitones: int | None = None
    variant: int | None = None
    variation: str = ""

    def __str__(self) -> str:
        shift = "" if self.semitones is None else f"_{self.semitones:+d}"
        return shift + ("" if self.variant is None else f"_{self.variation}_{self.variant}")


class LatentCache:
    """Cached latents of one codec.

    Args:
        folder: folder of the caches of all codecs and experiments; may be deleted between runs.
        codec: the codec; only its name, its weights' hash and its sizes are kept.
        sample_rate: rate of the encoded audio in Hz.
        variants: number of variations of each recording, if recordings are varied.

    Attributes:
        digests: hash of the content of each usable recording, by path; `build` fills it.
    """

    def __init__(self, folder: str | Path, codec: Codec, sample_rate: int, variants: int = 4):
        name = f"{Path(codec.name).stem}-{sample_rate}-{codec.fingerprint()}-v{_VERSION}"
        self.root = Path(folder)
        self.folder = self.root / name
        self.hop = codec.hop_length
        self.channels = codec.latent_channels
        self.sample_rate = sample_rate
        self.variants = variants
        self.digests: dict[str, str] = {}

    def path(self, digest: str, variant: CachedVariant) -> Path:
        """Return the path of a variant of the recording with a content hash."""
        return self.folder / digest[:2] / f"{digest}{variant}.safetensors"

    def crop(
        self,
        file: str,
        variant: CachedVariant,
        length: int,
        span: tuple[float, float],
        rng: np.random.Generator,
    ) -> tuple[Tensor, float, int]:
        """Cut a random crop from the part `span` of a recording, extended by silence if necessary.

        Args:
            file: the recording.
            variant: variant of the recording.
            length: samples of audio in the crop.
            span: part of the recording, as shares of its length.
            rng: source of the position.

        Returns:
            Latents [D, L] in float32, peak of the audio, index of the first frame.

        Raises:
            InputError: the recording has no latents, or their file is missing or damaged.
        """
        count = math.ceil(length / self.hop)
        with self._open(file, variant) as entry:
            latents = entry.get_slice("latents")
            peaks = entry.get_slice("peak")
            frames = peaks.get_shape()[0] - _TAIL
            first, end = (round(edge * frames) for edge in span)
            start = first + int(rng.integers(max(1, end - first - count + 1)))
            # Each section has a variation of its own, so a crop must not cross sections.
            if variant.variant is not None and count <= _SECTION:
                end_of_section = (start // _SECTION + 1) * _SECTION
                start = min(start, max(first, end_of_section - count))
            stop = min(start + count, end)
            crop = _with_silence(latents[start:stop], latents[frames:], count)
            return crop.float().T.contiguous(), float(peaks[start:stop].max()), start

    def whole(
        self, file: str, variant: CachedVariant, length: int, span: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read all latents from which `crop` cuts.

        Args:
            file: the recording.
            variant: variant of the recording.
            length: samples of audio in a crop; a shorter part is extended by silence.
            span: part of the recording, as shares of its length.

        Returns:
            Latents [D, L]; peak [L] and RMS [L] of the audio of each frame, without the silence.

        Raises:
            InputError: the recording has no latents, or their file is missing or damaged.
        """
        with self._open(file, variant) as entry:
            latents, peak, rms = (
                entry.get_tensor(name).float() for name in ("latents", "peak", "rms")
            )
        frames = len(peak) - _TAIL
        first, end = (round(edge * frames) for edge in span)
        latents = _with_silence(latents[first:end], latents[frames:], math.ceil(length / self.hop))
        return latents.T, peak[first:end], rms[first:end]

    def _open(self, file: str, variant: CachedVariant) -> Any:
        if file not in self.digests:
            raise InputError(f"{file} is not in the latent cache because it is unreadable")
        path = self.path(self.digests[file], variant)
        try:
            return safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}, the latents of {file}, is missing or damaged ({error})"
            ) from error

    def is_intact(self, path: Path) -> bool:
        """Return whether a file of latents exists and matches its checksum."""
        try:
            with safe_open(path, "pt") as entry:
                metadata = entry.metadata() or {}
                tensors = {name: entry.get_tensor(name) for name in ("latents", "peak", "rms")}
        except (OSError, SafetensorError):
            return False
        return metadata.get("crc32") == _checksum(tensors)

    def bytes_for(self, seconds: float) -> int:
        """Estimate the disk space of recordings with this total duration, in bytes."""
        return math.ceil(seconds * self.sample_rate / self.hop) * (self.channels + 2) * 2


def _with_silence(latents: Tensor, silence: Tensor, count: int) -> Tensor:
    """Extend latents [L, D] to at least `count` frames.

    The added frames are those of `silence` [S, D]; its last frame repeats.
    """
    missing = count - len(latents)
    if missing <= 0:
        return latents
    repeated = silence[-1:].expand(max(0, missing - len(silence)), -1)
    return torch.cat([latents, silence[:missing], repeated])


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in ("latents", "peak", "rms"):
        value = zlib.crc32(tensors[name].contiguous().numpy(), value)
    return f"{value:08x}"
