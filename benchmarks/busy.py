"""Benchmark training and transfer on an idle machine, and beside a program that occupies one core.

python benchmarks/busy.py [--turns 3] [--steps 60] [--seconds 30]

Both commands run as in a shell, idle and busy in turns; the table shows medians. Training: samples
per second of the small model after its first 20 steps. Transfer: seconds of sound for each second
of work. Target: busy at least 40 % of idle (on two cores). Set OMP_NUM_THREADS=2 to measure two
threads.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from audio_diffusion_pytorch.utils.threads import available_cpus

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "audio_diffusion_pytorch/assets/clips"
AIM = 0.4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="runs of each condition (default 3)")
    parser.add_argument(
        "--steps", type=int, default=60, help="training steps of a run, at least 40 (default 60)"
    )
    parser.add_argument(
        "--seconds", type=int, default=30, help="length of the recording in seconds (default 30)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording = write_recording(Path(folder), args.seconds)
        jobs = {
            "training, samples/s": lambda: train(Path(folder), args.steps),
            "transfer, x real time": lambda: transfer(recording),
        }
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in jobs}
        for _ in range(args.turns):
            for name, job in jobs.items():
                found[name][0].append(job())
                with busy_core():
                    found[name][1].append(job())
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    print(f"{available_cpus()} cores, OMP_NUM_THREADS: {threads}")
    print(f"{'':24} {'quiet':>8} {'busy':>8} {'ratio':>6}")
    for name, rates in found.items():
        quiet, busy = map(statistics.median, rates)
        aim = "" if busy >= AIM * quiet else f"  below {AIM}"
        print(f"{name:24} {quiet:8.2f} {busy:8.2f} {busy / quiet:6.2f}{aim}")


@contextmanager
def busy_core():
    """Run a program that occupies one core, in its own session like that of another terminal."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def write_recording(folder: Path, seconds: int) -> Path:
    wav, rate = soundfile.read(min(CLIPS.glob("*_flute.flac")), dtype="float32")
    path = folder / "flute.wav"
    soundfile.write(path, np.resize(wav, seconds * rate), rate)
    return path


def train(folder: Path, steps: int) -> float:
    arguments = [
        *("exp=flute_small", f"dataset_path={CLIPS}", f"logs_dir={folder}/logs", "trainer.gpus=0"),
        *(f"exp_tag=run{len(list(folder.glob('logs/*')))}", f"total_steps={steps}"),
        *(
            "datamodule.dataset.crops_per_file=64",
            "callbacks.samples=null",
            "callbacks.preview=null",
        ),
    ]
    done = run("train", *arguments)
    return float(re.findall(r"samples/s=([\d.]+)", done.stdout + done.stderr)[-1])


def transfer(recording: Path) -> float:
    output = recording.with_name("out")
    run(
        "transfer",
        "source=flute",
        "target=violin",
        f"input={recording.parent}/*.wav",
        f"output={output}",
        *REPORT,
    )
    facts = json.loads((output / "report.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return facts["duration"] / facts["seconds"]


REPORT = ("report=true", "overwrite=true", "device=cpu")


def run(command: str, *arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, ROOT / f"{command}.py", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{command}: {done.stderr[-2000:]}")
    return done


if __name__ == "__main__":
    main()
