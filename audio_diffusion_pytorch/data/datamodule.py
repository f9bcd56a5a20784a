"""Data of a run: seeded split, loaders, and the latent cache."""

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Subset, random_split

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.encode_latents import build
from audio_diffusion_pytorch.data.latent_cache import LatentCache
from audio_diffusion_pytorch.data.loader import Loader, start_worker
from audio_diffusion_pytorch.data.sampler import EpochSampler, InEpochs, MapDataset
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_number, check_switch, wrong

# With few recordings, more crops of each prolong an epoch, because starting an epoch takes time.
_LEAST_BATCHES = 16
# A validation must not take longer than the training between two validations.
_VALID_BATCHES = 2
_TIMEOUT = 600  # seconds to wait for a batch of the loader's processes


class Datamodule(pl.LightningDataModule):
    """Loaders over any map-style data set with items [C, T], or pairs of an item and a label.

    Args:
        dataset: an `InstrumentDataset`, which is split by file, or another data set, which is split
            by index.
        batch_size: items in a batch of one process.
        num_workers: processes that read items; 0 reads in the training process.
        valid_split: share of validation, between 0 and 1.
        max_valid_items: upper limit of validation items; None for all.
        pin_memory: copy batches to pinned memory.
        seed: key of the split and of the order.
        cache: true reads crops from a latent cache, false encodes each crop; "auto" chooses the
            faster one.
        cache_dir: folder of the latent cache.
        cache_variants: variations of each recording in the cache, if recordings are varied.
        cache_engine: arguments of `Engine.from_arguments` for filling the cache; None: this
            process fills it.

    Attributes:
        train_set: training items.
        valid_set: validation items, at most `max_valid_items`.
        latents: whether items are latents [D, L] from the cache.

    Raises:
        InputError: a setting is wrong, or the items do not fill a batch.
    """

    train_set: Any
    valid_set: Any

    def __init__(
        self,
        dataset: MapDataset,
        batch_size: int = 32,
        num_workers: int = 0,
        valid_split: float = 0.2,
        max_valid_items: int | None = None,
        pin_memory: bool = False,
        seed: int = 0,
        cache: bool | Literal["auto"] = "auto",
        cache_dir: str | Path | None = None,
        cache_variants: int = 4,
        cache_engine: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not (isinstance(valid_split, float) and 0 < valid_split < 1):
            raise wrong("datamodule.valid_split", valid_split, "a number between 0 and 1")
        check_number("datamodule.batch_size", batch_size, whole=True, least=1)
        check_number("datamodule.num_workers", num_workers, whole=True, least=0)
        check_number("datamodule.cache_variants", cache_variants, whole=True, least=1)
        check_switch("datamodule.cache", cache, allowed=("auto",))
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.seed = seed
        self.cache = cache
        self.cache_dir = cache_dir
        self.cache_variants = cache_variants
        self.cache_engine = Engine.from_arguments(cache_engine or {})
        self.latents = False
        self._loaders: list[weakref.ref[DataLoader]] = []
        self._max_valid_items = max_valid_items
        # Crops of each file as configured; None for other data sets.
        self._crops_per_file: int | None = None
        if isinstance(dataset, InstrumentDataset):
            self._crops_per_file = dataset.crops_per_file
        self._set_parts(*split(dataset, valid_split, seed))
        self.fill()
        if len(self.train_set) < batch_size:
            raise InputError(
                f"{len(self.train_set)} training items do not fill one batch of {batch_size}: add "
                "recordings, lower datamodule.batch_size or raise "
                "datamodule.dataset.crops_per_file"
            )

    def _set_parts(self, train: Any, valid: Any) -> None:
        """Set the data sets; choose the validation items, spread over all files."""
        self.train_set = train
        self.valid_set = valid
        self._whole_valid_set = valid
        most = self._max_valid_items
        if most is not None and len(valid) > most:
            chosen = torch.linspace(0, len(valid) - 1, most).long().unique().tolist()
            self.valid_set = Subset(valid, chosen)

    def fill(self, processes: int = 1) -> None:
        """Raise the crops of each of a few recordings, so that an epoch has at least 16 batches.

        Validation reads at least two batches, and at least the configured crops of each recording.

        Args:
            processes: number of processes that share an epoch.
        """
        crops = self._crops_per_file
        if crops is None:
            return
        valid_crops = crops
        batch = self.batch_size * processes
        needed = -(-_LEAST_BATCHES * batch // len(self.train_set.wavs))
        if needed > crops:
            least = -(-_VALID_BATCHES * batch // len(self._whole_valid_set.wavs))
            valid_crops = max(crops, least)
            crops = needed
        self._set_crops(crops, valid_crops)

    def _set_crops(self, train: int, valid: int) -> None:
        self._set_parts(
            self.train_set.with_crops_per_file(train),
            self._whole_valid_set.with_crops_per_file(valid),
        )

    def announce(self) -> None:
        """Log the crops of each recording if they exceed the configured number."""
        train = self.train_set
        if self._crops_per_file is not None and train.crops_per_file > self._crops_per_file:
            logging.getLogger(__name__).info(
                f"{len(train.wavs)} training files: an epoch reads {train.crops_per_file} crops of "
                "each file (raise the number with datamodule.dataset.crops_per_file)"
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the crops of each recording from a checkpoint of an earlier version.

        Earlier versions raised the crops only if the recordings did not fill one batch, and raised
        those of the validation equally.

        Args:
            state: result of `state_dict`.
        """
        configured = self._crops_per_file
        if "validation_items" in state or "training_items" not in state or configured is None:
            return
        files = len(self.train_set.wavs)
        crops, rest = divmod(state["training_items"], files)
        raised = -(-_LEAST_BATCHES * self.batch_size // files)
        if not rest and crops in (configured, raised):
            self._set_crops(crops, crops)

    def state_dict(self) -> dict[str, Any]:
        """Return the values on which the batches depend; checkpoints contain them."""
        state: dict[str, Any] = {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "training_items": len(self.train_set),
            "validation_items": len(self.valid_set),
        }
        if isinstance(self.train_set, InstrumentDataset):
            state["recordings"] = self.train_set.fingerprint()
        return state

    def use_cache(self, codec: Codec, device: torch.device | str = "cpu") -> bool:
        """Read latents from the cache if the settings allow it; encode missing latents.

        Args:
            codec: encoder of the latents.
            device: device of the encoder.

        Returns:
            Whether items are latents [D, L].

        Raises:
            InputError: `cache` is true and the data cannot be cached, or the disk is too small.
        """
        if self.wants_cache(codec):
            assert self.cache_dir is not None
            cache = LatentCache(
                self.cache_dir, codec, self.train_set.sample_rate, self.cache_variants
            )
            parts = [part.with_cache(cache) for part in (self.train_set, self._whole_valid_set)]
            build(cache, parts, codec, device, self.cache_engine)
            self._set_parts(*parts)
            self.latents = True
        return self.latents

    def wants_cache(self, codec: Codec) -> bool:
        """Return whether `use_cache` would read latents.

        Args:
            codec: encoder of the latents.

        Raises:
            InputError: `cache` is true and the data cannot be cached.
        """
        problem = self._uncacheable()
        if self.cache is True and problem:
            raise InputError(f"datamodule.cache=true: {problem}; use datamodule.cache=false")
        if self.cache == "auto":
            return not problem and not codec.encodes_fast
        return self.cache is True

    def _uncacheable(self) -> str | None:
        """Return the reason why the data cannot be cached; None if they can."""
        dataset = self.train_set
        if not isinstance(dataset, InstrumentDataset):
            return "crops of your own data set may differ at every access"
        if dataset.transforms is not None:
            return "transforms work on audio, not on latents"
        if dataset.variation.octaves:
            return "octaves= moves crops of audio, not latents"
        if dataset.channels != 1:
            return "only single-channel audio is cached"
        return None if self.cache_dir is not None else "set datamodule.cache_dir"

    def prepare_data(self) -> None:
        """Create missing pitch-shifted recordings, on one process; the other processes wait."""
        if isinstance(self.train_set, InstrumentDataset):
            self.train_set.prepare(self.num_workers)

    def train_dataloader(self) -> DataLoader:
        """Make the training loader; in a resumed run, it starts where the checkpoint was saved.

        Raises:
            InputError: the items do not fill one batch of each process.
        """
        self.prepare_data()
        sampler = self._sampler(self.train_set, shuffle=True)
        if len(sampler) == 0:
            raise InputError(
                f"{len(self.train_set)} training items do not fill one batch of {self.batch_size} "
                f"for each of {sampler.world} processes: lower datamodule.batch_size or raise "
                "datamodule.dataset.crops_per_file"
            )
        if self.trainer is not None:
            loop = self.trainer.fit_loop
            begun = loop.epoch_progress.current.ready
            batches = loop.epoch_loop.batch_progress.current.ready
            if batches < len(sampler) // self.batch_size:
                sampler.resume(max(begun - 1, 0), batches * self.batch_size * sampler.world)
            else:
                sampler.resume(begun, 0)
        return self._loader(self.train_set, sampler, shuffle=True)

    def training_items(self, batch: int) -> list[int]:
        """Return the items of this process in training batch `batch` of the current epoch."""
        sampler = self._sampler(self.train_set, shuffle=True)
        sampler.epoch = self.trainer.current_epoch
        return sampler.batch(sampler.order(), batch)

    def val_dataloader(self) -> DataLoader:
        """Make the validation loader.

        Raises:
            InputError: there are fewer items than processes.
        """
        sampler = self._sampler(self.valid_set, shuffle=False)
        # A process without items would skip validation and deadlock the others.
        if len(self.valid_set) < sampler.world:
            raise InputError(
                f"{len(self.valid_set)} validation items for {sampler.world} processes: use fewer"
            )
        return self._loader(self.valid_set, sampler, shuffle=False)

    def _sampler(self, dataset: MapDataset, shuffle: bool) -> EpochSampler:
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        return EpochSampler(dataset, self.seed, shuffle, self.batch_size, rank, world)

    def _loader(self, dataset: Any, sampler: EpochSampler, shuffle: bool) -> DataLoader:
        workers = min(self.num_workers, -(-len(sampler) // self.batch_size))
        loader = Loader(
            InEpochs(dataset) if hasattr(dataset, "set_epoch") else dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            pin_memory=self.pin_memory,
            drop_last=shuffle,
            worker_init_fn=start_worker,
            timeout=_TIMEOUT if workers else 0,
            persistent_workers=workers > 0,  # starting them takes longer than a small epoch
        )
        self._loaders.append(weakref.ref(loader))
        return loader

    def teardown(self, stage: str | None = None) -> None:
        """End the processes of the loaders, for which Python's exit would wait.

        Args:
            stage: see `LightningDataModule.teardown`; unused.
        """
        for loader in filter(None, (reference() for reference in self._loaders)):
            iterator: Any = getattr(loader, "_iterator", None)
            if iterator is not None:
                iterator._shutdown_workers()
                loader._iterator = None
        self._loaders.clear()

    def on_exception(self, exception: BaseException) -> None:
        """End the processes of the loaders.

        Args:
            exception: error that ended the training.
        """
        self.teardown()


def split(dataset: Any, valid_split: float, seed: int) -> tuple[Any, Any]:
    """Split a data set by its own `split`, or by index.

    Args:
        dataset: the data set.
        valid_split: share of validation.
        seed: key of the order.

    Returns:
        Training set and validation set.

    Raises:
        InputError: a data set without `split` has fewer than two items.
    """
    if len(dataset) < 2 and not isinstance(dataset, InstrumentDataset):
        raise InputError(
            "the data set has fewer than two items: a split into training and validation needs two"
        )
    if hasattr(dataset, "split"):
        return dataset.split(valid_split, seed)
    count = min(max(1, round(len(dataset) * valid_split)), len(dataset) - 1)
    generator = torch.Generator().manual_seed(seed)
    train, valid = random_split(dataset, [len(dataset) - count, count], generator)
    return train, valid
