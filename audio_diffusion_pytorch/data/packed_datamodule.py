"""Data of a run from packed latents: the whole pack in the memory of the training device."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.packed import Pack, dequantise, open_packs
from audio_diffusion_pytorch.data.packed_crops import PackedCrops
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import _plain
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.utils.settings import check_number

_LEAST_BATCHES = 16  # of an epoch
_MOST_MEMORY = 0.5  # share of a GPU's free memory that the pack may occupy
_BLOCK = 1 << 16  # frames that the statistics sum together


class PackedBatches:
    """Batches of one epoch; Lightning accepts any iterable with a length as a loader.

    Args:
        make: function from (epoch, number of the batch) to the batch.
        count: number of batches.
        batch_size: items in a batch.
        resumed: an epoch that was interrupted, and the number of its batches that were read.
    """

    def __init__(
        self,
        make: Callable[[int, int], Any],
        count: int,
        batch_size: int,
        resumed: tuple[int, int] = (0, 0),
    ):
        self.make = make
        self.count = count
        self.batch_size = batch_size
        self.resumed = resumed
        self.epoch = resumed[0]

    batch_sampler = None  # Lightning reads it beside `sampler`

    @property
    def sampler(self) -> "PackedBatches":
        """This object: Lightning calls `set_epoch` of a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Select an epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        epoch, seen = self.resumed
        skipped = seen if epoch == self.epoch else 0  # batches already read come last
        for number in range(self.count):
            yield self.make(self.epoch, (number + skipped) % self.count)


def place_of_resuming(trainer: pl.Trainer | None, count: int) -> tuple[int, int]:
    """Return the interrupted epoch of a resumed run, and the number of its batches that were read.

    Args:
        trainer: trainer of the run; None: outside of a run.
        count: batches of an epoch.
    """
    if trainer is None:
        return 0, 0
    loop = trainer.fit_loop
    begun = loop.epoch_progress.current.ready
    batches = loop.epoch_loop.batch_progress.current.ready
    return (max(begun - 1, 0), batches) if batches < count else (begun, 0)


