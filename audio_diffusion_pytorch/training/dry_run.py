"""Before a run: what there is to train on and what training would need. After it: what came of it."""

import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_cache import LatentCache
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.memory import _check_memory, _size, activation_bytes
from audio_diffusion_pytorch.training.timing import duration, time_report

_PROBES = 200  # crops that are listened to
# Bytes for each parameter in float32: weights, gradients, AdamW's two averages, EMA; in a checkpoint all but gradients.
_TRAINED, _SAVED, _EXPORTED = 20, 16, 2


def dry_run(
    module: TrainingModule,
    datamodule: pl.LightningDataModule,
    trainer: pl.Trainer,
    folder: Path,
) -> list[str]:
    """Lines on what there is to train on, what training needs, and how long it takes; some steps are timed.

    Raises:
        InputError: see `data_report`.
    """
    lines = data_report(datamodule) + needs_report(module, datamodule, trainer, folder)
    steps, sound = planned_steps(datamodule, trainer)[1], cached_seconds(module, datamodule)
    return lines + time_report(module, datamodule, trainer, steps, sound)


def data_report(datamodule: pl.LightningDataModule) -> list[str]:
    """Lines on the recordings: files, hours, rates, unreadable and silent ones, the split.

    Raises:
        InputError: of the crops that were listened to, none can be read, or none has any sound.
    """
    train, valid = datamodule.train_set, datamodule.valid_set
    if not isinstance(train, InstrumentDataset):
        return [
            f"data:       {type(train).__name__}, {len(train)} items to train on, {len(valid)} to validate on"
        ]
    whole = getattr(valid, "dataset", valid)
    headers = train.headers
    suffixes = Counter(Path(file).suffix.lower()[1:] for file in headers)
    rates = Counter(header.sample_rate for header in headers.values())
    seconds = [header.seconds for header in headers.values()]
    copies = sum(file != first for file, first in train.recordings.originals().items())
    short = sum(value < train.length / train.sample_rate for value in seconds)
    silent, probed, broken = _listen(train)
    if silent + len(broken) == probed:
        raise InputError(
            f"nothing to train on in {train.paths}: of {probed} crops that were listened to, {silent} are silent (peak "
            f"below {train.silence_db} dB) and {len(broken)} cannot be read{_names(broken)}"
        )
    if whole.span != (0.0, 1.0):
        split = f"one recording: the first {train.span[1]:.0%} to train on, the rest to validate on"
    else:
        parts = (
            (part.wavs, sum(headers[file].seconds for file in part.wavs)) for part in (train, whole)
        )
        (files, time), (valid_files, valid_time) = (
            (len(wavs), duration(total)) for wavs, total in parts
        )
        split = f"{files} files ({time}) to train on, {valid_files} ({valid_time}) to validate on"
    return [
        f"files:      {len(headers)} ({_counts(suffixes)}), {duration(sum(seconds))} in all, "
        f"{duration(min(seconds))} to {duration(max(seconds))} long",
        *(
            [
                f"left out:   {len(train.recordings.left_out)} for their names{_names(train.recordings.left_out)}"
            ]
            if train.recordings.left_out
            else []
        ),
        f"rates:      {_counts(rates, ' Hz')}; trained at {train.sample_rate} Hz",
        f"unreadable: {len(train.recordings.unreadable)} by their headers, "
        f"{len(broken)} of {probed} crops that were read" + _names(broken),
        f"silent:     {silent / (probed - len(broken)):.0%} of {probed} crops of "
        f"{train.length / train.sample_rate:.3g} s (peak below {train.silence_db} dB); these are drawn again",
        *(
            [
                f"copies:     {copies} files are exact copies of others, and stay on their side of the split"
            ]
            if copies
            else []
        ),
        *(
            [f"short:      {short} files are shorter than a crop, and padded with silence"]
            if short
            else []
        ),
        f"split:      {split}",
    ]


def _listen(dataset: InstrumentDataset) -> tuple[int, int, list[str]]:
    """(silent, read, the files of unreadable ones) of some crops, spread over the recordings."""
    rng, files = np.random.default_rng(dataset.seed), list(dataset.headers)
    count = min(_PROBES, max(20, 4 * len(files)))
    chosen = np.arange(count) * len(files) // count
    silent, broken = 0, []
    for index in tqdm(chosen, desc="listening to some crops", unit="crop", delay=2):
        header = dataset.headers[files[index]]
        frames = min(
            round(dataset.length * header.sample_rate / dataset.sample_rate), header.frames
        )
        try:
            read = audio.read_mono if dataset.channels == 1 else audio.read  # what training hears
            wav, _ = read(files[index], int(rng.integers(header.frames - frames + 1)), frames)
        except InputError:
            broken.append(files[index])
            continue
        silent += bool(
            dataset.silence_db is not None and wav.abs().max() <= 10 ** (dataset.silence_db / 20)
        )
    return silent, len(chosen), broken


