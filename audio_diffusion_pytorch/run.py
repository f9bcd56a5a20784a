"""The run's folder."""

from pathlib import Path

from audio_diffusion_pytorch.checkpoint import load_checkpoint
from audio_diffusion_pytorch.errors import InputError, replacing


def check_resumable(ckpt: str) -> None:
    """Fail early where `ckpt` is no checkpoint that training can resume from.

    Raises:
        InputError: it is missing, damaged, or has no optimiser state.
    """
    if "optimizer_states" not in load_checkpoint(ckpt):
        raise InputError(f"{ckpt} has no optimiser state: it cannot be resumed from, only used for transfer")


def prepare_run_folder(run_dir: Path, config: str) -> None:
    """Create the folder and write the resolved configuration into it."""
    with replacing(run_dir / "config.yaml") as temporary:
        temporary.write_text(config, encoding="utf-8")
