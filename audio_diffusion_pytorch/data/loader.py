"""Data loaders whose processes start by fork, forkserver or spawn, and their errors in one line."""

import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from audio_diffusion_pytorch.errors import InputError

_NO_SHARED_MEMORY = (
    "no space in /dev/shm, through which the loader's processes send their batches: enlarge it "
    "(docker run --shm-size=8g), or load in this process with datamodule.num_workers=0"
)


class Loader(DataLoader):
    """`DataLoader` whose processes ignore Ctrl-C and whose start-up errors are one line.

    Iterating raises `InputError` if the data set cannot be pickled for other processes, or if
    shared memory is unavailable.
    """

    def __iter__(self) -> Any:
        if self.num_workers == 0:
            return super().__iter__()
        context = self.multiprocessing_context or multiprocessing.get_context()
        if context.get_start_method() == "forkserver":
            # Training and validation start processes of their own: import only once for all.
            multiprocessing.set_forkserver_preload(["audio_diffusion_pytorch.data.dataset"])
        try:
            context.Lock()  # torch's iterator would print a traceback if locks are unavailable
            _share(self.dataset)
            with _interrupts_blocked():
                return super().__iter__()
        except OSError as error:  # semaphores are in shared memory, too
            raise InputError(f"{_NO_SHARED_MEMORY} ({error})") from error
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if not any(word in str(error) for word in ("pickle", "local object")):
                raise
            raise InputError(
                f"the data set cannot be sent to the loader's processes ({error}): define its "
                "parts in a module, not inside a function or as a lambda, or set "
                "datamodule.num_workers=0"
            ) from error
        except RuntimeError as error:
            _raise_explained(error)


def _share(dataset: Dataset) -> None:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if hasattr(dataset, "share"):
        dataset.share()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes with SIGINT blocked; deliver a pending SIGINT to this process afterwards."""
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
    """Iterate a loader inside a `with` block, and end its processes with the block.

    The traceback of an error would keep the processes alive. Python's exit then waits forever: it
    sends one SIGTERM, which `start_worker` ignores.

    Args:
        loader: the loader.

    Yields:
        Iterator over the batches.

    Raises:
        InputError: a process of the loader failed, see `explain_loader_error`.
    """
    batches: Any = iter(loader)
    try:
        yield batches
    except RuntimeError as error:
        _raise_explained(error)
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # as torch does when it deletes the iterator


def start_worker(worker: int) -> None:
    """Initialise a process of a loader: one thread; ignore signals that the main process handles.

    Args:
        worker: number of the process; unused.
    """
    torch.set_num_threads(1)
    # Ctrl-C and the signals of a cluster reach every process. The main one handles the signal, and
    # needs further batches until it ends.
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _restore_sigterm)


def _restore_sigterm(*_: Any) -> None:
    """Ignore the first SIGTERM; the second one ends the process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_explained(error: RuntimeError) -> NoReturn:
    explained = explain_loader_error(error)
    if explained is error:
        raise error
    raise explained from error


def explain_loader_error(error: RuntimeError, resume: str = "ckpt=last") -> Exception:
    """Translate an error of the loader's processes into one line with a remedy.

    Args:
        error: error of an iteration.
        resume: arguments that resume the run, see `resume_arguments`.

    Returns:
        An `InputError`, or `error` itself if the loader did not cause it.
    """
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    full = "torch_" in text and "No space left" in text
    if full or "Bus error" in text or "shared memory" in text:
        return InputError(_NO_SHARED_MEMORY)
    if "DataLoader timed out" in text:
        return InputError(
            f"the recordings cannot be read in time ({text}): check their disk or network"
        )
    dead = "killed by signal" in text or "exited unexpectedly" in text
    if "DataLoader worker" in text and dead:
        return InputError(
            f"a process of the loader died ({text}); if memory ran out, lower "
            f"datamodule.num_workers. Resume with {resume}"
        )
    return error
