"""Loaders with processes: the same items for every start method, and one line for each error."""

import multiprocessing
import multiprocessing.synchronize
import os
import re
import signal
import threading
import time
import warnings

import pytest
import soundfile
import torch
from conftest import RATE, damage, melody
from torch.utils.data import Dataset, Subset

from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.loader import (
    Loader,
    batches_of,
    explain_loader_error,
    start_worker,
)
from audio_diffusion_pytorch.data.pitch_shift import PitchShift
from audio_diffusion_pytorch.errors import InputError

METHODS = [
    method
    for method in ("forkserver", "spawn")
    if method in multiprocessing.get_all_start_methods()
]


@pytest.fixture
def dataset(tmp_path) -> InstrumentDataset:
    """Data set with all options, and a file that is damaged after its header."""
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(3):
        soundfile.write(folder / f"flute_{index}.wav", melody(seed=index), RATE)
    soundfile.write(folder / "flute_bad.flac", melody(4.0, seed=9), RATE)
    damage(folder / "flute_bad.flac")
    return InstrumentDataset(
        folder,
        ["flute"],
        length=4800,
        augment=RecordingAugment(),
        pitch_shift=PitchShift(-1, tmp_path / "shifted", 0.5),
        labels=["flute"],
        crops_per_file=4,
    )


@pytest.mark.parametrize(
    "method", METHODS[:1] + [pytest.param(other, marks=pytest.mark.long) for other in METHODS[1:]]
)
@pytest.mark.long
def test_items_do_not_depend_on_how_processes_start(method, dataset):
    """Python 3.14 uses forkserver, macOS and Windows use spawn: both pickle the data set."""
    dataset.prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [item for item, _ in Loader(dataset, 4)]
    dataset.recordings.reported.zero_()
    part, first = Subset(dataset, range(len(dataset))), dict(worker_init_fn=start_worker)
    loader = Loader(part, 4, num_workers=1, multiprocessing_context=method, **first)
    with batches_of(loader) as batches:
        found = [item for item, _ in batches]
    assert len(found) == 4 and all(map(torch.equal, found, expected))
    assert dataset.recordings.reported.sum() == 1  # the processes share this list


def test_without_processes_no_shared_memory_is_needed(dataset, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError(
            "unable to open shared memory object </torch_1_2_3> in read-write mode: Read-only (30)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    good = [file for file in dataset.wavs if "bad" not in file]
    _, unvaried = dataset.split(0.5, 0)
    assert next(iter(Loader(unvaried.with_files(good), 2)))[0].shape == (2, 1, 4800)
    with pytest.raises(InputError, match=r"no space in /dev/shm.*datamodule.num_workers=0"):
        iter(Loader(dataset, 2, num_workers=1))


def test_semaphores_without_shared_memory(dataset, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
    with pytest.raises(InputError, match=r"no space in /dev/shm.*Read-only file system"):
        iter(Loader(dataset, 2, num_workers=1))


def test_a_data_set_that_cannot_be_sent():
    loader = Loader(
        Failing(lambda: torch.zeros(1)), num_workers=1, multiprocessing_context=METHODS[-1]
    )
    with pytest.raises(InputError, match=r"cannot be sent .*lambda.*datamodule.num_workers=0"):
        iter(loader)


@pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="this system cannot block signals"
)
def test_processes_do_not_get_the_interrupt():
    """SIGINT is blocked from their start, even during slow imports; this process receives it."""
    loader = Loader(Blocked(), num_workers=1)
    with batches_of(loader) as batches:
        assert next(batches).item() == 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert threading.current_thread() is threading.main_thread()


class Blocked(Dataset):
    """1 if SIGINT is blocked."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return int(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


class Failing(Dataset):
    """Run an action in a loader's process."""

    def __init__(self, action):
        self.action = action

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.action()


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def hangs():
    time.sleep(60)


def no_shared_memory():
    # The message of torch if /dev/shm is full; filling it here would disturb other programs.
    raise RuntimeError("unable to write to file </torch_1234_5678_0>: No space left on device (28)")


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (killed, "a process of the loader died .*ckpt=last"),
        # The message names the signal only if torch's handler runs before the queue fails.
        (
            bus_error,
            "(no space in /dev/shm|a process of the loader died).*datamodule.num_workers",
        ),
        (no_shared_memory, "no space in /dev/shm.*datamodule.num_workers=0"),
        (hangs, "cannot be read in time"),
    ],
)
def test_a_loader_process_that_dies_or_hangs_ends_the_run(action, says):
    loader = Loader(Failing(action), num_workers=1, timeout=5 if "time" in says else 0)
    with pytest.raises(RuntimeError) as caught:
        next(iter(loader))
    error = explain_loader_error(caught.value)
    assert isinstance(error, InputError) and re.search(says, str(error)) and "\n" not in str(error)
    other = RuntimeError("something else")
    assert explain_loader_error(other) is other
