"""The data of a run: seeded split by file, loaders, latent statistics."""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, random_split
from tqdm import tqdm

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.codec import Codec
from audio_diffusion_pytorch.errors import InputError


class EpochSampler(Sampler):
    """A permutation per epoch, keyed by (seed, epoch); tells the data set its epoch. Lightning calls `set_epoch`."""

    def __init__(self, dataset: Dataset, seed: int, shuffle: bool = True):
        self.dataset, self.seed, self.shuffle, self.epoch = dataset, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(len(self.dataset)))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(len(self.dataset), generator=generator).tolist())


class Datamodule(pl.LightningDataModule):
    """Loaders over any map-style data set whose items are tensors [C, T].

    Args:
        dataset: an `InstrumentDataset`, which is split by file, or any other data set, which is split by index.
        valid_split: share of validation.
        max_valid_items: upper limit of validation items (None: all).
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
    ):
        super().__init__()
        if not 0 < valid_split < 1:
            raise InputError(f"datamodule.valid_split must lie between 0 and 1, not {valid_split}")
        if len(dataset) < 2:
            raise InputError("the data set has fewer than two items: nothing to split into training and validation")
        self.batch_size, self.num_workers, self.pin_memory, self.seed = batch_size, num_workers, pin_memory, seed
        if hasattr(dataset, "split"):
            self.train_set, self.valid_set = dataset.split(valid_split, seed)
        else:
            count = min(max(1, round(len(dataset) * valid_split)), len(dataset) - 1)
            generator = torch.Generator().manual_seed(seed)
            self.train_set, self.valid_set = random_split(dataset, [len(dataset) - count, count], generator)
        if max_valid_items is not None and len(self.valid_set) > max_valid_items:
            # Spread over the files, not the first few.
            chosen = torch.linspace(0, len(self.valid_set) - 1, max_valid_items).long().unique().tolist()
            self.valid_set = Subset(self.valid_set, chosen)
        if len(self.train_set) < batch_size:
            raise InputError(
                f"{len(self.train_set)} training items do not fill one batch of {batch_size}: add recordings, lower "
                "datamodule.batch_size or raise datamodule.dataset.crops_per_file"
            )

    def _loader(self, dataset: Dataset, shuffle: bool) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(dataset, self.seed, shuffle),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            drop_last=shuffle,
            worker_init_fn=_one_thread,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.valid_set, shuffle=False)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


@torch.no_grad()
def latent_statistics(codec: Codec, datamodule: Datamodule, max_items: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation [D] per latent channel, and the RMS of the sounding parts (median, scalar).

    Over crops of the training files, as training sees them.
    """
    loader = datamodule.train_dataloader()
    total = min(len(loader), max(1, max_items // datamodule.batch_size))
    count, sums, squares, levels = 0, 0.0, 0.0, []
    for index, wav in enumerate(tqdm(loader, desc="latent statistics", total=total, unit="batch")):
        if index == total:
            break
        latents = codec.encode(wav).double()
        count += latents.shape[0] * latents.shape[2]
        sums = sums + latents.sum((0, 2))
        squares = squares + latents.square().sum((0, 2))
        levels += [active_rms(item, codec.sample_rate) for item in wav]
    mean = sums / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), std.clamp_min(1e-3 * std.max()).float(), torch.tensor(levels).median()
