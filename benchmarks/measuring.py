"""Tables, times and peak memory of benchmarks; imported by transfer.py."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from audio_diffusion_pytorch.paths import ASSETS


class Table:
    """Print a Markdown table row by row."""

    def __init__(self, *columns: str):
        print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)

    def row(self, *cells: object) -> None:
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def clips_of(instrument: str, data: Path | None = None) -> list[Path]:
    """Return the clips of an instrument in a split of a data set, or the shipped ones."""
    folder = ASSETS / "clips" if data is None else data / instrument
    files = sorted(folder.glob(f"*_{instrument}.*"))
    found = [file for file in files if file.suffix in (".flac", ".ogg")]
    if not found:
        raise SystemExit(f"error: no clips of {instrument} in {folder}: pass a split with --data")
    return found


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


# The peak of a process starts at the memory of its parent: start it from a small process.
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def run_process(arguments: list[str]) -> tuple[str, float, float]:
    """Run a process; return its last line, seconds from start to end, and peak memory in MB."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *arguments], capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(
            f"error: {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}"
        )
    *lines, peak = done.stdout.splitlines()
    return lines[-1], seconds, int(peak) / (1e6 if sys.platform == "darwin" else 1e3)
