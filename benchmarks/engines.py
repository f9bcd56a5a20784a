"""Benchmark the engines of a transfer: local processes and Ray actors, each with one core.

python benchmarks/engines.py [--clips 200] [--seconds 10] [--counts 1 2]

All figures but the total are seconds of the processor, so other programs hardly change them. Work
is the time in which workers transfer files. Start-up is all other time until each worker has begun
a file: libraries and models in the workers, and the daemons of Ray. Overhead is all other time
from then on, of the command, the workers and the daemons, relative to the work in that time.
Target: at most 5 %. Needs /proc (Linux).
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of all engines alike, before torch is imported

import numpy as np
import soundfile
from measuring import Table

from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.engine.options import RayOptions
from audio_diffusion_pytorch.transfer.progress import TransferProgress
from audio_diffusion_pytorch.transfer.resolve import resolve_jobs
from audio_diffusion_pytorch.transfer.run import TransferRun

RATE = 24000
AIM = 0.05


@dataclass(frozen=True)
class MeasuredRun(TransferRun):
    """Run whose workers keep two clocks in a file each: seconds before their work, and of it."""

    clocks: str = ""

    def do(self, bridge: Any, jobs: Any, tell: Any) -> None:
        path = Path(self.clocks, str(os.getpid()))
        now = time.process_time()
        start, work = map(float, path.read_text().split()) if path.exists() else (now, 0.0)

        def measured(*event: Any) -> None:
            nonlocal now, work
            work += time.process_time() - now
            path.write_text(f"{start} {work}")
            tell(*event)
            now = time.process_time()

        super().do(bridge, jobs, measured)

    def read_clocks(self) -> dict[int, tuple[float, ...]]:
        """Return both clocks of each worker, by process."""
        files = Path(self.clocks).iterdir()
        return {int(path.name): tuple(map(float, path.read_text().split())) for path in files}


class Clocks(TransferProgress):
    """Progress that reads the processes when all workers have begun, and at the last event."""

    workers: int
    first: dict[int, float] | None = None
    last: dict[int, float]

    def __call__(self, event: str, job: Any, value: Any) -> None:
        super().__call__(event, job, value)
        if self.first is None and len(os.listdir(self.run.clocks)) == self.workers:
            self.first = seconds_of_processes()
        if self.counts["done"] == len(self.jobs):
            self.last = seconds_of_processes()


def seconds_of_processes() -> dict[int, float]:
    """Seconds of the processor of this process and of each living descendant."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        process = int(stat.parent.name)
        parents[process] = int(fields[1])
        # user and system time, also of ended children
        seconds[process] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def is_ours(process: int) -> bool:
        while process not in (os.getpid(), 0):
            process = parents.get(process, 0)
        return process != 0

    return {process: seconds[process] for process in seconds if is_ours(process)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=200, help="number of clips (default 200)")
    parser.add_argument("--seconds", type=float, default=10, help="length of a clip (default 10)")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1, 2], help="numbers of workers (default 1 2)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder) / "in", args.clips, args.seconds)
        table = Table("engine", "workers", "total, s", "start-up, s", "work, s", "overhead", "aim")
        for engine in ("local", "ray"):
            for count in args.counts:
                table.row(engine, count, *measure(Path(folder), engine, count))


def write_clips(folder: Path, count: int, seconds: float) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    times = np.arange(int(seconds * RATE)) / RATE
    for index in range(count):
        pitch = 440 * 2 ** (rng.integers(0, 12) / 12)
        wav = sum(np.sin(2 * np.pi * pitch * k * times) / k for k in range(1, 6))
        soundfile.write(folder / f"{index:04}.wav", 0.2 * wav, RATE)


def measure(folder: Path, engine: str, count: int) -> list[str]:
    clocks = folder / f"clocks-{engine}{count}"
    clocks.mkdir()
    bridge = {"batch_size": 4}
    run = MeasuredRun("flute", "violin", "cpu", bridge, overwrite=True, clocks=str(clocks))
    plan = resolve_jobs(str(folder / "in"), str(folder / f"{engine}{count}"), None, None)
    progress = Clocks(run, run.load(), plan)
    progress.workers = count
    options = None if engine == "local" else RayOptions(actors=count, cpus=1)
    before = sum(seconds_of_processes().values())
    started = time.perf_counter()
    progress.run_jobs(Engine(count if options is None else 1, options))
    total = time.perf_counter() - started
    assert len(progress.facts) == len(plan.jobs), progress.failures
    if progress.first is None:
        raise SystemExit("one worker did all clips: use more --clips")
    workers = run.read_clocks()
    first, last = (
        sum(seconds for process, seconds in clocks.items() if process not in workers)
        for clocks in (progress.first, progress.last)
    )
    work = sum(seconds for _, seconds in workers.values())
    start_up = first + sum(start for start, _ in workers.values()) - before
    beside = sum(progress.last[process] - sum(clocks) for process, clocks in workers.items())
    overhead = (last - first + beside) / work
    times = [f"{seconds:.1f}" for seconds in (total, start_up, work)]
    return [*times, f"{overhead:.1%}", "met" if overhead <= AIM else "missed"]


if __name__ == "__main__":
    main()
