"""The main job on what ships, in minutes: train a flute model a little, interrupt and resume it; flute to violin.

python scripts/demo.py [--output demo]
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT / "audio_diffusion_pytorch" / "assets" / "clips"
STEPS = 120  # of training in all
TIMEOUT = 300  # seconds that any one step may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "demo", help="folder for the results (default: demo)")
    output = parser.parse_args().output.absolute()
    run = output / "demo_run"

    print("== 1. Train a flute model, and interrupt it (Ctrl-C) on the way")
    command = [
        *(sys.executable, str(ROOT / "train.py"), "exp=flute_small", f"dataset_path={CLIPS}"),
        *(f"logs_dir={output}", "exp_tag=demo_run", "trainer.gpus=0", f"total_steps={STEPS}"),
        *("ckpt_every_n_steps=20", "log_every_n_steps=60", "datamodule.dataset.crops_per_file=64"),
        "callbacks.samples.sampling_steps=[10]",
    ]
    last = run / "checkpoints" / "last.ckpt"
    shutil.rmtree(run, ignore_errors=True)  # of an earlier demo
    process = subprocess.Popen(command)
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and not last.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    process.wait(TIMEOUT)
    if not last.is_file():
        sys.exit("the training wrote no checkpoint; see its messages above")

    print(f"\n== 2. Resume it from {last}")
    check([*command, f"ckpt={last}"])

    print("\n== 3. Play a flute recording, which no model has seen, on a violin")
    flute = sorted(CLIPS.glob("*_flute.flac"))[0]
    result, picture = output / "flute_to_violin.wav", output / "flute_to_violin.png"
    check(
        [
            *(sys.executable, str(ROOT / "transfer.py"), "source=flute", "target=violin"),
            *(f"input={flute}", f"output={result}", f"plot={picture}"),
        ]
    )
    print(f"\nlisten:  {flute}\n         {result}\nlook at: {picture}\ncurves:  tensorboard --logdir {output}")


def check(command: list[str]) -> None:
    status = subprocess.run(command, timeout=TIMEOUT).returncode
    if status:
        sys.exit(status)
