"""Summarise a finished run."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from audio_diffusion_pytorch.codecs.loading import CODECS
from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.models.instrument import InstrumentSpec
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import other_shipped
from audio_diffusion_pytorch.models.networks import NETWORKS
from audio_diffusion_pytorch.models.students import student_file
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.distill_module import DistillModule
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule


def summary(
    trainer: pl.Trainer,
    module: TrainingModule,
    run_dir: Path,
    model: Path,
    plugins: Sequence[str] = (),
) -> str:
    """Describe the results of a run, their paths, and the command that uses the model.

    Args:
        trainer: trainer of the finished run.
        module: trained module.
        run_dir: folder of the run.
        model: path of the exported model.
        plugins: the user's own modules that the run imported.

    Returns:
        Several lines of text.
    """
    lines = [f"trained:    {trainer.global_step} steps"]
    for callback in trainer.checkpoint_callbacks:
        # A run resumed in another folder has no best score before its first validation.
        if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None:
            score = float(callback.best_model_score)
            lines.append(f"best:       {callback.monitor} {score:.4g}, {callback.best_model_path}")
    lines += [f"run folder: {run_dir}", f"model:      {model}"]
    if (run_dir / "tensorboard").is_dir():
        lines.append(f"curves:     tensorboard --logdir {shlex.quote(str(run_dir))}")
    if isinstance(module, DistillModule):
        place = student_file(cast(Path, module.teacher.file))
        folder, source, target = (shlex.quote(str(path)) for path in (place.parent, model, place))
        lines.append(f"use it:     mkdir -p {folder} && cp {source} {target}")
    if isinstance(module, InstrumentModule):
        lines.append(f"transfer:   {_transfer_command(module, run_dir, plugins)}")
    return "\n".join(lines)


def _transfer_command(module: InstrumentModule, run_dir: Path, plugins: Sequence[str]) -> str:
    """Return a command that transfers a recording with the trained model as the source."""
    spec = module.spec
    if unregistered := _unregistered(spec):
        return f"register {' and '.join(unregistered)} first, see docs/extending.md"
    other = other_shipped(spec.name, spec.codec)
    target = other.spec.name if other else "OTHER_RUN_FOLDER"
    names = Labels(spec.labels).instruments
    chosen = next((name for name in names if name != target), None)
    source = f"{run_dir}:{chosen}" if chosen else str(run_dir)
    loaded = f" 'plugins=[{','.join(plugins)}]'" if plugins else ""
    return (
        f"{typed('transfer')}{loaded} {shlex.quote(f'source={source}')} target={target} "
        "input=FILE output=FILE.wav"
    )


def _unregistered(spec: InstrumentSpec) -> list[str]:
    """Return the network and codec that a transfer cannot load by name."""
    codec = spec.codec in CODECS or Path(spec.codec).suffix == ".safetensors"
    found = [] if spec.network in NETWORKS else [f"the network {spec.network} in NETWORKS"]
    return found if codec else [*found, f"the codec {spec.codec} in CODECS"]
