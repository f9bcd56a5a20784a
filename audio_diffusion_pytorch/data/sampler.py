"""The order of a run's items: a permutation for each epoch, shared by several processes, resumed in its middle."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler


class Index(int):
    """The number of an item, with the epoch that asks for it: a loader's processes outlive an epoch."""

    epoch: int

    def __new__(cls, number: int, epoch: int) -> "Index":
        self = super().__new__(cls, number)
        self.epoch = epoch
        return self

    def __reduce__(self) -> tuple:
        return Index, (int(self), self.epoch)


class InEpochs(Dataset):
    """A data set that is told the epoch of each `Index`, in whichever process it is read."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def share(self) -> None:
        """See `InstrumentDataset.share`."""
        if hasattr(self.dataset, "share"):
            self.dataset.share()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Index) -> Any:
        if isinstance(index, Index):
            self.dataset.set_epoch(index.epoch)
        return self.dataset[int(index)]


class EpochSampler(Sampler):
    """A permutation per epoch, keyed by (seed, epoch); tells the data set its epoch. Lightning calls `set_epoch`.

    Of several processes each takes its share: batch b of process r of W holds positions (b W + r) B to
    (b W + r + 1) B, so that together they take what one process takes with batches of W B. Without shuffling
    (validation) process r takes every W-th item from r on, and no item twice.

    A run that resumes in the middle of an epoch calls `resume`: in that epoch the items seen before come last.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        shuffle: bool = True,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.seed, self.shuffle, self.epoch = dataset, seed, shuffle, 0
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.resumed = (0, 0)  # epoch, items of it that were seen by all processes together

    def resume(self, epoch: int, seen: int) -> None:
        self.resumed = (epoch, seen)
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        if not self.shuffle:
            return len(range(self.rank, len(self.dataset), self.world))
        return len(self.dataset) // (self.batch_size * self.world) * self.batch_size

    def order(self) -> list[int]:
        """The epoch's permutation, of all processes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.dataset), generator=generator).tolist()

    def batch(self, order: list[int], index: int) -> list[int]:
        """This process's items of the epoch's batch `index`."""
        first = (index * self.world + self.rank) * self.batch_size
        return order[first : first + self.batch_size]

    def __iter__(self) -> Iterator[Index]:
        items = list(range(self.rank, len(self.dataset), self.world))
        if self.shuffle:
            order = self.order()
            epoch, seen = self.resumed
            if epoch == self.epoch:
                order = order[seen:] + order[:seen]
            items = [
                item
                for index in range(len(self) // self.batch_size)
                for item in self.batch(order, index)
            ]
        return iter([Index(item, self.epoch) for item in items])
