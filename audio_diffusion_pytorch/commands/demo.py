"""Demonstrate the project: transfer a shipped flute clip to a violin, and train for a few steps.

python scripts/demo.py [--output demo] [--play]
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from audio_diffusion_pytorch.cli import run_command
from audio_diffusion_pytorch.command_line import INSTALLED_NAME, typed
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import CLIPS, INSTALLED, ROOT

STEPS = 120  # training steps


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    is_installed = INSTALLED or INSTALLED_NAME in os.environ
    about = (__doc__ or "").replace("python scripts/demo.py", typed("demo"))
    parser = argparse.ArgumentParser(
        typed("demo"), None, about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("demo") if is_installed else ROOT / "demo"
    parser.add_argument(
        "--output", type=Path, default=default, help="folder for the results (default: demo)"
    )
    parser.add_argument(
        "--play", action="store_true", help="transfer the clip only, without training"
    )
    return parser


def demo(arguments: argparse.Namespace) -> None:
    """Transfer, train, interrupt, resume.

    Args:
        arguments: parsed command line.

    Raises:
        InputError: a command failed.
        OSError: the output folder cannot be written.
    """
    output = arguments.output.expanduser().absolute()
    output.mkdir(parents=True, exist_ok=True)
    print("== Transfer a flute recording, unseen in training, to a violin", flush=True)
    flute = min(CLIPS.glob("*_flute.flac"))
    result = output / "flute_to_violin.wav"
    picture = output / "flute_to_violin.png"
    check(
        "transfer",
        "source=flute",
        "target=violin",
        f"input={flute}",
        f"output={result}",
        f"plot={picture}",
    )
    print(f"\nlisten:  {flute}\n         {result}\nlook at: {picture}", flush=True)
    if not arguments.play:
        train(output)


def train(output: Path) -> None:
    """Train a small model for a few steps, with an interruption, into the folder `output`."""
    run = output / "demo_run"
    last = run / "checkpoints" / "last.ckpt"
    settings = [
        *("exp=flute_small", f"dataset_path={CLIPS}", f"logs_dir={output}", "exp_tag=demo_run"),
        *(
            "trainer.gpus=0",
            f"total_steps={STEPS}",
            "ckpt_every_n_steps=20",
            "log_every_n_steps=60",
        ),
        *("datamodule.dataset.crops_per_file=64", "callbacks.samples.sampling_steps=[10]"),
    ]
    print(
        "\n== Train a flute model, and interrupt it (Ctrl-C) after the first checkpoint", flush=True
    )
    shutil.rmtree(run, ignore_errors=True)  # of a previous demo
    with subprocess.Popen(command("train", *settings)) as process:
        while process.poll() is None and not last.exists():
            time.sleep(0.5)
        if os.name == "nt":  # Windows cannot send Ctrl-C to a single process
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)
    if not last.is_file():
        raise InputError("the training did not write a checkpoint; see its messages above")
    print(f"\n== Resume it from {last}", flush=True)
    check("train", *settings, f"ckpt={last}")
    print(f"\ncurves:  {shlex.join(['tensorboard', '--logdir', str(output)])}")


def command(verb: str, *arguments: str) -> list[str]:
    """Return the command line of a verb."""
    return [sys.executable, "-m", "audio_diffusion_pytorch", verb, *arguments]


def check(verb: str, *arguments: str) -> None:
    """Run a verb.

    Raises:
        InputError: the verb failed.
    """
    status = subprocess.run(command(verb, *arguments)).returncode
    if status:
        raise InputError(f"{verb} failed with exit status {status}; see its messages above")


def main() -> None:
    """Run the command."""
    arguments = make_parser().parse_args()
    # Background jobs of a shell ignore Ctrl-C, and their children inherit that.
    if os.name != "nt":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command(lambda: demo(arguments), (OSError,))


if __name__ == "__main__":
    main()
