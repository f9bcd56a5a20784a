"""Loaders whose processes start in any way that Python has (fork, forkserver, spawn), and what goes wrong in them."""

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from audio_diffusion_pytorch.errors import InputError

_NO_SHARED_MEMORY = (
    "no space in /dev/shm, through which the loader's processes hand over their batches: enlarge it "
    "(docker run --shm-size=8g), or load in this process with datamodule.num_workers=0"
)


class Loader(DataLoader):
    """A `DataLoader` whose processes ignore Ctrl-C from their start on, and which says in a line why none can start.

    Iterating raises `InputError` where the data set cannot be sent to other processes, or there is no shared memory.
    """

    def __iter__(self):
        if self.num_workers == 0:
            return super().__iter__()
        context = self.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() == "forkserver":
            # What it has imported, its processes need not: training and validation start their own.
            multiprocessing.set_forkserver_preload(["audio_diffusion_pytorch.data.dataset"])
        try:
            context.Lock()  # torch's iterator, where it fails to make one, leaves a traceback
            _share(self.dataset)
            with _interrupts_wait():
                return super().__iter__()
        except OSError as error:  # semaphores lie there, too
            raise InputError(f"{_NO_SHARED_MEMORY} ({error})") from error
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if not any(word in str(error) for word in ("pickle", "local object")):
                raise
            raise InputError(
                f"the data set cannot be sent to the loader's processes ({error}): define its parts in a module, not "
                "inside a function or as a lambda, or set datamodule.num_workers=0"
            ) from error
        except RuntimeError as error:
            _raise_explained(error)


def _share(dataset: Dataset) -> None:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if hasattr(dataset, "share"):
        dataset.share()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Processes that are started inside do not get SIGINT; one that comes meanwhile reaches this process afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def batches_of(loader: DataLoader) -> Iterator[Iterator]:
    """The batches of a loader, whose processes end with the block, however it ends.

    An error's traceback would keep them until Python's exit, which waits for ever: it sends one SIGTERM, which
    `start_worker` lets pass.
    """
    batches = iter(loader)
    try:
        yield batches
    except RuntimeError as error:
        _raise_explained(error)
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # what torch does when the iterator is deleted


def start_worker(worker: int) -> None:
    """What every process of a loader does first."""
    torch.set_num_threads(1)
    # Ctrl-C reaches every process, as do the signals of a cluster; the main one decides, and still needs batches.
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(
        signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL)
    )  # the second one ends it


def _raise_explained(error: RuntimeError) -> NoReturn:
    told = explain_loader_error(error)
    if told is error:
        raise error
    raise told from error


def explain_loader_error(error: RuntimeError, resume: str = "ckpt=last") -> Exception:
    """What to tell the user of an error of the loader's processes; any other comes back as it is.

    Args:
        resume: see `resume_arguments`.
    """
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if (
        "Bus error" in text
        or "shared memory" in text
        or ("torch_" in text and "No space left" in text)
    ):
        return InputError(_NO_SHARED_MEMORY)
    if "DataLoader timed out" in text:
        return InputError(
            f"the recordings cannot be read in time ({text}): is the disk or network they lie on at work?"
        )
    if "DataLoader worker" in text and (
        "killed by signal" in text or "exited unexpectedly" in text
    ):
        return InputError(
            f"a process of the loader died ({text}); where memory ran out, lower "
            f"datamodule.num_workers. Resume with {resume}"
        )
    return error
