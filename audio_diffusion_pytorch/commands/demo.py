"""What the project does, on a clip that ships: play a flute on a violin; then train a flute model a little.

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

STEPS = 120  # of training in all


def make_parser() -> argparse.ArgumentParser:
    here = INSTALLED or INSTALLED_NAME in os.environ
    about = __doc__.replace("python scripts/demo.py", typed("demo"))
    parser = argparse.ArgumentParser(
        typed("demo"), None, about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("demo") if here else ROOT / "demo"
    parser.add_argument(
        "--output", type=Path, default=default, help="folder for the results (default: demo)"
    )
    parser.add_argument(
        "--play", action="store_true", help="play the flute on a violin, and train nothing"
    )
    return parser


def demo(arguments: argparse.Namespace) -> None:
    """Transfer, train, interrupt, resume.

    Raises:
        InputError: nothing can be written to the output folder, or one of the commands failed.
    """
    output = arguments.output.expanduser().absolute()
    output.mkdir(parents=True, exist_ok=True)
    print("== Play a flute recording, which no model has seen, on a violin", flush=True)
    flute = min(CLIPS.glob("*_flute.flac"))
    result, picture = output / "flute_to_violin.wav", output / "flute_to_violin.png"
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
    """Train a small model for a few steps, in two parts."""
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
        "\n== Train a flute model, and interrupt it (Ctrl-C) once a checkpoint is there", flush=True
    )
    shutil.rmtree(run, ignore_errors=True)  # of an earlier demo
    with subprocess.Popen(command("train", *settings)) as process:
        while process.poll() is None and not last.exists():
            time.sleep(0.5)
        if os.name == "nt":  # which has no Ctrl-C for one process only
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)
    if not last.is_file():
        raise InputError("the training wrote no checkpoint; see its messages above")
    print(f"\n== Resume it from {last}", flush=True)
    check("train", *settings, f"ckpt={last}")
    print(f"\ncurves:  {shlex.join(['tensorboard', '--logdir', str(output)])}")


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "audio_diffusion_pytorch", verb, *arguments]


def check(verb: str, *arguments: str) -> None:
    status = subprocess.run(command(verb, *arguments)).returncode
    if status:
        raise InputError(f"{verb} ended with exit status {status}; see its messages above")


def main() -> None:
    arguments = make_parser().parse_args()
    if (
        os.name != "nt"
    ):  # a shell's background job ignores Ctrl-C, and so would the training that it is sent to
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command(lambda: demo(arguments), (OSError,))


if __name__ == "__main__":
    main()
