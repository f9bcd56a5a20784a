"""Data of a student: trajectories of its teacher, solved once and kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.fit_windows import Recording
from audio_diffusion_pytorch.bridge.trajectories import (
    Solutions,
    hand_off_range,
    make_pairs,
    teach,
)
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.data.packed_datamodule import PackedBatches, place_of_resuming
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import load_instrument, load_others
from audio_diffusion_pytorch.training.randomness import generator_for
from audio_diffusion_pytorch.utils.devices import choose_device
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors
from audio_diffusion_pytorch.utils.settings import check_number

FORMAT = "audio_diffusion_pytorch.trajectories.1"
FILE = "trajectories.safetensors"
VALID = 8  # every eighth recording is kept for validation


class Trajectories(NamedTuple):
    """Solutions of the teacher's ODEs.

    Args:
        points: scaled latents at the levels [N, K, D, L], see `bridge.trajectories`.
        sigmas: the levels, in the order of the solution [N, K].
        direction: index in `DIRECTIONS` [N].
        melody: melody [N, M, L]; M is 0 without a melody.
    """

    points: Tensor
    sigmas: Tensor
    direction: Tensor
    melody: Tensor

    def rows(self, chosen: Tensor | slice) -> Trajectories:
        """Return some trajectories."""
        return Trajectories(*(value[chosen] for value in self))

    def single(self) -> Trajectories:
        """Return the trajectories in single precision."""
        return self._replace(points=self.points.float(), melody=self.melody.float())


class _Epoch(Sequence):
    """Placeholders of the trajectories of an epoch.

    Args:
        length: number of trajectories.
        levels: noise levels of each.
        shape: latent channels, melody channels, frames.
    """

    def __init__(self, length: int, levels: Sequence[float], shape: tuple[int, int, int]):
        self.length = length
        self.levels = levels
        self.shape = shape

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Trajectories:
        channels, melody, frames = self.shape
        points = torch.randn(len(self.levels), channels, frames)
        sigmas = torch.tensor(self.levels)
        return Trajectories(points, sigmas, torch.tensor(0), torch.zeros(melody, frames))


class TrajectoryDatamodule(pl.LightningDataModule):
    """Solve the ODEs of a teacher for recordings, and draw batches of the solutions.

    A batch has as many trajectories to noise as to data. Batch b of epoch e depends on (seed, e, b)
    only.

    Args:
        path: folder of recordings whose names contain their instruments; those of the teacher's
            instrument start at data, those of the others at the noise that their models encode.
        teacher: model to distil, see `load_instrument`.
        others: models at the other ends of bridges; None: the shipped ones on the same codec.
        inner: noise levels between the data end and the hand-off, rising: ends of the student's
            steps.
        sigma_min: noise level at the data end.
        windows: most windows of each pair of models.
        files: most recordings of an instrument.
        seconds: most seconds of a recording.
        batch_size: trajectories in a batch.
        batches_per_epoch: batches of an epoch.
        seed: key of all random numbers.
        device: device that solves the ODEs; "auto": a GPU if there is one.

    Raises:
        InputError: a setting is wrong or a model cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        teacher: str | Path | InstrumentModel,
        others: Sequence[str] | None = None,
        inner: Sequence[float] = (0.8,),
        sigma_min: float = 0.02,
        windows: int = 120,
        files: int = 40,
        seconds: float = 20.0,
        batch_size: int = 8,
        batches_per_epoch: int = 100,
        seed: int = 0,
        device: str = "auto",
    ):
        super().__init__()
        for name, value in {
            "windows": windows,
            "files": files,
            "batches_per_epoch": batches_per_epoch,
        }.items():
            check_number(f"datamodule.{name}", value, whole=True, least=1)
        check_number("datamodule.batch_size", batch_size, whole=True, least=2)
        check_number("datamodule.seconds", seconds, above=0)
        levels = [sigma_min, *inner]
        if not all(0 < low < high for low, high in pairwise(levels)):
            raise InputError(f"sigma_min={sigma_min} and inner={list(inner)} must rise")
        self.path = Path(path)
        self.device = choose_device(device)
        self.teacher = load_instrument(teacher)
        self.others = load_others(self.teacher, others)
        self.inner = tuple(map(float, inner))
        self.sigma_min = float(sigma_min)
        self.windows = windows
        self.files = files
        self.seconds = seconds
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.seed = seed
        self.train: Trajectories | None = None
        self.valid: Trajectories | None = None
        self._file: Path | None = None

    @property
    def sigmas(self) -> tuple[float, float]:
        """Lowest and highest hand-off level of the trajectories."""
        return hand_off_range(make_pairs(self.teacher, self.others))

    num_workers = 0

    @property
    def train_set(self) -> _Epoch:
        """The trajectories of an epoch, for their number and, in a dry run, for their shape."""
        spec = self.teacher.spec
        shape = len(self.teacher.mean), spec.melody_channels, spec.frames
        levels = (self.sigma_min, *self.inner, spec.handoff_sigma)
        return _Epoch(self.batches_per_epoch * self.batch_size, levels, shape)

    @property
    def valid_set(self) -> range:
        """The validation trajectories, for their number."""
        return range(0 if self.valid is None else len(self.valid.sigmas))

    def make(self, folder: Path) -> None:
        """Solve the ODEs, or read the solutions that an earlier start of the run has written.

        Args:
            folder: folder of the run.

        Raises:
            InputError: recordings are missing, or the file cannot be written.
        """
        self._file = folder / FILE
        if not self._is_made():
            folder.mkdir(parents=True, exist_ok=True)
            tensors = self._solve()
            write_safetensors(self._file, tensors, {"format": FORMAT, "key": self._key()})

    def _key(self) -> str:
        """Describe everything that determines the trajectories."""
        models = [self.teacher, *self.others]
        digests = [weights_digest(model.file) if model.file else "" for model in models]
        values = [str(self.path), digests, self.inner, self.sigma_min, self.windows, self.files]
        return json.dumps([*values, self.seconds, self.seed])

    def _is_made(self) -> bool:
        assert self._file is not None
        if not self._file.is_file():
            return False
        with open_safetensors(self._file, "trajectories of a model", FORMAT) as (header, _):
            return header.get("key") == self._key()

    def _solve(self) -> dict[str, Tensor]:
        """Return the tensors of the file."""
        known: dict[str, list[Recording]] = {}
        found: dict[str, list[Solutions]] = {"train": [], "valid": []}
        for model in (self.teacher, *self.others):
            model.to(self.device)
        pairs = make_pairs(self.teacher, self.others)
        total = self.windows * len(pairs)
        with tqdm(total=total, unit="window", desc="trajectories of the teacher") as bar:
            for number, (direction, pair) in enumerate(pairs):
                name = pair.source.spec.name
                if name not in known:
                    known[name] = self._recordings(name)
                held = known[name][::VALID]
                kept = [one for one in known[name] if one not in held] or held
                shares = {"valid": (held, -(-self.windows // VALID)), "train": (kept, self.windows)}
                for split, (recordings, count) in shares.items():
                    generator = generator_for(self.seed, number, split == "valid")
                    fixed = pair, recordings, count, self.sigma_min, self.inner, generator
                    for part in teach(direction, *fixed):
                        found[split].append(part)
                        bar.update(len(part.points) if split == "train" else 0)
        tensors: dict[str, Tensor] = {}
        for split, parts in found.items():
            if {part.direction for part in parts} != set(DIRECTIONS):
                raise InputError(
                    f"the recordings in {self.path} contain too little sound: give longer ones"
                )
            table = _table(parts)._asdict()
            tensors |= {f"{split}.{name}": value for name, value in table.items()}
        return tensors

    def _recordings(self, instrument: str) -> list[Recording]:
        """Read the beginnings of recordings, spread over the files of an instrument."""
        files = find_files([self.path], [instrument])
        chosen = np.unique(np.linspace(0, len(files) - 1, self.files).astype(int))
        recordings = []
        for index in tqdm(chosen, desc=f"recordings of the {instrument}", leave=False):
            info = audio.info(files[index])
            frames = min(info.frames, round(self.seconds * info.sample_rate))
            recordings.append(Recording(*audio.read(files[index], 0, frames)))
        return recordings

    def setup(self, stage: str | None = None) -> None:
        """Read the trajectories; every process does."""
        assert self._file is not None
        with open_safetensors(self._file, "trajectories of a model", FORMAT) as (_, tensors):
            tables = [
                Trajectories(*(tensors[f"{split}.{name}"].clone() for name in Trajectories._fields))
                for split in ("train", "valid")
            ]
        self.train, self.valid = tables

    def train_dataloader(self) -> PackedBatches:
        """Make the training loader; in a resumed run, it starts where the checkpoint was saved."""
        count = self.batches_per_epoch
        return PackedBatches(
            self._draw, count, self.batch_size, place_of_resuming(self.trainer, count)
        )

    def _draw(self, epoch: int, number: int) -> Trajectories:
        assert self.train is not None
        generator = generator_for(self.seed, epoch, number)
        size = self.batch_size // len(DIRECTIONS)
        drawn = []
        for index in range(len(DIRECTIONS)):
            there = (self.train.direction == index).nonzero()[:, 0]
            drawn.append(there[torch.randint(len(there), (size,), generator=generator)])
        return self.train.rows(torch.cat(drawn))

    def val_dataloader(self) -> PackedBatches:
        """Make the validation loader."""
        valid, size = self.valid, self.batch_size
        assert valid is not None
        return PackedBatches(
            lambda _, number: valid.rows(slice(number * size, (number + 1) * size)),
            -(-len(valid.sigmas) // size),
            size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the values on which the batches depend; checkpoints contain them."""
        return {"batch_size": self.batch_size, "seed": self.seed, "trajectories": self._key()}


def _table(parts: Sequence[Solutions]) -> Trajectories:
    """Join solutions, in half precision."""
    counts = torch.tensor([len(part.points) for part in parts])
    indices = torch.tensor([DIRECTIONS.index(part.direction) for part in parts])
    melodies = [
        (part.points[:, 0, :0] if part.melody is None else part.melody).half().cpu()
        for part in parts
    ]
    return Trajectories(
        torch.cat([part.points.half().cpu() for part in parts]),
        torch.stack([part.sigmas for part in parts]).repeat_interleave(counts, 0),
        indices.repeat_interleave(counts),
        torch.cat(melodies),
    )
