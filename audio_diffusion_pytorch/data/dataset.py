"""Files of one instrument -> crops [1, T], all randomness keyed by (seed, epoch, index)."""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from audio_data_pytorch import WAVDataset
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.data.latent_cache import CachedVariant, LatentCache
from audio_diffusion_pytorch.data.loader import Loader, batches_of, start_worker
from audio_diffusion_pytorch.data.pitch_shift import PitchShift
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain, instrument_of
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.pitch.octaves import shift_octaves
from audio_diffusion_pytorch.utils.hashing import content_digest, content_sample

_SILENT_DRAWS = 8  # crops tried in one file before another is taken
_FILE_DRAWS = 32
_PLAIN = 0.4  # share of the crops that are left as they are, where the labels tell
_MOVED = 0.5  # share of the others that are moved by octaves


class InstrumentDataset(WAVDataset):
    """Random crops of recordings.

    Args:
        path: folder or folders.
        instruments: names looked for in the file names; None takes every file.
        sample_rate: rate of the crops in Hz; other files are resampled.
        length: samples of a crop; shorter files are padded with zeros at the end.
        channels: 1 averages the channels, those turned over before that oppose the loudest one; 0 keeps them.
        transforms: called with each crop [C, T], as in `audio_data_pytorch`.
        augment: see `RecordingAugment`; None leaves the recordings as they are.
        pitch_shift: see `PitchShift`; None keeps their pitch.
        crops_per_file: items of one epoch that come from one file.
        silence_db: crops whose peak lies below this are redrawn (dB of full scale); None keeps all.
        fixed: the same crops in every epoch (validation).
        labels: instruments in the order of their labels, see `Labels`; None: no labels. With
            `RECORDING_CONDITIONS` at the end, some crops stay as recorded, and their label says so.
        octaves: some crops are moved by one of these numbers of octaves, as a bridge moves its input into another
            instrument's range (`shift_octaves`); None: no crop is. Not with a cache.

    Items are tensors [C, length], with `labels` pairs of one and its label (int). With a `cache` they are latents
    [D, frames] instead, and recordings are varied in as many ways as it keeps. Unreadable files are named once and
    skipped.

    Raises:
        InputError: no folder, no file of the instruments, none readable, or nothing but silence.
    """

    def __init__(
        self,
        path: str | Sequence[str],
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
        super().__init__([], recursive, transforms, sample_rate, length, silence_db is not None)
        self.length, self.channels, self.augment, self.crops_per_file = (
            length,
            channels,
            augment,
            crops_per_file,
        )
        self.silence_db, self.fixed, self.seed, self.epoch = silence_db, fixed, seed, 0
        self.octaves = [] if octaves is None else list(octaves)
        if not all(isinstance(number, int) and 1 <= abs(number) <= 3 for number in self.octaves):
            raise InputError(
                f"octaves={self.octaves}: whole numbers from -3 to 3 without 0, for example [-2,-1]"
            )
        self.pitch_shift, self.prepared = pitch_shift, False
        self.cache: LatentCache | None = None
        if not (isinstance(crops_per_file, int) and crops_per_file > 0):
            raise InputError(f"crops_per_file={crops_per_file}: give a whole number from 1")
        self.labels = None if labels is None else Labels(labels)
        self.tells_takes = labels is not None and self.labels.has_conditions
        self.span = (0.0, 1.0)  # part of every recording that crops come from
        self.paths = path
        self.headers: dict[str, audio.AudioInfo] = {}
        self.samples: dict[str, str] = {}  # of the files' content
        bad = []
        files = find_files(path, instruments, recursive)
        self.left_out = sorted(map(str, set(find_files(path, None, recursive)).difference(files)))
        for file in tqdm(files, desc="reading headers", unit="file", disable=len(files) < 2000):
            try:
                self.headers[str(file)], self.samples[str(file)] = (
                    audio.info(file),
                    content_sample(file),
                )
            except InputError as error:
                bad.append(str(error))
        self.wavs, self.unreadable = list(self.headers), bad
        # Bad files that were reported; see `share`.
        self.named = torch.zeros(len(files), dtype=torch.uint8)
        if bad:
            listing = "\n  ".join(
                bad[:10] + ([f"... and {len(bad) - 10} more"] if len(bad) > 10 else [])
            )
            warnings.warn(
                f"{len(bad)} of {len(files)} files cannot be read and are skipped:\n  {listing}",
                stacklevel=2,
            )
        if not self.wavs:
            raise InputError(
                f"none of the {len(files)} audio files in {path} can be read; the first: {bad[0]}"
            )
        counts = {header.channels: file for file, header in self.headers.items()}
        if channels == 0 and len(counts) > 1:
            listing = ", ".join(f"{count} in {file}" for count, file in sorted(counts.items()))
            raise InputError(
                f"channels=0 keeps the recordings' channels, which are not equally many ({listing})"
            )

    def __len__(self) -> int:
        return len(self.wavs) * self.crops_per_file

    def split(self, share: float, seed: int) -> tuple["InstrumentDataset", "InstrumentDataset"]:
        """(training, validation) by file, in an order that the seed and the files' names give.

        Exact copies of a recording stay together. A single recording is split in time, its end for validation. The
        validation part has fixed crops and no augmentation.
        """
        import copy

        def order(file: str) -> bytes:
            return hashlib.sha256(f"{seed}/{Path(file).name}".encode()).digest()

        train, valid = copy.copy(self), copy.copy(self)
        originals = self.originals()
        recordings = sorted(set(originals.values()))
        if len(recordings) == 1:
            if self.headers[self.wavs[0]].seconds < 1:
                raise InputError(
                    f"one recording ({self.wavs[0]}) of less than a second is not enough to train on"
                )
            train.span, valid.span = (0.0, 1 - share), (1 - share, 1.0)
        else:
            count = min(max(1, round(len(recordings) * share)), len(recordings) - 1)
            chosen = set(sorted(recordings, key=order)[:count])
            train.wavs = [file for file in self.wavs if originals[file] not in chosen]
            valid.wavs = [file for file in self.wavs if originals[file] in chosen]
        valid.fixed, valid.augment, valid.pitch_shift, valid.octaves = True, None, None, []
        return train, valid

    def originals(self) -> dict[str, str]:
        """Each file -> the first one with the same content."""
        alike, found = defaultdict(list), {}
        for file in self.headers:
            alike[self.samples[file]].append(file)
        for files in alike.values():
            first: dict[str, str] = {}
            for file in files:
                found[file] = first.setdefault(content_digest(file) if len(files) > 1 else "", file)
        return found

    def fingerprint(self) -> str:
        """Of the names and contents of the recordings: "12 files, 1f0c2a"."""
        listing = [
            f"{Path(file).name}/{self.headers[file].frames}/{self.samples[file]}"
            for file in self.wavs
        ]
        return f"{len(self.wavs)} files, {hashlib.sha256(chr(0).join(listing).encode()).hexdigest()[:6]}"

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def prepare(self, num_workers: int = 0) -> None:
        """Make the pitch-shifted recordings that are not in the cache yet."""
        if self.pitch_shift is None or self.prepared or self.cache is not None:
            return
        own = (
            torch.Generator()
        )  # the loader draws a number, which must not come from the global generator
        loader = Loader(
            _Variants(self),
            None,
            num_workers=num_workers,
            generator=own,
            worker_init_fn=start_worker,
        )
        with batches_of(loader) as keys:
            progress = tqdm(
                keys, desc="pitch-shifted recordings", total=len(self.wavs), unit="file", delay=1
            )
            for file, key in zip(self.wavs, progress, strict=True):
                if key:
                    self.pitch_shift.keys[file] = key
        self.prepared = True

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        epoch = 0 if self.fixed else self.epoch
        problem = "silence"
        for draw in range(_SILENT_DRAWS + _FILE_DRAWS):
            rng = np.random.default_rng([self.seed, epoch, index, draw])
            # A validation part without one usable file must not end the training: it borrows from the other part.
            borrow = self.fixed and draw >= _SILENT_DRAWS + _FILE_DRAWS // 2
            files = list(self.headers) if borrow else self.wavs
            file = files[
                index // self.crops_per_file
                if draw < _SILENT_DRAWS
                else int(rng.integers(len(files)))
            ]
            varied = not self.tells_takes or (not self.fixed and rng.random() >= _PLAIN)
            try:
                span = (0.0, 1.0) if borrow else self.span
                item, peak = (self._crop if self.cache is None else self._cached_crop)(
                    file, rng, span, varied
                )
            except (
                InputError
            ) as error:  # what a header does not tell: damage, NaN; or the file went away since
                problem = str(error)
                self.name_once(file, problem)
                continue
            if self.audible(peak):
                if self.labels is None:
                    return item
                return item, self.labels.index(self.instrument_number(file), varied)
        raise InputError(
            f"no audible crop in {draw + 1} draws from {self.paths} ({problem}): the recordings look silent"
        )

    def locate(self, index: int) -> str:
        """Recording and position of what item `index` is in this epoch; reads it."""
        self[index]
        return self.last_read

    def instrument_number(self, file: str) -> int:
        """The file's instrument among the labels; 0 where they tell none apart."""
        names = [_plain(name) for name in self.labels.instruments] if self.labels else []
        if not names:
            return 0
        name = _plain(instrument_of(file, names) or "no known instrument")
        if name not in names:
            raise InputError(f"{file} is of {name}, which is none of the labels {', '.join(names)}")
        return names.index(name)

    def audible(self, peak: float) -> bool:
        """Whether a crop with this peak is kept."""
        return self.silence_db is None or peak > 10 ** (self.silence_db / 20)

    def share(self) -> None:
        """Let processes that are started from now on see which files this one and the others have named.

        Raises:
            RuntimeError: there is no shared memory.
        """
        self.named.share_memory_()

    def name_once(self, file: str, problem: str) -> None:
        """Warn that a file is skipped, unless it was said before."""
        index = list(self.headers).index(file)
        if not self.named[index]:
            self.named[index] = 1
            warnings.warn(f"skipped: {problem}", stacklevel=3)

    def _crop(
        self, file: str, rng: np.random.Generator, span: tuple[float, float], varied: bool
    ) -> tuple[Tensor, float]:
        file, header = self._in_pitch(file, rng) if varied else (file, self.headers[file])
        augment = self.augment if varied else None
        length = self.length + (augment.margin(self.length) if augment else 0)
        first, end = (round(edge * header.frames) for edge in span)
        frames = min(-(-length * header.sample_rate // self.sample_rate), end - first)
        start = first + int(rng.integers(end - first - frames + 1))
        self.last_read = f"{file} at {start / header.sample_rate:.1f} s"
        wav, rate = (audio.read_mono if self.channels == 1 else audio.read)(file, start, frames)
        wav = audio.resample(wav, rate, self.sample_rate)[:, :length]
        wav = torch.nn.functional.pad(wav, (0, length - wav.shape[-1]))
        if varied and self.octaves and rng.random() < _MOVED:
            wav = shift_octaves(wav, int(rng.choice(self.octaves)), self.sample_rate)
        if augment:
            wav = torch.from_numpy(augment(wav.numpy(), self.length, self.sample_rate, rng))
        wav = self.transforms(wav) if self.transforms else wav
        return wav, float(wav.abs().max())

    def _cached_crop(
        self, file: str, rng: np.random.Generator, span: tuple[float, float], varied: bool
    ) -> tuple[Tensor, float]:
        semitones = self.pitch_shift.draw(file, rng) if self.pitch_shift and varied else None
        variant = int(rng.integers(self.cache.variants)) if self.augment and varied else None
        take = CachedVariant(semitones, variant, self._variation)
        latents, peak, start = self.cache.crop(file, take, self.length, span, rng)
        self.last_read = f"{file} at {start * self.cache.hop / self.sample_rate:.1f} s"
        return latents, peak

    def takes(self, file: str) -> list[tuple[CachedVariant, float]]:
        """The ways in which a cached recording is heard, each with its share of the crops.

        Raises:
            InputError: it cannot be read.
        """
        shifts: dict[int | None, float] = {None: 1.0}
        if self.pitch_shift:
            self.pitch_shift.keys.setdefault(file, self.cache.digests[file])
            shifts[None] -= self.pitch_shift.probability
            for semitones in self.pitch_shift.intervals(file):
                shifts[semitones] = (
                    shifts.get(semitones, 0.0)
                    + self.pitch_shift.probability / self.pitch_shift.variants
                )
        variants = range(self.cache.variants) if self.augment else [None]
        plain = (
            [(CachedVariant(None, None, self._variation), _PLAIN)]
            if self.tells_takes and self.augment
            else []
        )
        rest = 1 - _PLAIN if plain else 1.0
        return plain + [
            (CachedVariant(semitones, variant, self._variation), rest * share / len(variants))
            for semitones, share in shifts.items()
            for variant in variants
        ]

    @property
    def _variation(self) -> str:
        if self.augment is None:
            return ""
        what = f"{type(self.augment).__qualname__} {sorted(vars(self.augment).items())} {self.seed}"
        return hashlib.blake2b(what.encode(), digest_size=4).hexdigest()

    def _in_pitch(self, file: str, rng: np.random.Generator) -> tuple[str, audio.AudioInfo]:
        """The file to read a crop from: `file` itself, or where the draw says so a pitch-shifted one."""
        semitones = self.pitch_shift.draw(file, rng) if self.pitch_shift else None
        if semitones is None:
            return file, self.headers[file]
        shifted = self.shifted(file, semitones)
        return str(shifted), audio.info(shifted)

    def shifted(self, file: str, semitones: int) -> Path:
        """A recording moved by `semitones`; made where it is not there yet."""
        return self.pitch_shift.shifted(file, semitones, self.sample_rate, self.channels == 1)


class _Variants(Dataset):
    """Item i makes the pitch-shifted variants of recording i, and is its key (empty: it cannot be read)."""

    def __init__(self, dataset: InstrumentDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.wavs)

    def __getitem__(self, index: int) -> str:
        dataset = self.dataset
        return dataset.pitch_shift.prepare(
            dataset.wavs[index], dataset.sample_rate, dataset.channels == 1
        )
