"""How many threads a command computes with."""

import glob
import math
import os
import time
from contextlib import suppress
from pathlib import Path

_SMALL = 20_000_000  # parameters; the models that ship have 3 million, the paper's 302
_LOOK = 0.05  # seconds between two looks at the machine
# Share of the time that threads wait for a core: half where one of two is taken, else some percent.
_CROWDED = 0.2
_RETRY = 30.0  # seconds before all threads are tried again
_QUOTAS = (  # of control groups, as containers have them: microseconds in each period
    Path("/sys/fs/cgroup/cpu.max"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
)


def available_cpus() -> int:
    """Return the number of processors that this process may use: its affinity, and its container's share of time."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13, which has an option for it, too
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota())))


def _quota() -> float:
    for path in _QUOTAS:
        try:
            quota = path.read_text().split()
            period = quota[1] if len(quota) > 1 else path.with_name("cpu.cfs_period_us").read_text()
            if float(quota[0]) > 0:
                return float(quota[0]) / float(period)
        except (OSError, ValueError, IndexError):  # there is none, or it says "max"
            continue
    return math.inf


def parameters(*modules) -> int:
    """Number of parameters of the largest of some torch modules."""
    return max((sum(p.numel() for p in module.parameters()) for module in modules), default=0)


def set_threads(size: int = 0, processes: int = 1, spare: bool = False) -> int:
    """Choose how many threads torch computes with, unless the user did, by OMP_NUM_THREADS; returns the number.

    Args:
        size: parameters of the largest network.
        processes: processes that share the machine.
        spare: leave a core to a loader's process, where the network is small. Its threads wait for each other after
            every few microseconds of work, all of them for the one whose core is taken: on two cores one thread trains
            more quickly than two (benchmarks/busy.py).
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        free = 1 if spare and processes == 1 and size < _SMALL else 0
        torch.set_num_threads(max(1, (available_cpus() - free) // processes))
    return torch.get_num_threads()


class ThreadGuard:
    """Compute with one thread less while another program takes a core; called now and then, in the computing thread.

    Threads wait for each other at the end of every operation. Where one of them waits for its core they all do, and
    two can be slower than one by a factor of ten.

    Args:
        most: threads where the machine is free; by default those that torch has, and none less where the user chose
            their number, by OMP_NUM_THREADS.
    """

    def __init__(self, most: int | None = None):
        import torch

        self.most = most or (1 if "OMP_NUM_THREADS" in os.environ else torch.get_num_threads())
        self.threads, self.again = self.most, 0.0
        self._look()

    def __call__(self, *_) -> None:
        import torch

        now = time.perf_counter()
        seconds = now - self.seen
        if self.most == 1 or seconds < _LOOK:
            return
        crowded = (_waited() - self.waited) / seconds > _CROWDED
        if self.threads == self.most and crowded:
            self.threads, self.again = self.most - 1, now + _RETRY
            torch.set_num_threads(self.threads)
        elif self.threads < self.most and now > self.again:
            self.threads = self.most
            torch.set_num_threads(self.threads)
        self._look()

    def watch(self, *modules) -> None:
        """Look whenever one of some torch modules is called."""
        for module in modules:
            module.register_forward_pre_hook(self)

    def _look(self) -> None:
        self.seen, self.waited = time.perf_counter(), _waited()


def _waited() -> float:
    """Seconds for which threads of this process could have run, and had no core; 0 where the system does not say."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may just have ended
            total += int(Path(path).read_text().split()[1])
    return total / 1e9
