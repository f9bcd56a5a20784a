"""Data of a student: solutions of its teacher's ODEs, kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.bridge.fit_windows import Recording, read_recordings
from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.bridge.solutions import (
    Solutions,
    hand_off_range,
    make_pairs,
    teach,
)
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.data.packed_datamodule import PackedBatches, place_of_resuming
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import load_instrument, load_others
from audio_diffusion_pytorch.models.unlabelled import label_weight
from audio_diffusion_pytorch.training.randomness import generator_for
from audio_diffusion_pytorch.training.varied_recordings import vary
from audio_diffusion_pytorch.utils.devices import choose_device
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors
from audio_diffusion_pytorch.utils.settings import check_number

FORMAT = "audio_diffusion_pytorch.solutions.1"
FILE = "solutions.safetensors"
VALID = 8  # every eighth recording is kept for validation


class Examples(NamedTuple):
    """Solutions of the teacher's ODEs.

    Args:
        data: normalised latents [N, D, L].
        noise: latents at the hand-off level, divided by sqrt(sigma^2 + sigma_data^2) [N, D, L].
        sigma: hand-off noise level [N].
        direction: index in `DIRECTIONS` [N].
        melody: output of `ModelPair.with_melody` [N, M + 1, L]; [N, 0, L] without a melody input.
    """

    data: Tensor
    noise: Tensor
    sigma: Tensor
    direction: Tensor
    melody: Tensor

    def rows(self, chosen: Tensor | slice) -> Examples:
        """Return some examples."""
        return Examples(*(value[chosen] for value in self))

    def single(self) -> Examples:
        """Return the examples in single precision."""
        return Examples(*(value.float() for value in self))._replace(direction=self.direction)


class SolvedExamples(Sequence):
    """Placeholders of the examples of an epoch; a dry run names them.

    Args:
        length: number of examples.
        shape: latent channels, melody channels, frames.
    """

    def __init__(self, length: int, shape: tuple[int, int, int]):
        self.length = length
        self.shape = shape

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Examples:
        channels, melody, frames = self.shape
        data, noise = torch.randn(2, channels, frames)
        return Examples(
            data, noise, torch.tensor(4.0), torch.tensor(0), torch.zeros(melody, frames)
        )


class SolutionDatamodule(pl.LightningDataModule):
    """Solve the ODEs of a teacher for recordings, and draw batches of the solutions.

    Half of a batch are solutions to noise, half are solutions to data. Batch b of epoch e depends
    on (seed, e, b) only.

    Args:
        path: folder of recordings whose names contain their instruments; those of the teacher's
            instrument start at data, those of the others at the noise that their models encode.
        teacher: model to distil, see `load_instrument`.
        folder: folder of the run, for the solutions.
        others: models at the other ends of bridges; None: the shipped ones on the same codec.
        windows: most windows of each pair of models.
        files: most recordings of an instrument.
        seconds: most seconds of a recording.
        melody_guidance: weight of the melody in the solutions to data, see `MelodyUse`; "auto":
            that of `quality=normal`.
        augment: variation of a copy of each recording, see `RecordingAugment`; None: no copies.
        second_voice: share of the copies with a second, softer recording of the same instrument,
            like double stops.
        batch_size: examples in a batch.
        batches_per_epoch: batches of an epoch.
        seed: key of all random numbers.
        device: device that solves the ODEs; "auto": a GPU if there is one.

    Attributes:
        sigmas: lowest and highest hand-off level of the solutions.
        guidance: weight of the melody in the solutions to data.
        label_guidance: weight of the label in these solutions.

    Raises:
        InputError: a setting is wrong or a model cannot be loaded.
    """

    num_workers = 0

    def __init__(
        self,
        path: str | Path,
        teacher: str | Path | InstrumentModel,
        folder: str | Path,
        others: Sequence[str] | None = None,
        windows: int = 120,
        files: int = 40,
        seconds: float = 20.0,
        melody_guidance: float | str = "auto",
        augment: RecordingAugment | None = None,
        second_voice: float = 0.0,
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
        check_number("datamodule.second_voice", second_voice, least=0, most=1)
        self.path = Path(path)
        self.device = choose_device(device)
        self._file = Path(folder) / FILE
        self.teacher = load_instrument(teacher)
        self.others = load_others(self.teacher, others)
        if not self.others:
            raise InputError(
                "no model for the other ends of bridges: name one with datamodule.others"
            )
        if self.teacher.spec.melody_channels:
            without = [one.spec.name for one in self.others if not one.spec.melody_channels]
            if without:
                raise InputError(
                    f"{self.teacher.spec.name} has a melody input, but {', '.join(without)} has "
                    "none: name other models with datamodule.others"
                )
        self.windows = windows
        self.files = files
        self.seconds = seconds
        self.melody_guidance = melody_guidance
        self.augment = augment
        self.second_voice = second_voice
        pairs = self._pairs()
        self.sigmas = hand_off_range(pairs)
        melody = pairs[-1][1].melody
        self.guidance, self.label_guidance = melody.guidance, melody.label_guidance
        if melody.guides and self.label_guidance != label_weight(self.teacher):
            raise InputError(
                f"the guidance of {self.teacher.spec.name} includes its label: copy the model of "
                "several instruments beside its file, or set datamodule.melody_guidance=1"
            )
        self._settings = [pair.settings for _, pair in pairs]
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.seed = seed
        self.train: Examples | None = None
        self.valid: Examples | None = None

    @property
    def train_set(self) -> SolvedExamples:
        """The examples of an epoch, for their number and, in a dry run, for their shape."""
        spec = self.teacher.spec
        melody = spec.melody_channels + 1 if spec.melody_channels else 0
        shape = len(self.teacher.mean), melody, spec.frames
        return SolvedExamples(self.batches_per_epoch * self.batch_size, shape)

    @property
    def valid_set(self) -> range:
        """The validation examples, for their number."""
        return range(0 if self.valid is None else len(self.valid.sigma))

    def make(self) -> None:
        """Solve the ODEs, unless an earlier start of the run has written the solutions.

        Raises:
            InputError: recordings are missing, or the file cannot be written.
        """
        if not self._is_made():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            tensors = self._solve()
            write_safetensors(self._file, tensors, {"format": FORMAT, "key": self._key()})

    def _pairs(self) -> list[tuple[str, ModelPair]]:
        return make_pairs(self.teacher, self.others, self.melody_guidance)

    def _key(self) -> str:
        """Describe everything that determines the solutions."""
        models = [self.teacher, *self.others]
        digests = [weights_digest(model.file) if model.file else "" for model in models]
        values = [str(self.path), digests, self.windows, self.files]
        variation = str(self.augment), self.second_voice
        return json.dumps([*values, self.seconds, self.seed, self._settings, *variation])

    def _is_made(self) -> bool:
        if not self._file.is_file():
            return False
        with open_safetensors(self._file, "solutions of a model", FORMAT) as (header, _):
            return header.get("key") == self._key()

    def _solve(self) -> dict[str, Tensor]:
        """Return the tensors of the file."""
        known: dict[str, list[list[Recording]]] = {}
        found: dict[str, list[Solutions]] = {"train": [], "valid": []}
        for model in (self.teacher, *self.others):
            model.to(self.device)
        pairs = self._pairs()
        total = self.windows * len(pairs)
        with tqdm(total=total, unit="window", desc="solutions of the teacher") as bar:
            for number, (direction, pair) in enumerate(pairs):
                name = pair.source.spec.name
                if name not in known:
                    files = find_files([self.path], [name])
                    read = read_recordings(files, self.files, self.seconds)
                    held = read[::VALID]
                    kept = [one for one in read if one not in held] or held
                    rng = np.random.default_rng((self.seed, len(known)))
                    known[name] = [self._with_copies(part, rng) for part in (held, kept)]
                held, kept = known[name]
                shares = {"valid": (held, -(-self.windows // VALID)), "train": (kept, self.windows)}
                for split, (recordings, count) in shares.items():
                    generator = generator_for(self.seed, number, split == "valid")
                    for part in teach(direction, pair, recordings, count, generator):
                        found[split].append(part)
                        bar.update(len(part.data) if split == "train" else 0)
        tensors: dict[str, Tensor] = {}
        for split, parts in found.items():
            if {part.direction for part in parts} != set(DIRECTIONS):
                raise InputError(
                    f"the recordings in {self.path} contain too little sound: give longer ones"
                )
            table = _table(parts, self.teacher.spec.sigma_data)._asdict()
            tensors |= {f"{split}.{name}": value for name, value in table.items()}
        return tensors

    def _with_copies(
        self, recordings: Sequence[Recording], rng: np.random.Generator
    ) -> list[Recording]:
        """Return recordings and their varied copies."""
        if self.augment is None:
            return [*recordings]
        return [*recordings, *vary(recordings, self.augment, self.second_voice, rng)]

    def setup(self, stage: str | None = None) -> None:
        """Read the solutions; every process does."""
        with open_safetensors(self._file, "solutions of a model", FORMAT) as (_, tensors):
            tables = [
                Examples(*(tensors[f"{split}.{name}"].clone() for name in Examples._fields))
                for split in ("train", "valid")
            ]
        self.train, self.valid = tables

    def train_dataloader(self) -> PackedBatches:
        """Make the training loader; in a resumed run, it starts where the checkpoint was saved."""
        count = self.batches_per_epoch
        return PackedBatches(
            self._draw, count, self.batch_size, place_of_resuming(self.trainer, count)
        )

    def _draw(self, epoch: int, number: int) -> Examples:
        assert self.train is not None
        generator = generator_for(self.seed, epoch, number)
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        size = world * self.batch_size // len(DIRECTIONS)
        drawn = []
        for index in range(len(DIRECTIONS)):
            there = (self.train.direction == index).nonzero()[:, 0]
            chosen = torch.randint(len(there), (size,), generator=generator)
            drawn.append(there[chosen[rank::world]])
        return self.train.rows(torch.cat(drawn))

    def val_dataloader(self) -> PackedBatches:
        """Make the validation loader."""
        valid, size = self.valid, self.batch_size
        assert valid is not None
        return PackedBatches(
            lambda _, number: valid.rows(slice(number * size, (number + 1) * size)),
            -(-len(valid.sigma) // size),
            size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the values on which the batches depend; checkpoints contain them."""
        return {"batch_size": self.batch_size, "seed": self.seed, "solutions": self._key()}


def _table(parts: Sequence[Solutions], sigma_data: float) -> Examples:
    """Join solutions, in half precision."""
    counts = torch.tensor([len(part.data) for part in parts])
    sigma = torch.tensor([part.sigma for part in parts])
    direction = torch.tensor([DIRECTIONS.index(part.direction) for part in parts])
    scales = (sigma**2 + sigma_data**2).rsqrt()
    melodies = [part.data[:, :0] if part.melody is None else part.melody for part in parts]
    noise = [part.noise * float(scale) for part, scale in zip(parts, scales, strict=True)]
    return Examples(
        torch.cat([part.data.half().cpu() for part in parts]),
        torch.cat([one.half().cpu() for one in noise]),
        sigma.repeat_interleave(counts),
        direction.repeat_interleave(counts),
        torch.cat([melody.half().cpu() for melody in melodies]),
    )
