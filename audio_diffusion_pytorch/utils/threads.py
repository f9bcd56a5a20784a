"""Number of computing threads of a command."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

_SMALL = 20_000_000  # parameters; the shipped models have 3 million, the paper's 302 million
_QUOTAS = (  # of control groups, for containers: microseconds of each period
    Path("/sys/fs/cgroup/cpu.max"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
)


def available_cpus() -> int:
    """Return the number of available processors, by affinity and the container's quota."""
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
        spare: leave one core to a loader's process if the network is small. Threads of a small
            network synchronise every few microseconds, so all wait for a thread whose core is
            occupied: on two cores, training with one thread is faster than with two
            (benchmarks/busy.py).

    Returns:
        The number of threads.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        free = 1 if spare and processes == 1 and size < _SMALL else 0
        torch.set_num_threads(max(1, (available_cpus() - free) // processes))
    return torch.get_num_threads()


def let_threads_yield() -> None:
    """Let waiting threads of torch give up their core soon; call it before torch is imported.

    Threads of OpenMP spin while they wait for each other. If another program occupies one of two
    cores, the spinning threads take the core from the one they wait for: a transfer takes ten
    times as long. Environment variables of the user win (`benchmarks/busy.py` has the figures).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"  # iterations, some microseconds


def map_rows(function: Callable[..., Tensor], rows: Tensor, *others: Tensor) -> Tensor:
    """Apply a function without gradients to the rows of batches; each thread computes some rows.

    Threads that share the work of a layer wait for each other after every layer, and all of them
    wait for a thread whose core another program occupies. Threads with rows of their own wait once
    (`benchmarks/busy.py` has the figures). Networks on a GPU receive all rows together.

    Args:
        function: maps rows to as many rows, each independently of the others.
        rows: [B, ...].
        others: further arguments of the function, each [B, ...]; their rows stay beside `rows`.

    Returns:
        [B, ...]; the last digits depend on the number of threads.
    """
    import torch

    threads = torch.get_num_threads()
    parts = min(threads, len(rows)) if rows.device.type == "cpu" else 1
    if parts < 2:
        return function(rows, *others)

    def run(*part: Tensor) -> Tensor:
        torch.set_num_threads(threads // parts)  # of this thread alone
        with torch.inference_mode():
            return function(*part)

    with ThreadPoolExecutor(parts) as pool:
        return torch.cat(list(pool.map(run, *(x.chunk(parts) for x in (rows, *others)))))
