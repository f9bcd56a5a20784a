"""Latents of whole recordings, encoded once and kept on disk; training reads its crops from there.

One .safetensors file for each recording and each way of hearing it (`Take`), named by the recording's content and the
codec, so that experiments share them and a change of either makes new ones. Files appear when they are complete:
several processes may build one cache at once, and one that is cut off goes on where it was.
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    pass


_VERSION = "2"  # raise it when what is stored changes
_SECTION = 22500  # frames (300 s at 75/s) that are read, varied and encoded as one; the last one may be shorter
_CONTEXT = 150  # frames (2 s) that it hears before and after them
_TAIL = 75  # frames of silence after a recording, for crops that are longer than it


@dataclass(frozen=True)
class CachedVariant:
    """One way in which a recording is heard.

    Args:
        semitones: interval by which it is shifted; None: not at all.
        variant: number of its variation; None: as it was recorded.
        variation: digest of how it is varied.
    """

    semitones: int | None = None
    variant: int | None = None
    variation: str = ""

    def __str__(self) -> str:
        shift = "" if self.semitones is None else f"_{self.semitones:+d}"
        return shift + ("" if self.variant is None else f"_{self.variation}_{self.variant}")


class LatentCache:
    """The latents of one codec: reads crops of them.

    Args:
        folder: holds the caches of all codecs and experiments; may be deleted at any time between runs.
        codec: the codec, of which only name and sizes are kept.
        sample_rate: of the audio that the codec is given, in Hz.
        variants: variations of each recording, where recordings are varied.

    Attributes:
        digests: content of the recordings whose latents are there, by path; `build` fills it in.
    """

    def __init__(self, folder: str | Path, codec: Codec, sample_rate: int, variants: int = 4):
        self.root = Path(folder)
        self.folder = (
            self.root / f"{Path(codec.name).stem}-{sample_rate}-{codec.fingerprint()}-v{_VERSION}"
        )
        self.hop, self.channels, self.sample_rate = (
            codec.hop_length,
            codec.latent_channels,
            sample_rate,
        )
        self.variants = variants
        self.digests: dict[str, str] = {}

    def path(self, digest: str, take: CachedVariant) -> Path:
        return self.folder / digest[:2] / f"{digest}{take}.safetensors"

    def crop(
        self,
        file: str,
        take: CachedVariant,
        length: int,
        span: tuple[float, float],
        rng: np.random.Generator,
    ) -> tuple[Tensor, float, int]:
        """A random crop of the part `span` of a recording; where that is shorter the crop goes on in silence.

        Returns:
            Latents [D, L] float32, the frames of `length` samples; the sound's peak; the first frame.

        Raises:
            InputError: the recording has no latents, or their file went away or is damaged.
        """
        count = math.ceil(length / self.hop)
        with self._open(file, take) as entry:
            latents, peaks = entry.get_slice("latents"), entry.get_slice("peak")
            frames = peaks.get_shape()[0] - _TAIL
            first, end = (round(edge * frames) for edge in span)
            start = first + int(rng.integers(max(1, end - first - count + 1)))
            if (
                take.variant is not None and count <= _SECTION
            ):  # sections are varied each in their own way
                start = min(start, max(first, (start // _SECTION + 1) * _SECTION - count))
            stop = min(start + count, end)
            crop = _with_silence(latents[start:stop], latents[frames:], count)
            return crop.float().T.contiguous(), float(peaks[start:stop].max()), start

    def whole(
        self, file: str, take: CachedVariant, length: int, span: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All that crops of `length` samples are cut from -> latents [D, L]; peak and RMS of its sound's frames."""
        with self._open(file, take) as entry:
            latents, peak, rms = (
                entry.get_tensor(name).float() for name in ("latents", "peak", "rms")
            )
        frames = len(peak) - _TAIL
        first, end = (round(edge * frames) for edge in span)
        latents = _with_silence(latents[first:end], latents[frames:], math.ceil(length / self.hop))
        return latents.T, peak[first:end], rms[first:end]

    def _open(self, file: str, take: CachedVariant):
        if file not in self.digests:
            raise InputError(f"{file} is not in the latent cache, because it could not be read")
        path = self.path(self.digests[file], take)
        try:
            return safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}, the latents of {file}, went away or is damaged ({error})"
            ) from error

    def sound(self, path: Path) -> bool:
        """Whether a file of latents is there, complete and what was written."""
        try:
            with safe_open(path, "pt") as entry:
                metadata = entry.metadata() or {}
                tensors = {name: entry.get_tensor(name) for name in ("latents", "peak", "rms")}
        except (OSError, SafetensorError):
            return False
        return metadata.get("crc32") == _checksum(tensors)

    def bytes_for(self, seconds: float) -> int:
        """Disk space for recordings of so many seconds in all."""
        return math.ceil(seconds * self.sample_rate / self.hop) * (self.channels + 2) * 2


def _with_silence(latents: Tensor, silence: Tensor, count: int) -> Tensor:
    """[L, D] -> [at least `count`, D]: what is missing comes from `silence` [S, D], the last frame of that repeated."""
    missing = count - len(latents)
    if missing <= 0:
        return latents
    return torch.cat(
        [latents, silence[:missing], silence[-1:].expand(max(0, missing - len(silence)), -1)]
    )


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in ("latents", "peak", "rms"):
        value = zlib.crc32(tensors[name].contiguous().numpy(), value)
    return f"{value:08x}"
