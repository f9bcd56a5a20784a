"""Order of a run's items: one permutation an epoch, split among processes, resumable mid-epoch."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset, Sampler


class MapDataset(Protocol):
    """Data set with a length; torch's `Dataset` declares none."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int) -> Any:
        """Return an item: a tensor [C, T], or a pair of such a tensor and its label."""


class Index(int):
    """Number of an item and its epoch; the worker processes of a loader outlive an epoch."""

    epoch: int

    def __new__(cls, number: int, epoch: int) -> "Index":
        """Make an integer with an epoch."""
        self = super().__new__(cls, number)
        self.epoch = epoch
        return self

    def __reduce__(self) -> tuple:
        return Index, (int(self), self.epoch)


class InEpochs(Dataset):
    """Data set that sets the epoch of each `Index`, in the process that reads the item.

    Args:
        dataset: data set with `set_epoch`.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def share(self) -> None:
        """Share the state of the data set with processes that start later, if it has any."""
        if hasattr(self.dataset, "share"):
            self.dataset.share()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Index):
            self.dataset.set_epoch(index.epoch)
        return self.dataset[int(index)]


class EpochSampler(Sampler):
    """Permutation of the items for each epoch, keyed by (seed, epoch), for one of W processes.

    With shuffling, batch b of rank r holds positions (b W + r) B to (b W + r + 1) B, so all
    processes together read what one process reads with batches of W B items. Without shuffling
    (validation), rank r reads items r, r + W, r + 2 W, ..., each once.

    Args:
        dataset: data set; its `set_epoch` is called, if it has one.
        seed: key of the permutations.
        shuffle: permute the items and drop the last incomplete batch.
        batch_size: items B in a batch of one process.
        rank: number r of this process.
        world: number W of processes.
    """

    def __init__(
        self,
        dataset: MapDataset,
        seed: int,
        shuffle: bool = True,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset = dataset
        self.seed = seed
        self.shuffle = shuffle
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.resumed = (0, 0)  # an epoch, and the number of its items that all processes read

    def resume(self, epoch: int, seen: int) -> None:
        """Continue in the middle of an epoch, in which the items already read come last.

        Args:
            epoch: the epoch.
            seen: number of items that all processes together read before.
        """
        self.resumed = (epoch, seen)
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Select an epoch; Lightning calls this."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        if not self.shuffle:
            return len(range(self.rank, len(self.dataset), self.world))
        return len(self.dataset) // (self.batch_size * self.world) * self.batch_size

    def order(self) -> list[int]:
        """Return the permutation of the epoch, for all processes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.dataset), generator=generator).tolist()

    def batch(self, order: list[int], index: int) -> list[int]:
        """Return the items of this process in batch `index`."""
        first = (index * self.world + self.rank) * self.batch_size
        return order[first : first + self.batch_size]

    def __iter__(self) -> Iterator[Index]:
        unshuffled = range(self.rank, len(self.dataset), self.world)
        items = self._shuffled() if self.shuffle else unshuffled
        return iter([Index(item, self.epoch) for item in items])

    def _shuffled(self) -> list[int]:
        order = self.order()
        epoch, seen = self.resumed
        if epoch == self.epoch:
            order = order[seen:] + order[:seen]
        batches = len(self) // self.batch_size
        return [item for index in range(batches) for item in self.batch(order, index)]
