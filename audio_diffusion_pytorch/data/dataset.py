"""Data set of one or several instruments: random crops, keyed by (seed, epoch, index)."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audio_data_pytorch import WAVDataset
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.crops import (
    UNVARIED,
    WHOLE,
    AudioCrops,
    CachedCrops,
    Crop,
    CropSource,
    Span,
    Variation,
)
from audio_diffusion_pytorch.data.latent_cache import CachedVariant, LatentCache
from audio_diffusion_pytorch.data.loader import Loader, batches_of, start_worker
from audio_diffusion_pytorch.data.pitch_shift import PitchShift
from audio_diffusion_pytorch.data.recordings import Recordings
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain, instrument_of
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.utils.settings import check_number, wrong

_CROP_DRAWS = 8  # draws from the file of an item
_FILE_DRAWS = 32  # further draws, from random files
_DRAWS = _CROP_DRAWS + _FILE_DRAWS
_BORROWING = _CROP_DRAWS + _FILE_DRAWS // 2  # first draw of validation from training files
_UNVARIED_SHARE = 0.4  # share of unvaried crops if labels encode the recording condition
_MOST_OCTAVES = 3


class InstrumentDataset(WAVDataset):
    """Random crops of recordings.

    Items are tensors [C, length], or latents [D, frames] after `with_cache`; with `labels`, items
    are pairs of such a tensor and its label (int). Unreadable files are reported once and skipped.
    Every method that changes a setting returns a new data set.

    Args:
        path: folder or folders.
        instruments: names to find in the file names; None accepts every file.
        sample_rate: rate of the crops in Hz; files with another rate are resampled.
        length: samples of a crop; shorter files are padded with zeros at the end.
        channels: 1 averages the channels, after inverting those opposed to the loudest one; 0
            keeps the channels.
        recursive: include subfolders.
        transforms: function that is applied to each crop [C, T], as in `audio_data_pytorch`.
        augment: see `RecordingAugment`; None leaves the recordings unchanged.
        pitch_shift: see `PitchShift`; None leaves the pitch unchanged.
        crops_per_file: items of each file in an epoch.
        silence_db: peak in dB of full scale; crops below it are redrawn. None accepts all crops.
        fixed: draw the same crops in every epoch, for validation.
        seed: key of all random numbers.
        labels: names in the order of the labels, see `Labels`; None for items without labels. With
            `RECORDING_CONDITIONS` at the end, some crops are not varied, and labels encode that.
        octaves: numbers of octaves; some crops move by one of these, as a bridge moves its input
            into the range of another instrument. None moves no crop. Excludes a cache.

    Raises:
        InputError: a setting is wrong, a folder is missing, or no file is readable.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str],
        instruments: Sequence[str] | None = None,
        sample_rate: int = 24000,
        length: int = 409600,
        channels: int = 1,
        recursive: bool = True,
        transforms: Callable[[Tensor], Tensor] | None = None,
        augment: RecordingAugment | None = None,
        pitch_shift: PitchShift | None = None,
        crops_per_file: int = 1,
        silence_db: float | None = -60.0,
        fixed: bool = False,
        seed: int = 0,
        labels: Sequence[str] | None = None,
        octaves: Sequence[int] | None = None,
    ):
        check_number("crops_per_file", crops_per_file, whole=True, least=1)
        super().__init__([], recursive, transforms, sample_rate, length, silence_db is not None)
        self.recordings = Recordings.scan(path, instruments, recursive)
        if channels == 0:
            self.recordings.check_channels()
        self.paths = path
        self.wavs = list(self.recordings.headers)
        self.span = WHOLE
        self.length = length
        self.channels = channels
        self.variation = Variation(augment, pitch_shift, _checked_octaves(octaves))
        self.source: CropSource = AudioCrops(
            self.recordings, sample_rate, length, channels, transforms
        )
        self.crops_per_file = crops_per_file
        self.silence_db = silence_db
        self.fixed = fixed
        self.seed = seed
        self.labels = None if labels is None else Labels(labels)
        self.epoch = 0
        self._prepared = False

    def __len__(self) -> int:
        return len(self.wavs) * self.crops_per_file

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        crop, label = self._draw(index)
        return crop.item if label is None else (crop.item, label)

    @property
    def headers(self) -> dict[str, audio.AudioInfo]:
        """Headers of all recordings, on both sides of a split."""
        return self.recordings.headers

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch, which is part of the random keys."""
        self.epoch = epoch

    def locate(self, index: int) -> str:
        """Return recording and position of item `index` in this epoch; reads the item."""
        return self._draw(index)[0].position

    def split(self, share: float, seed: int) -> tuple["InstrumentDataset", "InstrumentDataset"]:
        """Split the recordings into a training and a validation set.

        The order depends on the seed and the file names only. Exact copies of a recording stay on
        one side. A single recording is split in time, with its end for validation. The validation
        set has fixed, unvaried crops.

        Args:
            share: share of validation, between 0 and 1.
            seed: key of the order.

        Raises:
            InputError: the only recording is shorter than a second.
        """
        valid = self._replace(fixed=True, variation=UNVARIED)
        originals = self.recordings.originals()
        distinct = sorted(set(originals.values()))
        if len(distinct) == 1:
            if self.headers[self.wavs[0]].seconds < 1:
                raise InputError(
                    f"one recording ({self.wavs[0]}) of less than a second "
                    "is not enough to train on"
                )
            return self._replace(span=(0.0, 1 - share)), valid._replace(span=(1 - share, 1.0))

        def order(file: str) -> bytes:
            return hashlib.sha256(f"{seed}/{Path(file).name}".encode()).digest()

        count = min(max(1, round(len(distinct) * share)), len(distinct) - 1)
        chosen = set(sorted(distinct, key=order)[:count])
        return (
            self.with_files([file for file in self.wavs if originals[file] not in chosen]),
            valid.with_files([file for file in self.wavs if originals[file] in chosen]),
        )

    def with_files(self, files: Sequence[str]) -> "InstrumentDataset":
        """Return this data set with some of its files."""
        return self._replace(wavs=list(files))

    def with_crops_per_file(self, crops_per_file: int) -> "InstrumentDataset":
        """Return this data set with another number of items of each file."""
        return self._replace(crops_per_file=crops_per_file)

    def with_cache(self, cache: LatentCache) -> "InstrumentDataset":
        """Return this data set with items from a latent cache."""
        return self._replace(source=CachedCrops(cache, self.length, self.seed))

    def _replace(self, **changes: Any) -> "InstrumentDataset":
        changed = copy.copy(self)
        changed.__dict__.update(changes)
        return changed

    @property
    def has_conditions(self) -> bool:
        """Whether labels encode the recording condition."""
        return self.labels is not None and self.labels.has_conditions

    def instrument_index(self, file: str) -> int:
        """Return the index of a file's instrument in `labels`; 0 if labels name no instrument.

        Raises:
            InputError: the instrument has no label.
        """
        names = [_plain(name) for name in self.labels.instruments] if self.labels else []
        if not names:
            return 0
        name = _plain(instrument_of(file, names) or "no known instrument")
        if name not in names:
            raise InputError(f"{file} is of {name}, which is none of the labels {', '.join(names)}")
        return names.index(name)

    def is_audible(self, peak: float) -> bool:
        """Return whether a crop with this peak is accepted."""
        return self.silence_db is None or peak > 10 ** (self.silence_db / 20)

    def fingerprint(self) -> str:
        """Describe names and contents of the files, for example "12 files, 1f0c2a"."""
        return self.recordings.fingerprint(self.wavs)

    def share(self) -> None:
        """Report each unreadable file once among all processes; see `Recordings.share`."""
        self.recordings.share()

    def cached_variants(self, file: str) -> list[tuple[CachedVariant, float]]:
        """List the cached variants of a recording, each with its share of the crops.

        Raises:
            InputError: the recording is unreadable.
            TypeError: the data set has no cache.
        """
        if not isinstance(self.source, CachedCrops):
            raise TypeError("the data set has no cache")
        if self.variation.augment is None or not self.has_conditions:
            return self.source.variants(file, self.variation)
        unvaried = (CachedVariant(), _UNVARIED_SHARE)
        return [unvaried, *self.source.variants(file, self.variation, 1 - _UNVARIED_SHARE)]

    def prepare(self, num_workers: int = 0) -> None:
        """Create the pitch-shifted recordings that are missing; a data set with a cache has none.

        Args:
            num_workers: processes; 0 uses this one.
        """
        shift = self.variation.pitch_shift
        if shift is None or self._prepared or isinstance(self.source, CachedCrops):
            return
        loader = Loader(
            _ShiftedRecordings(shift, self.wavs, self.sample_rate, self.channels == 1),
            None,
            num_workers=num_workers,
            # The loader draws a number, which must not come from the global generator.
            generator=torch.Generator(),
            worker_init_fn=start_worker,
        )
        with batches_of(loader) as keys:
            progress = tqdm(
                keys, desc="pitch-shifted recordings", total=len(self.wavs), unit="file", delay=1
            )
            for file, key in zip(self.wavs, progress, strict=True):
                if key:
                    shift.remember(file, key)
        self._prepared = True

    def _draw(self, index: int) -> tuple[Crop, int | None]:
        """Draw crops until one is audible; return it with its label, or None without labels."""
        epoch = 0 if self.fixed else self.epoch
        problem = "silence"
        for draw in range(_DRAWS):
            rng = np.random.default_rng([self.seed, epoch, index, draw])
            file, span = self._draw_file(index, draw, rng)
            varied = True
            if self.has_conditions:
                varied = not self.fixed and rng.random() >= _UNVARIED_SHARE
            try:
                variation = self.variation if varied else UNVARIED
                crop = self.source.crop(file, span, variation, rng)
            except InputError as error:
                # Headers do not reveal NaN or damage, and files may vanish during training.
                problem = str(error)
                self.recordings.warn_once(file, problem)
                continue
            if self.is_audible(crop.peak):
                if self.labels is None:
                    return crop, None
                return crop, self.labels.index(self.instrument_index(file), varied)
        raise InputError(
            f"no audible crop in {_DRAWS} draws from {self.paths} ({problem}): "
            "the recordings look silent"
        )

    def _draw_file(self, index: int, draw: int, rng: np.random.Generator) -> tuple[str, Span]:
        """Choose the file of an item and the part of the file to crop."""
        if draw < _CROP_DRAWS:
            return self.wavs[index // self.crops_per_file], self.span
        # A validation set without a usable file must not end the training.
        if self.fixed and draw >= _BORROWING:
            files = list(self.headers)
            return files[int(rng.integers(len(files)))], WHOLE
        return self.wavs[int(rng.integers(len(self.wavs)))], self.span


class _ShiftedRecordings(Dataset):
    """Item i creates the pitch-shifted variants of recording i and is its key, see `PitchShift`."""

    def __init__(self, shift: PitchShift, files: Sequence[str], sample_rate: int, mono: bool):
        self.shift = shift
        self.files = files
        self.sample_rate = sample_rate
        self.mono = mono

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> str:
        return self.shift.prepare(self.files[index], self.sample_rate, self.mono)


def _checked_octaves(octaves: Sequence[int] | None) -> tuple[int, ...]:
    numbers = () if octaves is None else tuple(octaves)
    if not all(isinstance(one, int) and 1 <= abs(one) <= _MOST_OCTAVES for one in numbers):
        expected = "a list of whole numbers from -3 to 3 without 0, for example [-2,-1]"
        raise wrong("octaves", list(numbers), expected)
    return numbers
