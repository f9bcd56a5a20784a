"""The data of a run: seeded split by file, loaders, latent statistics."""

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset, random_split

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.encode_latents import build
from audio_diffusion_pytorch.data.latent_cache import LatentCache
from audio_diffusion_pytorch.data.loader import Loader, start_worker
from audio_diffusion_pytorch.data.sampler import EpochSampler, InEpochs
from audio_diffusion_pytorch.errors import InputError

_LEAST_BATCHES = 16  # of an epoch of few recordings: starting an epoch takes time, too
_VALID_BATCHES = (
    2  # of a validation of few recordings: it must not take longer than the training between two
)
_PATIENCE = (
    600  # seconds for a batch of the loader's processes; then whatever they wait for is an error
)


class Datamodule(pl.LightningDataModule):
    """Loaders over any map-style data set whose items are tensors [C, T], or pairs of one and a label.

    Args:
        dataset: an `InstrumentDataset`, which is split by file, or any other data set, which is split by index.
        valid_split: share of validation.
        max_valid_items: upper limit of validation items (None: all).
        cache: read crops from a latent cache; "auto": where that is faster than encoding them.
        cache_dir: folder of the latent cache.
        cache_variants: variations of each recording in it, where recordings are varied.

    Attributes:
        latents: items are latents [D, L] from the cache.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 32,
        num_workers: int = 0,
        valid_split: float = 0.2,
        max_valid_items: int | None = None,
        pin_memory: bool = False,
        seed: int = 0,
        cache: bool | Literal["auto"] = "auto",
        cache_dir: str | Path | None = None,
        cache_variants: int = 4,
    ):
        super().__init__()
        if not 0 < valid_split < 1:
            raise InputError(f"datamodule.valid_split must lie between 0 and 1, not {valid_split}")
        if not (
            isinstance(batch_size, int)
            and batch_size > 0
            and isinstance(num_workers, int)
            and num_workers >= 0
        ):
            raise InputError(
                f"datamodule.batch_size={batch_size} and datamodule.num_workers={num_workers}: batch_size must be a "
                "whole number above 0, num_workers one from 0"
            )
        if cache not in (True, False, "auto"):
            raise InputError(f"datamodule.cache={cache}: use auto, true or false")
        if not (isinstance(cache_variants, int) and cache_variants > 0):
            raise InputError(
                f"datamodule.cache_variants must be a whole number above 0, not {cache_variants}"
            )
        self.cache, self.cache_dir, self.cache_variants, self.latents = (
            cache,
            cache_dir,
            cache_variants,
            False,
        )
        self._loaders: list[weakref.ref[DataLoader]] = []
        if len(dataset) < 2 and not isinstance(dataset, InstrumentDataset):
            raise InputError(
                "the data set has fewer than two items: nothing to split into training and validation"
            )
        self.batch_size, self.num_workers, self.pin_memory, self.seed = (
            batch_size,
            num_workers,
            pin_memory,
            seed,
        )
        if hasattr(dataset, "split"):
            self.train_set, self.valid_set = dataset.split(valid_split, seed)
        else:
            count = min(max(1, round(len(dataset) * valid_split)), len(dataset) - 1)
            generator = torch.Generator().manual_seed(seed)
            self.train_set, self.valid_set = random_split(
                dataset, [len(dataset) - count, count], generator
            )
        self._parts, self._max_valid_items = (self.train_set, self.valid_set), max_valid_items
        self._given_crops = (
            dataset.crops_per_file if isinstance(dataset, InstrumentDataset) else None
        )
        self.fill()
        if len(self.train_set) < batch_size:
            raise InputError(
                f"{len(self.train_set)} training items do not fill one batch of {batch_size}: add recordings, lower "
                "datamodule.batch_size or raise datamodule.dataset.crops_per_file"
            )

    def fill(self, processes: int = 1) -> None:
        """Take more crops from each of a few recordings, so that an epoch of all processes has 16 batches.

        Validation takes at least the configured crops from each recording, and at least two batches.
        """
        crops = valid_crops = self._given_crops
        train, valid = self._parts
        if crops is not None:
            batch = self.batch_size * processes
            needed = -(-_LEAST_BATCHES * batch // len(train.wavs))
            if needed > crops:
                crops, valid_crops = (
                    needed,
                    max(crops, -(-_VALID_BATCHES * batch // len(valid.wavs))),
                )
        self._take_crops(crops, valid_crops)

    def _take_crops(self, train: int | None, valid: int | None) -> None:
        """Set the crops of an epoch from each recording, and choose the validation items, spread over the files."""
        if train is not None:
            self._parts[0].crops_per_file, self._parts[1].crops_per_file = train, valid
        self.valid_set, most = self._parts[1], self._max_valid_items
        if most is not None and len(self.valid_set) > most:
            chosen = torch.linspace(0, len(self.valid_set) - 1, most).long().unique().tolist()
            self.valid_set = Subset(self.valid_set, chosen)

    def announce(self) -> None:
        """Say how many crops are taken from each recording, where they are more than configured."""
        train = self._parts[0]
        if self._given_crops is not None and train.crops_per_file > self._given_crops:
            logging.getLogger(__name__).info(
                f"{len(train.wavs)} training files: {train.crops_per_file} crops are taken from each in an epoch (set "
                "datamodule.dataset.crops_per_file for more)"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take as many crops as the run of a checkpoint took, where an earlier version of the package counted others.

        It raised the crops only where the recordings did not fill one batch, and then those of the validation alike.
        """
        train = self._parts[0]
        if (
            "validation_items" in state
            or "training_items" not in state
            or self._given_crops is None
        ):
            return
        crops, rest = divmod(state["training_items"], len(train.wavs))
        if not rest and crops in (
            self._given_crops,
            -(-_LEAST_BATCHES * self.batch_size // len(train.wavs)),
        ):
            self._take_crops(crops, crops)

    def state_dict(self) -> dict:
        """What the order and content of the batches depend on; kept in checkpoints."""
        state = {"batch_size": self.batch_size, "seed": self.seed}
        state |= {"training_items": len(self.train_set), "validation_items": len(self.valid_set)}
        if isinstance(self.train_set, InstrumentDataset):
            state["recordings"] = self.train_set.fingerprint()
        return state

    def _sampler(self, dataset: Dataset, shuffle: bool) -> EpochSampler:
        rank, world = (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )
        return EpochSampler(dataset, self.seed, shuffle, self.batch_size, rank, world)

    def use_cache(self, codec: Codec, device: torch.device | str = "cpu") -> bool:
        """Read latents from the cache from now on, where the settings say so; encodes on `device` what is missing.

        Returns:
            Whether items are latents [D, L].

        Raises:
            InputError: `cache` is true and the data set gives nothing that can be cached; or the disk is too small.
        """
        if self.wants_cache(codec):
            store = LatentCache(
                self.cache_dir, codec, self.train_set.sample_rate, self.cache_variants
            )
            for part in self._parts:
                part.cache = store
            build(store, self._parts, codec, device)
            self.latents = True
        return self.latents

    def wants_cache(self, codec: Codec) -> bool:
        """Whether `use_cache` would read latents.

        Raises:
            InputError: `cache` is true and the data set gives nothing that can be cached.
        """
        problem = self._uncacheable()
        if self.cache is True and problem:
            raise InputError(f"datamodule.cache=true: {problem}; use datamodule.cache=false")
        return self.cache is True or (
            self.cache == "auto" and not problem and not codec.encodes_fast
        )

    def _uncacheable(self) -> str | None:
        if not isinstance(self.train_set, InstrumentDataset):
            return "a data set of your own gives crops, which differ every time"
        if self.train_set.transforms is not None:
            return "transforms work on audio, not on latents"
        if self.train_set.octaves:
            return "octaves= moves crops of audio, not latents"
        if self.train_set.channels != 1:
            return "only single-channel audio is cached"
        return None if self.cache_dir is not None else "no datamodule.cache_dir is given"

    def _loader(self, dataset: Dataset, sampler: EpochSampler, shuffle: bool) -> DataLoader:
        workers = min(self.num_workers, -(-len(sampler) // self.batch_size))
        loader = Loader(
            InEpochs(dataset) if hasattr(dataset, "set_epoch") else dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            pin_memory=self.pin_memory,
            drop_last=shuffle,
            worker_init_fn=start_worker,
            timeout=_PATIENCE if workers else 0,
            persistent_workers=workers > 0,  # starting them takes longer than a small epoch
        )
        self._loaders.append(weakref.ref(loader))
        return loader

    def teardown(self, stage: str | None = None) -> None:
        """End the loaders' processes: Python's exit would wait for them."""
        for loader in filter(None, (reference() for reference in self._loaders)):
            if getattr(loader, "_iterator", None) is not None:
                loader._iterator._shutdown_workers()
                loader._iterator = None
        self._loaders.clear()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown()

    def prepare_data(self) -> None:
        """Called on one of several processes; the others wait."""
        if isinstance(self.train_set, InstrumentDataset):
            self.train_set.prepare(self.num_workers)

    def train_dataloader(self) -> DataLoader:
        if isinstance(self.train_set, InstrumentDataset):
            self.train_set.prepare(self.num_workers)
        sampler = self._sampler(self.train_set, shuffle=True)
        if len(sampler) == 0:
            raise InputError(
                f"{len(self.train_set)} training items do not fill one batch of {self.batch_size} for each of "
                f"{sampler.world} processes: lower datamodule.batch_size or raise datamodule.dataset.crops_per_file"
            )
        if self.trainer is not None:
            loop = self.trainer.fit_loop
            begun, batches = (
                loop.epoch_progress.current.ready,
                loop.epoch_loop.batch_progress.current.ready,
            )
            if batches < len(sampler) // self.batch_size:
                sampler.resume(max(begun - 1, 0), batches * self.batch_size * sampler.world)
            else:
                sampler.resume(begun, 0)
        return self._loader(self.train_set, sampler, shuffle=True)

    def training_items(self, batch: int) -> list[int]:
        """This process's items of the epoch's training batch `batch`."""
        sampler = self._sampler(self.train_set, shuffle=True)
        sampler.epoch = self.trainer.current_epoch
        return sampler.batch(sampler.order(), batch)

    def val_dataloader(self) -> DataLoader:
        sampler = self._sampler(self.valid_set, shuffle=False)
        if (
            len(self.valid_set) < sampler.world
        ):  # a process without any would not take part, and the others wait for it
            raise InputError(
                f"{len(self.valid_set)} validation items for {sampler.world} processes: use fewer"
            )
        return self._loader(self.valid_set, sampler, shuffle=False)