class PackedItems:
    """Items for `len` and for timing; batches come from `PackedBatches`."""

    def __init__(self, crops: PackedCrops, starts: np.ndarray, length: int):
        self.crops = crops
        self.starts = starts
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.crops.item(int(self.starts[index * len(self.starts) // self.length]))


class PackedDatamodule(pl.LightningDataModule):
    """Draw batches of crops from packed latents, without loader processes.

    Batch b of epoch e depends on (seed, e, b) only: the positions are drawn on the CPU. W processes
    share the batches of one process with W times the batch size. A crop is equally likely at every
    audible position of all recordings; with labels of several instruments, each of these is
    equally likely.

    Args:
        path: the pack, or several packs, see `data/packed.py`.
        instruments: names of the instruments to use; None: all.
        batch_size: items in a batch of one process.
        length: samples of a crop.
        labels: names in the order of the labels, see `Labels`; None for items without labels.
        seed: key of all random numbers.
        valid_items: upper limit of validation items, spread over the validation recordings.
        batches_per_epoch: batches of an epoch of a single process; None: as many as the frames of
            the training recordings fill, at least 16.
        varied_share: share of the crops of varied copies, if there are both kinds.

    Attributes:
        train_set: training items, for their number.
        valid_set: validation items.

    Raises:
        InputError: a setting is wrong, or the pack is unusable or lacks an instrument.
    """

    num_workers = 0

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        instruments: Sequence[str] | None = None,
        batch_size: int = 64,
        length: int = 81920,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        valid_items: int = 256,
        batches_per_epoch: int | None = None,
        varied_share: float = 0.6,
    ):
        super().__init__()
        check_number("datamodule.batch_size", batch_size, whole=True, least=1)
        check_number("datamodule.valid_items", valid_items, whole=True, least=1)
        check_number("datamodule.varied_share", varied_share, least=0, most=1)
        check_number(
            "datamodule.batches_per_epoch", batches_per_epoch, whole=True, least=1, allowed=(None,)
        )
        pack = open_packs(path)
        self.path = pack.path
        self.metadata = pack.metadata
        self.digest = pack.digest
        self.batch_size = batch_size
        self.seed = seed
        frames = -(-length // pack.metadata.hop_length)
        recordings = _of_instruments(pack, instruments)
        label_map = None if labels is None else Labels(labels)
        self.crops = crops = PackedCrops(pack, recordings, frames, label_map)
        self._groups = self._training_groups(varied_share)
        starts = np.concatenate([found for found, _ in self._groups])
        rows = int((crops.end - crops.first)[~crops.valid].sum())
        items = batch_size * max(_LEAST_BATCHES, rows // (batch_size * frames))
        if batches_per_epoch is not None:
            items = batch_size * batches_per_epoch
        self.train_set = PackedItems(crops, starts, items)
        self._valid_starts = self._validation_starts(valid_items)
        self.valid_set = PackedItems(crops, self._valid_starts, len(self._valid_starts))

    def _training_groups(self, varied_share: float) -> list[tuple[np.ndarray, float]]:
        """Return the positions of varied and of unvaried crops, each with its share.

        Labels of several instruments make two groups for each instrument.
        """
        crops = self.crops
        groups = []
        for number in np.unique(crops.instrument):
            chosen = ~crops.valid & (crops.instrument == number)
            own = [
                (crops.starts(chosen & crops.varied), varied_share),
                (crops.starts(chosen & ~crops.varied), 1 - varied_share),
            ]
            own = [(starts, share) for starts, share in own if len(starts) and share > 0]
            total = sum(share for _, share in own)
            groups += [(starts, share / total) for starts, share in own]
        if not groups:
            raise InputError(
                f"{self.path} holds no audible training recording of the chosen instruments"
            )
        total = sum(share for _, share in groups)
        return [(starts, share / total) for starts, share in groups]

    def _validation_starts(self, most: int) -> np.ndarray:
        """Choose fixed validation crops, of unvaried recordings if there are any."""
        crops = self.crops
        starts = crops.starts(crops.valid & ~crops.varied)
        if not len(starts):
            starts = crops.starts(crops.valid)
        if not len(starts):
            raise InputError(
                f"{self.path} holds no audible validation recording (split 1) of the chosen "
                "instruments"
            )
        return starts[np.unique(np.linspace(0, len(starts) - 1, most).astype(int))]

    def check_fits(self, codec: Codec, melody_channels: int = 0) -> None:
        """Check that the pack was made with the codec of the run.

        Args:
            codec: codec of the run.
            melody_channels: channels of the network's melody input; 0: it has none.

        Raises:
            InputError: the codec or the number of channels differs.
        """
        there = self.metadata
        if there.codec_fingerprint != codec.fingerprint():
            raise InputError(
                f"{self.path} holds latents of the codec {there.codec} "
                f"({there.codec_fingerprint}), but this run uses the codec {codec.name} "
                f"({codec.fingerprint()}): set codec= to that codec, or make the pack again"
            )
        if melody_channels not in (0, self.crops.melody_channels):
            raise InputError(
                f"{self.path} holds melodies of {self.crops.melody_channels} channels: set "
                f"model.model.melody_channels={self.crops.melody_channels}, or 0"
            )

    def use_device(self, device: torch.device) -> None:
        """Move the pack to a GPU, or to pinned memory if the GPU lacks the space.

        Args:
            device: device of the training.
        """
        if device.type != "cuda":
            return
        features = self.crops.features
        free = torch.cuda.mem_get_info(device)[0]
        if features.numel() < _MOST_MEMORY * free:
            self.crops.features = features.to(device)
            return
        logging.getLogger(__name__).info(
            f"{self.path} ({features.numel() / 1e9:.1f} GB) does not fit half of the free memory "
            f"of the GPU ({free / 1e9:.1f} GB): training reads it from the CPU's memory"
        )
        self.crops.features = features.pin_memory()

    def statistics(self, labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the exact latent statistics of the training crops.

        Args:
            labels: statistics are computed for each instrument that the labels name.

        Returns:
            Mean and standard deviation of each latent channel, [D] or [instruments, D]; level [].
        """
        from audio_diffusion_pytorch.data.latent_statistics import _Sums

        count = max(len(labels.instruments), 1)
        features = self.crops.features
        weights = torch.from_numpy(self._row_weights(count)).to(features.device)
        sums = torch.zeros(
            2, count, self.crops.latent_channels, dtype=torch.double, device=features.device
        )
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK, : self.crops.latent_channels]
            latents = dequantise(block).double()
            weight = weights[:, start : start + _BLOCK]
            sums += torch.stack([weight @ latents, weight @ latents.square()])
        latents, squares = sums.cpu()
        level = torch.tensor(self.metadata.level)
        total = weights.sum(1, keepdim=True).cpu()
        return _Sums(total, latents, squares, [level]).statistics(bool(labels.instruments))

    def _row_weights(self, count: int) -> np.ndarray:
        """Return the share of each row in the crops that training draws [instruments, N + 1]."""
        crops = self.crops
        weights = np.zeros((count, len(crops.features)))
        for starts, share in self._groups:
            instrument = crops.instrument[crops.recording(starts)]
            for number in range(count):
                chosen = starts[instrument == number]
                stops = crops.stops(chosen)
                size = weights.shape[1]
                begun = np.bincount(chosen, minlength=size) - np.bincount(stops, minlength=size)
                covered = begun.cumsum().astype(float)
                covered[-1] = (chosen + crops.frames - stops).sum()  # rows after the recordings
                weights[number] += covered * (share / (len(starts) * crops.frames))
        return weights

    def _draw(self, epoch: int, batch: int) -> np.ndarray:
        """Draw the positions of a batch, and return those of this process."""
        rank, world = self._process()
        rng = np.random.default_rng([self.seed, epoch, batch])
        shares = np.cumsum([share for _, share in self._groups])
        group = np.searchsorted(shares[:-1], rng.random(self.batch_size * world), side="right")
        place = rng.random(self.batch_size * world)
        sizes = np.array([len(starts) for starts, _ in self._groups])
        index = (place * sizes[group]).astype(np.int64)
        chosen = np.array([self._groups[g][0][i] for g, i in zip(group, index, strict=True)])
        return chosen[rank * self.batch_size : (rank + 1) * self.batch_size]

    def _process(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def train_dataloader(self) -> PackedBatches:
        """Make the training loader; in a resumed run, it starts where the checkpoint was saved.

        Raises:
            InputError: an epoch is shorter than a batch of each process.
        """
        world = self._process()[1]
        count = len(self.train_set) // (self.batch_size * world)
        if count == 0:
            raise InputError(
                f"datamodule.batches_per_epoch={len(self.train_set) // self.batch_size} is less "
                f"than the {world} processes: raise it"
            )
        return PackedBatches(
            lambda epoch, batch: self.crops.batch(self._draw(epoch, batch)),
            count,
            self.batch_size,
            place_of_resuming(self.trainer, count),
        )

    def val_dataloader(self) -> PackedBatches:
        """Make the validation loader: rank r of W processes reads the items r, r + W, ...

        Raises:
            InputError: there are fewer items than processes.
        """
        rank, world = self._process()
        if len(self._valid_starts) < world:
            raise InputError(
                f"{len(self._valid_starts)} validation items for {world} processes: use fewer"
            )
        own = self._valid_starts[rank::world]
        size = self.batch_size
        return PackedBatches(
            lambda _, batch: self.crops.batch(own[batch * size : (batch + 1) * size]),
            -(-len(own) // size),
            size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the values on which the batches depend; checkpoints contain them."""
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "training_items": len(self.train_set),
            "validation_items": len(self.valid_set),
            "recordings": f"{len(self.crops.first)} recordings, {self.digest}",
        }


def _of_instruments(pack: Pack, instruments: Sequence[str] | None) -> Tensor:
    """Return the numbers of the recordings of some instruments.

    Raises:
        InputError: the pack lacks an instrument.
    """
    if instruments is None:
        return torch.arange(len(pack.first))
    there = [_plain(name) for name in pack.metadata.instruments]
    used = set(pack.instrument.unique().tolist())
    for name in instruments:
        if _plain(name) not in there or there.index(_plain(name)) not in used:
            names = ", ".join(pack.metadata.instruments[i] for i in sorted(used))
            raise InputError(
                f"{pack.path} holds no recording of the {name}, only of {names}: set "
                "instruments=[...] to some of them"
            )
    numbers = torch.tensor([there.index(_plain(name)) for name in instruments])
    return torch.isin(pack.instrument, numbers).nonzero()[:, 0]
