"""Benchmark the engines of a transfer: local processes and Ray actors, each with one core.

python benchmarks/engines.py [--clips 200] [--seconds 10] [--counts 1 2]

Start-up is the time from the start of the engine to its first windows; it includes loading the
models in the workers. Work is the mean working time of the workers. Overhead is the remaining time
less the work. Target: at most 5 % of the work. The machine must be idle and have a core for each
worker. With few clips the overhead may be negative: the work of the first batch precedes the first
windows.
"""

import argparse
import os
import tempfile
import time
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


class Timed(TransferProgress):
    """Progress with the times of the first and the last event."""

    first = last = 0.0

    def __call__(self, event: str, job: Any, value: Any) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        super().__call__(event, job, value)


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
    run = TransferRun("flute", "violin", device="cpu", bridge={"batch_size": 4}, overwrite=True)
    plan = resolve_jobs(str(folder / "in"), str(folder / f"{engine}{count}"), None, None)
    progress = Timed(run, run.load(), plan)
    started = time.perf_counter()
    if engine == "local":
        progress.run_jobs(Engine(count))
    else:
        progress.run_jobs(Engine(options=RayOptions(actors=count, cpus=1)))
    total = time.perf_counter() - started
    assert len(progress.facts) == len(plan.jobs), progress.failures
    work = sum(facts["seconds"] for facts in progress.facts.values()) / count
    overhead = (progress.last - progress.first) / work - 1
    times = [f"{seconds:.1f}" for seconds in (total, progress.first - started, work)]
    return [*times, f"{overhead:.1%}", "met" if overhead <= AIM else "missed"]


if __name__ == "__main__":
    main()
