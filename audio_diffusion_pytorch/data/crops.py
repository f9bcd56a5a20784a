"""Sources of crops: audio files, or the latent cache."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.latent_cache import CachedVariant, LatentCache
from audio_diffusion_pytorch.data.pitch_shift import PitchShift
from audio_diffusion_pytorch.data.recordings import Recordings
from audio_diffusion_pytorch.pitch.octaves import shift_octaves

_SHIFTED = 0.5  # share of the varied crops that `octaves` shifts

Span = tuple[float, float]  # part of a recording, as shares of its length
WHOLE: Span = (0.0, 1.0)


@dataclass(frozen=True)
class Variation:
    """Random changes that training applies to recordings; without arguments, none.

    Args:
        augment: changes of level, tuning, tone, room and noise floor.
        pitch_shift: pitch shift of whole recordings.
        octaves: numbers of octaves; half of the crops move by one of these.
    """

    augment: RecordingAugment | None = None
    pitch_shift: PitchShift | None = None
    octaves: tuple[int, ...] = ()

    def digest(self, seed: int) -> str:
        """Hash the settings of `augment` with a seed; empty without `augment`."""
        if self.augment is None:
            return ""
        settings = sorted(vars(self.augment).items())
        text = f"{type(self.augment).__qualname__} {settings} {seed}"
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


UNVARIED = Variation()


@dataclass(frozen=True)
class Crop:
    """One crop of a recording.

    Args:
        item: audio [C, T] or latents [D, L].
        peak: highest absolute sample value of the audio.
        position: file and start, for messages: "flute.wav at 1.5 s".
    """

    item: Tensor
    peak: float
    position: str


class CropSource(Protocol):
    """Interface of a source of crops."""

    def crop(self, file: str, span: Span, variation: Variation, rng: np.random.Generator) -> Crop:
        """Cut a random crop from the part `span` of a recording.

        Raises:
            InputError: the recording, or its entry in the cache, is unreadable.
        """


@dataclass(frozen=True)
class AudioCrops:
    """Crops [C, length] of audio files.

    Args:
        recordings: the files.
        sample_rate: rate of the crops in Hz; files with another rate are resampled.
        length: samples of a crop; shorter files are padded with zeros at the end.
        channels: 1 reads mono, see `audio.read_mono`; 0 keeps the channels.
        transforms: function that is applied to each crop [C, length].
    """

    recordings: Recordings
    sample_rate: int
    length: int
    channels: int = 1
    transforms: Callable[[Tensor], Tensor] | None = None

    def crop(self, file: str, span: Span, variation: Variation, rng: np.random.Generator) -> Crop:
        """Read a random crop; see `CropSource`."""
        path, header = self._in_pitch(file, variation.pitch_shift, rng)
        augment = variation.augment
        length = self.length if augment is None else self.length + augment.margin(self.length)
        first, end = (round(edge * header.frames) for edge in span)
        frames = min(-(-length * header.sample_rate // self.sample_rate), end - first)
        start = first + int(rng.integers(end - first - frames + 1))

        read = audio.read_mono if self.channels == 1 else audio.read
        wav, rate = read(path, start, frames)
        wav = audio.resample(wav, rate, self.sample_rate)[:, :length]
        wav = torch.nn.functional.pad(wav, (0, length - wav.shape[-1]))
        if variation.octaves and rng.random() < _SHIFTED:
            octaves = int(rng.choice(variation.octaves))
            wav = shift_octaves(wav, octaves, self.sample_rate)
        if augment is not None:
            wav = torch.from_numpy(augment(wav.numpy(), self.length, self.sample_rate, rng))
        if self.transforms is not None:
            wav = self.transforms(wav)
        position = f"{path} at {start / header.sample_rate:.1f} s"
        return Crop(wav, float(wav.abs().max()), position)

    def _in_pitch(
        self, file: str, shift: PitchShift | None, rng: np.random.Generator
    ) -> tuple[str, audio.AudioInfo]:
        """Draw an interval; return path and header of the recording at that interval."""
        semitones = None if shift is None else shift.draw(file, rng)
        if shift is None or semitones is None:
            return file, self.recordings.headers[file]
        shifted = shift.shifted(file, semitones, self.sample_rate, mono=self.channels == 1)
        return str(shifted), audio.info(shifted)


@dataclass(frozen=True)
class CachedCrops:
    """Crops [D, L] of cached latents; the cache holds some variations of each recording.

    Args:
        cache: the latent cache.
        length: samples of audio in a crop.
        seed: key of the cached variations.
    """

    cache: LatentCache
    length: int
    seed: int

    def crop(self, file: str, span: Span, variation: Variation, rng: np.random.Generator) -> Crop:
        """Read a random crop; see `CropSource`."""
        shift = variation.pitch_shift
        semitones = None if shift is None else shift.draw(file, rng)
        varied = variation.augment is not None
        number = int(rng.integers(self.cache.variants)) if varied else None
        variant = CachedVariant(semitones, number, variation.digest(self.seed))
        latents, peak, start = self.cache.crop(file, variant, self.length, span, rng)
        seconds = start * self.cache.hop / self.cache.sample_rate
        return Crop(latents, peak, f"{file} at {seconds:.1f} s")

    def variants(
        self, file: str, variation: Variation, total: float = 1.0
    ) -> list[tuple[CachedVariant, float]]:
        """List the cached variants of a recording, each with its share of the crops.

        Args:
            file: the recording.
            variation: random changes that the cache stores.
            total: sum of the shares.

        Raises:
            InputError: the recording is unreadable.
        """
        shifts: dict[int | None, float] = {None: 1.0}
        if (shift := variation.pitch_shift) is not None:
            shift.remember(file, self.cache.digests[file])
            shifts[None] -= shift.probability
            for semitones in shift.intervals(file):
                share = shift.probability / shift.variants
                shifts[semitones] = shifts.get(semitones, 0.0) + share
        varied = variation.augment is not None
        numbers: list[int | None] = [*range(self.cache.variants)] if varied else [None]
        digest = variation.digest(self.seed)
        return [
            (CachedVariant(semitones, number, digest), total * share / len(numbers))
            for semitones, share in shifts.items()
            for number in numbers
        ]