def needs_report(
    module: TrainingModule, datamodule: pl.LightningDataModule, trainer: pl.Trainer, folder: Path
) -> list[str]:
    """Lines on what training would need: steps, memory, disk."""
    world, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    steps, total = planned_steps(datamodule, trainer)
    batch = f"{datamodule.batch_size}" + (f" x {world} processes" if world > 1 else "")
    batch += f" x {accumulated} accumulated" if accumulated > 1 else ""
    in_all = "no limit" if total == math.inf else total
    crops = getattr(datamodule.train_set, "crops_per_file", None)
    crops = f", {crops} crops of each file" if crops else ""
    lines = [
        f"steps:      {steps} per epoch, batch {batch}{crops}; {in_all} in all ({_epochs(total, steps)})"
    ]
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    lines.append(f"model:      {trained / 1e6:.1f} M parameters, codec {module.codec.name}")
    if isinstance(module, InstrumentModule):
        recompute = module.hparams.checkpoint_activations
        frames = module.codec.num_frames(module.hparams.length)
        frames += -frames % module.denoiser.net.downsample_factor
        kept = activation_bytes(
            module.denoiser.net.config,
            datamodule.batch_size,
            frames,
            recompute,
            type(module.denoiser.net),
        )
        _check_memory(trained * _TRAINED + kept, trainer)
        advice = "" if recompute else "; less with model.checkpoint_activations=true"
        lines.append(
            f"memory:     about {_size(trained * _TRAINED + kept)} on each device in float32: weights, gradients, "
            f"optimiser and average {_size(trained * _TRAINED)}, activations {_size(kept)}{advice}"
        )
    parent = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    lines.append(
        f"disk:       {_size(trained * (3 * _SAVED + _EXPORTED))} for best.ckpt, last.ckpt, one that is being written "
        f"and the export; {_size(shutil.disk_usage(parent).free)} free in {parent}"
    )
    train = datamodule.train_set
    if not isinstance(train, InstrumentDataset):
        return lines
    shifted = 0 if train.variation.pitch_shift is None else train.variation.pitch_shift.variants
    if sound := cached_seconds(module, datamodule):
        cache = LatentCache(
            datamodule.cache_dir, module.codec, train.sample_rate, datamodule.cache_variants
        )
        lines.append(f"            {_size(cache.bytes_for(sound))} for latents in {cache.root}")
    elif shifted:
        size = (
            sum(train.headers[file].seconds for file in train.wavs)
            * train.sample_rate
            * 2
            * shifted
        )
        lines.append(
            f"            at most {_size(size)} for pitch-shifted recordings in {train.variation.pitch_shift.cache}"
        )
    return lines


def cached_seconds(module: TrainingModule, datamodule: pl.LightningDataModule) -> float:
    """Seconds of sound whose latents a run would cache; 0 where it has no cache."""
    train, valid = (
        datamodule.train_set,
        getattr(datamodule.valid_set, "dataset", datamodule.valid_set),
    )
    if not module.wants_cache(datamodule):
        return 0.0
    seconds, rest = (
        sum(part.headers[file].seconds for file in part.wavs) for part in (train, valid)
    )
    shifted = 0 if train.variation.pitch_shift is None else train.variation.pitch_shift.variants
    return (
        seconds
        * (1 + shifted)
        * (datamodule.cache_variants if train.variation.augment is not None else 1)
        + rest
    )


def planned_steps(datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> tuple[int, float]:
    """Optimiser steps of an epoch, and of the whole run (infinity: nothing ends it)."""
    batches = len(datamodule.train_set) // (datamodule.batch_size * trainer.world_size)
    limit = trainer.limit_train_batches  # a number, or a share
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = -(-batches // trainer.accumulate_grad_batches)
    of_epochs = math.inf if trainer.max_epochs in (-1, None) else steps * trainer.max_epochs
    return steps, min(of_epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps)


def planned_batches(datamodule: pl.LightningDataModule, trainer: pl.Trainer) -> float:
    """Batches of the whole run, in each process (infinity: nothing ends it)."""
    if not hasattr(datamodule, "train_set"):  # a user's own
        return (
            math.inf
            if trainer.max_steps == -1
            else trainer.max_steps * trainer.accumulate_grad_batches
        )
    return planned_steps(datamodule, trainer)[1] * trainer.accumulate_grad_batches


def _epochs(total: float, steps: int) -> str:
    limited = steps and total < math.inf
    return (
        f"{float(f'{total / steps:.3g}'):,g} epochs"
        if limited
        else "set trainer.max_steps or trainer.max_epochs"
    )


def _names(files: list[str]) -> str:
    names = list(dict.fromkeys(Path(file).name for file in files))
    return (
        (": " + ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
        if names
        else ""
    )


def _counts(counter: Counter, unit: str = "") -> str:
    return ", ".join(f"{count} x {value}{unit}" for value, count in counter.most_common())
