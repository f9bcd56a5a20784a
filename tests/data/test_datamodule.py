"""Loaders, the split, a user's own data set and transforms, and the latents' statistics."""

import os

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, melody
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tolerances import NETWORK
from torch.utils.data import Dataset

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.data.datamodule import Datamodule, EpochSampler
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_statistics import latent_statistics
from audio_diffusion_pytorch.errors import InputError


class Numbers(Dataset):
    """A user's data set: ten items without files."""

    def __init__(self, length: int, count: int = 10):
        self.length, self.count = length, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((1, self.length), float(index))


def test_a_users_own_data_set_goes_in_by_its_name():
    config = OmegaConf.load(ROOT / "exp/datamodule/default.yaml")
    config.dataset = {"_target_": f"{__name__}.Numbers", "length": 3}
    data = instantiate(config, batch_size=4, num_workers=0, seed=0, cache_dir=None)
    train, valid = (
        torch.cat([b[:, 0, 0] for b in loader]).tolist()
        for loader in (data.train_dataloader(), data.val_dataloader())
    )
    assert len(train) == 8 and len(valid) == 2 and sorted(train + valid) == list(range(10))


@pytest.mark.filterwarnings("ignore")
def test_the_transforms_of_the_data_library(recordings):
    config = OmegaConf.create(
        {
            "_target_": "audio_diffusion_pytorch.data.dataset.InstrumentDataset",
            "path": str(recordings),
            "instruments": ["flute"],
            "length": 9600,
            "transforms": {
                "_target_": "audio_data_pytorch.AllTransform",
                "source_rate": RATE,
                "target_rate": RATE,
                "crop_size": 4800,
                "stereo": True,
            },
        }
    )
    data = Datamodule(instantiate(config), batch_size=2)
    assert next(iter(data.train_dataloader())).shape == (2, 2, 4800)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders(workers, recordings):
    data = Datamodule(
        InstrumentDataset(str(recordings), length=4800, crops_per_file=2),
        batch_size=3,
        num_workers=workers,
    )
    loaders = data.train_dataloader(), data.val_dataloader()
    train, valid = (list(loader) for loader in loaders)
    assert [len(b) for b in train] == [3] * 16 and [len(b) for b in valid] == [3, 3]
    assert all(torch.equal(a, b) for a, b in zip(valid, data.val_dataloader(), strict=True))
    loaders[0].sampler.set_epoch(1)
    assert not torch.equal(torch.cat(train), torch.cat(list(loaders[0])))
    loaders[0].sampler.set_epoch(0)
    assert torch.equal(torch.cat(train), torch.cat(list(loaders[0])))


def test_the_sampler_resumes_in_the_middle_of_its_epoch():
    sampler, other = EpochSampler(Numbers(1), seed=3), EpochSampler(Numbers(1), seed=3)
    other.resume(4, 6)
    sampler.set_epoch(4)
    assert list(other)[:4] == list(sampler)[6:] and sorted(other) == list(range(10))
    other.set_epoch(5)
    sampler.set_epoch(5)
    assert list(other) == list(sampler)


def test_validation_is_limited_evenly():
    data = Datamodule(Numbers(1, 100), batch_size=1, valid_split=0.5, max_valid_items=5)
    assert len(data.valid_set) == 5 and len(data.train_set) == 50
    assert np.diff(data.valid_set.indices).min() > 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"valid_split": 0}, "valid_split"),
        ({"valid_split": 1.0}, "valid_split"),
        ({"batch_size": 9}, "8 training items do not fill one batch of 9"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "all"}, "batch_size=all"),
        ({"num_workers": -1}, "num_workers=-1"),
    ],
)
def test_wrong_settings(settings, says):
    with pytest.raises(InputError, match=says):
        Datamodule(Numbers(1), **{"batch_size": 2, **settings})
    with pytest.raises(InputError, match="fewer than two items"):
        Datamodule(Numbers(1, 1), batch_size=1)


def few(folder, count: int, **settings) -> Datamodule:
    for index in range(count):
        soundfile.write(folder / f"flute_{index}.wav", melody(2, seed=index), RATE)
    dataset = {key: settings.pop(key) for key in ("labels", "crops_per_file") if key in settings}
    return Datamodule(
        InstrumentDataset(str(folder), length=4800, **dataset), batch_size=5, **settings
    )


