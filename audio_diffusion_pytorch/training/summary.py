"""Summary of a finished run."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl
from torch import nn

from audio_diffusion_pytorch.codecs.loading import CODECS
from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.models.instrument import InstrumentSpec
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.networks import NETWORKS


def summary(
    trainer: pl.Trainer,
    module: nn.Module,
    run_dir: Path,
    model: Path,
    plugins: Sequence[str] = (),
) -> str:
    """What came of a run, where it is, and the command that uses it."""
    lines = [f"trained:    {trainer.global_step} steps"]
    for callback in trainer.checkpoint_callbacks:
        if (
            getattr(callback, "best_model_score", None) is not None
        ):  # none after a resume in another folder
            score = float(callback.best_model_score)
            lines.append(f"best:       {callback.monitor} {score:.4g}, {callback.best_model_path}")
    lines += [f"run folder: {run_dir}", f"model:      {model}"]
    if (run_dir / "tensorboard").is_dir():
        lines.append(f"curves:     tensorboard --logdir {shlex.quote(str(run_dir))}")
    lines += [f"transfer:   {command}" for command in _transfer_commands(module, run_dir, plugins)]
    return "\n".join(lines)


def _transfer_commands(module: nn.Module, run_dir: Path, plugins: Sequence[str]) -> Iterator[str]:
    from audio_diffusion_pytorch.models.loading import other_shipped

    if not hasattr(module, "spec"):
        return
    spec: InstrumentSpec = module.spec
    if unregistered := _unregistered(spec):
        yield f"register {' and '.join(unregistered)} first, see docs/extending.md"
        return
    other = other_shipped(spec.name, spec.codec)
    target = other.spec.name if other else "OTHER_RUN_FOLDER"
    several = Labels(spec.labels).instruments
    chosen = next((name for name in several if name != target), None)
    source = f"{run_dir}:{chosen}" if chosen else str(run_dir)
    loaded = f" 'plugins=[{','.join(plugins)}]'" if plugins else ""
    yield (
        f"{typed('transfer')}{loaded} {shlex.quote(f'source={source}')} target={target} "
        "input=FILE output=FILE.wav"
    )


def _unregistered(spec: InstrumentSpec) -> list[str]:
    """Return the network and codec that a transfer cannot load by name."""
    codec = spec.codec in CODECS or Path(spec.codec).suffix == ".safetensors"
    found = [] if spec.network in NETWORKS else [f"the network {spec.network} in NETWORKS"]
    return found if codec else [*found, f"the codec {spec.codec} in CODECS"]
