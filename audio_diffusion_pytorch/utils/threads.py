"""Number of computing threads of a command."""

from __future__ import annotations

import glob
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_SMALL = 20_000_000  # parameters; the shipped models have 3 million, the paper's 302 million
_INTERVAL = 0.05  # seconds between two measurements
# Share of time that threads wait for a core: a half if another program occupies one of two cores, otherwise a few
# percent.
_CROWDED = 0.2
_RETRY = 30.0  # seconds until all threads are used again
_QUOTAS = (  # of control groups, for containers: microseconds of each period
    Path("/sys/fs/cgroup/cpu.max"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
)


def available_cpus() -> int:
    """Return the number of processors available to this process, by its affinity and its container's quota."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; respects -X cpu_count
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota())))


def _quota() -> float:
    """Processors by the quota of the container; infinite without a quota."""
    for path in _QUOTAS:
        try:
            quota = path.read_text().split()
            period = quota[1] if len(quota) > 1 else path.with_name("cpu.cfs_period_us").read_text()
            if float(quota[0]) > 0:
                return float(quota[0]) / float(period)
        except (OSError, ValueError, IndexError):  # the file is missing, or contains "max"
            continue
    return math.inf


def parameters(*modules: nn.Module) -> int:
    """Return the number of parameters of the largest module."""
    return max((sum(p.numel() for p in module.parameters()) for module in modules), default=0)


def set_threads(size: int = 0, processes: int = 1, spare: bool = False) -> int:
    """Set the number of torch's computing threads, unless OMP_NUM_THREADS is set.

    Args:
        size: parameters of the largest network.
        processes: processes that share the machine.
        spare: leave one core to a loader's process if the network is small. Threads of a small network synchronise
            every few microseconds, so all wait for a thread whose core is occupied: on two cores, training with one
            thread is faster than with two (benchmarks/busy.py).

    Returns:
        The number of threads.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        free = 1 if spare and processes == 1 and size < _SMALL else 0
        torch.set_num_threads(max(1, (available_cpus() - free) // processes))
    return torch.get_num_threads()


class ThreadGuard:
    """Use one thread fewer while another program occupies a core; call it regularly in the computing thread.

    Threads synchronise at the end of each operation. If one waits for its core, all wait, and two threads can be ten
    times slower than one.

    Args:
        most: threads on an idle machine; None: the current number of torch's threads. If OMP_NUM_THREADS is set, the
            number of threads does not change.
    """

    def __init__(self, most: int | None = None):
        import torch

        self.most = most or (1 if "OMP_NUM_THREADS" in os.environ else torch.get_num_threads())
        self.threads = self.most
        self.again = 0.0
        self._measure()

    def __call__(self, *_: Any) -> None:
        """Measure, and adapt the number of threads; arguments are ignored."""
        import torch

        now = time.perf_counter()
        seconds = now - self.seen
        if self.most == 1 or seconds < _INTERVAL:
            return
        crowded = (_waited() - self.waited) / seconds > _CROWDED
        if self.threads == self.most and crowded:
            self.threads = self.most - 1
            self.again = now + _RETRY
            torch.set_num_threads(self.threads)
        elif self.threads < self.most and now > self.again:
            self.threads = self.most
            torch.set_num_threads(self.threads)
        self._measure()

    def watch(self, *modules: nn.Module) -> None:
        """Call the guard before each forward pass of the modules."""
        for module in modules:
            module.register_forward_pre_hook(self)

    def _measure(self) -> None:
        self.seen = time.perf_counter()
        self.waited = _waited()


def _waited() -> float:
    """Seconds that runnable threads of this process waited for a core; 0 if the system does not count them."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may have ended
            total += int(Path(path).read_text().split()[1])
    return total / 1e9