@pytest.mark.parametrize("labels", [None, ["plain", "varied"]])
@pytest.mark.parametrize("files", [1, 2, 3, 12])
def test_an_epoch_of_a_few_recordings_has_many_batches(files, labels, tmp_path, caplog):
    """This includes recordings that fill one or two batches."""
    caplog.set_level("INFO")
    data = few(tmp_path, files, labels=labels, max_valid_items=8, crops_per_file=3)
    data.announce()
    crops = data.train_set.crops_per_file
    assert (
        f"{len(data.train_set.wavs)} training files: an epoch reads {crops} crops of each file"
        in caplog.text
    )
    assert 16 <= len(data.train_dataloader()) < 20 and len(data.valid_set) == 8
    batch = next(iter(data.train_dataloader()))
    assert (batch if labels is None else batch[0]).shape == (5, 1, 4800)


def test_many_recordings_yield_the_configured_crops(tmp_path, caplog):
    caplog.set_level("INFO")
    data = few(tmp_path, 3, crops_per_file=40)
    data.announce()
    assert data.train_set.crops_per_file == data.valid_set.crops_per_file == 40
    assert not caplog.text


def test_few_recordings_in_the_latent_cache(codec, tmp_path):
    data = few(tmp_path, 3, cache=True, cache_dir=tmp_path / "cache")
    assert data.use_cache(codec)
    loader = data.train_dataloader()
    assert 16 <= len(loader) < 20 and next(iter(loader)).shape == (5, 128, 15)
    data.fill(processes=2)  # each of the processes has 16 batches
    assert 32 * 5 <= len(data.train_set) < 40 * 5


def test_a_run_of_an_earlier_version_keeps_its_epochs(tmp_path):
    """An earlier version raised the configured crops only if they did not fill a batch."""
    data = few(tmp_path, 5, crops_per_file=2)
    assert len(data.train_set) == 80
    data.load_state_dict({"training_items": 8})
    assert len(data.train_set) == 8 and len(data.valid_set) == 2
    data = few(tmp_path, 5)
    data.load_state_dict({"training_items": 80})
    assert len(data.train_set) == 80 and len(data.valid_set) == 20
    data.load_state_dict({"training_items": 9})  # of other recordings: `check_compatible` says so
    assert len(data.train_set) == 80
    again = few(tmp_path, 5, crops_per_file=2)
    again.load_state_dict(again.state_dict())
    assert len(again.train_set) == 80 and len(again.valid_set) == 10


class Processes(Numbers):
    """Items contain the epoch, and the number of the process that reads them."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def split(self, share: float, seed: int):
        return self, Processes(1)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([[float(self.epoch), os.getpid()]])


def test_the_processes_of_a_loader_outlive_an_epoch():
    data = Datamodule(Processes(1), batch_size=5, num_workers=4)
    loader, seen = data.train_dataloader(), []
    for epoch in (0, 1, 7):
        loader.sampler.set_epoch(epoch)
        seen.append(torch.cat(list(loader))[:, 0])
    assert [epoch[:, 0].unique().tolist() for epoch in seen] == [[0], [1], [7]]
    processes = {int(number) for epoch in seen for number in epoch[:, 1]}
    assert len(processes) == 2 and os.getpid() not in processes  # no more than there are batches
    data.teardown()
    assert not any(os.path.exists(f"/proc/{number}") for number in processes)


def test_statistics_are_those_of_the_training_latents(recordings, codec):
    data = Datamodule(InstrumentDataset(str(recordings), length=9600), batch_size=2)
    mean, std, level = latent_statistics(codec, data)
    crops = torch.cat(list(data.train_dataloader()))
    latents = codec.encode(crops).transpose(0, 1).flatten(1)
    # Latents lie near -6: absolute, ten times the relative rounding; the deviation is a root of a
    # difference.
    assert torch.allclose(mean, latents.mean(1), atol=10 * NETWORK)
    assert torch.allclose(std, latents.std(1, correction=0), atol=100 * NETWORK)
    assert float(level) == torch.tensor([active_rms(crop, RATE) for crop in crops]).median()


def test_channels_without_variation_are_not_divided_by_zero(codec):
    _, std, _ = latent_statistics(codec, Datamodule(Numbers(1280, 20), batch_size=2), max_items=4)
    assert (std > 0).all()
