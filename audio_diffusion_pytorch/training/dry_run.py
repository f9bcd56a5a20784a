"""Describe a run without training: data, steps, memory, disk space and duration."""

import math
import shutil
from pathlib import Path

import pytorch_lightning as pl

from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_cache import LatentCache
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.data_report import data_report, whole_valid_set
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.memory import activation_bytes, check_memory, format_size
from audio_diffusion_pytorch.training.schedule import planned_steps
from audio_diffusion_pytorch.training.timing import time_report

# Bytes of each parameter in float32: weights, gradients, two moments of AdamW, and EMA.
_TRAINED = 20
_SAVED = 16  # in a checkpoint, which excludes the gradients
_EXPORTED = 2  # in an export, in float16


def dry_run(
    module: TrainingModule,
    datamodule: pl.LightningDataModule,
    trainer: pl.Trainer,
    folder: Path,
) -> list[str]:
    """Describe the data, the requirements and the duration of a run; time some steps.

    Args:
        module: module to train.
        datamodule: data of the run.
        trainer: trainer of the run.
        folder: folder of the run, which need not exist.

    Returns:
        Lines of text.

    Raises:
        InputError: all recordings are silent or unreadable.
    """
    steps = planned_steps(datamodule, trainer)[1]
    return [
        *data_report(datamodule),
        _steps_line(datamodule, trainer),
        *_memory_lines(module, datamodule, trainer),
        *_disk_lines(module, datamodule, folder),
        *time_report(module, datamodule, trainer, steps, cached_seconds(module, datamodule)),
    ]


def _steps_line(datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> str:
    steps, total = planned_steps(datamodule, trainer)
    batch = str(datamodule.batch_size)
    if trainer.world_size > 1:
        batch += f" x {trainer.world_size} processes"
    if trainer.accumulate_grad_batches > 1:
        batch += f" x {trainer.accumulate_grad_batches} accumulated"
    crops = getattr(datamodule.train_set, "crops_per_file", None)
    if crops:
        batch += f", {crops} crops of each file"
    length = "no limit" if total == math.inf else f"{total} in total"
    return f"steps:      {steps} per epoch, batch {batch}; {length} ({_epochs(total, steps)})"


def _epochs(total: float, steps: int) -> str:
    if not steps or total == math.inf:
        return "set trainer.max_steps or trainer.max_epochs"
    return f"{float(f'{total / steps:.3g}'):,g} epochs"


def _memory_lines(
    module: TrainingModule, datamodule: pl.LightningDataModule, trainer: pl.Trainer
) -> list[str]:
    count = _trained_parameters(module)
    lines = [f"model:      {count / 1e6:.1f} M parameters, codec {module.codec.name}"]
    if not isinstance(module, InstrumentModule):
        return lines
    net = module.denoiser.net
    checkpointed = module.hparams.checkpoint_activations
    frames = module.codec.num_frames(module.hparams.length)
    frames += -frames % net.downsample_factor
    weights = count * _TRAINED
    activations = activation_bytes(
        net.config, datamodule.batch_size, frames, checkpointed, type(net)
    )
    check_memory(weights + activations, trainer)
    advice = "" if checkpointed else "; less with model.checkpoint_activations=true"
    lines.append(
        f"memory:     about {format_size(weights + activations)} on each device in float32: "
        f"weights, gradients, moments and EMA {format_size(weights)}, "
        f"activations {format_size(activations)}{advice}"
    )
    return lines


def _disk_lines(
    module: TrainingModule, datamodule: pl.LightningDataModule, folder: Path
) -> list[str]:
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    needed = _trained_parameters(module) * (3 * _SAVED + _EXPORTED)
    lines = [
        f"disk:       {format_size(needed)} for best.ckpt, last.ckpt, a third checkpoint while it "
        f"is written, and the export; {format_size(free)} free in {existing}"
    ]
    train = datamodule.train_set
    if not isinstance(train, InstrumentDataset):
        return lines
    shift = train.variation.pitch_shift
    if sound := cached_seconds(module, datamodule):
        cache = LatentCache(
            datamodule.cache_dir, module.features, train.sample_rate, datamodule.cache_variants
        )
        lines.append(
            f"            {format_size(cache.bytes_for(sound))} for latents in {cache.root}"
        )
    elif shift is not None:
        samples = train.recordings.seconds(train.wavs) * train.sample_rate
        size = format_size(samples * 2 * shift.variants)  # 16 bits, without compression
        lines.append(f"            at most {size} for pitch-shifted recordings in {shift.cache}")
    return lines


def _trained_parameters(module: pl.LightningModule) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def cached_seconds(module: TrainingModule, datamodule: pl.LightningDataModule) -> float:
    """Return the total duration of the audio whose latents a run would cache; 0 without a cache.

    Args:
        module: module to train.
        datamodule: data of the run.

    Returns:
        Duration in seconds; each variant of a recording counts.
    """
    if not module.wants_cache(datamodule):
        return 0.0
    train = datamodule.train_set
    valid = whole_valid_set(datamodule)
    shift = train.variation.pitch_shift
    pitches = 1 if shift is None else 1 + shift.variants
    variants = 1 if train.variation.augment is None else datamodule.cache_variants
    varied = train.recordings.seconds(train.wavs) * pitches * variants
    return varied + valid.recordings.seconds(valid.wavs)
