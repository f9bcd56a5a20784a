"""Estimate the duration of a run from a few steps that change no weight and write no file."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from audio_diffusion_pytorch.codecs.base import Codec

_SECONDS = 1.0  # longest timed step; of larger batches, a part is timed
_STEPS = 2  # timed steps, after a first one that is not timed
_MOST = 64  # samples in a timed batch
_ENCODED = 4.0  # seconds of audio in the timed encoding
Batch = Tensor | Sequence[Tensor]


class Clock(pl.Callback):
    """Time training steps; a learning rate of 0 keeps the weights unchanged.

    Attributes:
        seconds: of each step, the seconds until the gradients are ready, and those after it.
    """

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._begun = 0.0
        self._gradients = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start the clock."""
        self._begun = _now(trainer)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Take the time of the gradients; set the learning rate to 0."""
        self._gradients = _now(trainer)
        for group in optimizer.param_groups:
            group.update(lr=0.0, weight_decay=0.0)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Store the seconds of the step."""
        self.seconds.append((self._gradients - self._begun, _now(trainer) - self._gradients))


def _now(trainer: pl.Trainer) -> float:
    """Wait until a GPU is idle, then return the time in seconds."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


def time_batch(
    module: pl.LightningModule, make: Callable[[int], Batch], size: int, like: pl.Trainer
) -> float:
    """Estimate the seconds of a training step.

    Args:
        module: module to train.
        make: function from a number of samples to a batch.
        size: samples in a batch.
        like: trainer with the device and precision of the run.

    Returns:
        Seconds of a step.
    """
    few = min(2, size)
    gradients, update = _time_steps(module, [make(few) for _ in range(2)], like)
    most = min(size, _MOST, int(_SECONDS * few / gradients))
    if most > 2 * few:
        gradients, update = _time_steps(module, [make(most) for _ in range(1 + _STEPS)], like)
        few = most
    return gradients / few * size + update  # the optimiser's time is independent of the batch


def _time_steps(
    module: pl.LightningModule, batches: Sequence[Batch], like: pl.Trainer
) -> tuple[float, float]:
    """Return the seconds of the shortest step, until and after its gradients.

    The first step is excluded, because it also creates the state of the optimiser.
    """
    clock = Clock()
    device = like.strategy.root_device
    on_gpu = device.type == "cuda"
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with warnings.catch_warnings():
        # Lightning warns that this training has no validation, loggers and checkpoints.
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="gpu" if on_gpu else device.type,
            devices=[device.index or 0] if on_gpu else 1,
            precision=like.precision,
            gradient_clip_val=like.gradient_clip_val,
            max_steps=len(batches),
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=[clock],
            plugins=[LightningEnvironment()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(cast(Dataset, batches), batch_size=None, shuffle=False))
    for name, value in module.named_buffers():
        value.copy_(buffers[name])
    return min(clock.seconds[1:], key=sum)


def time_training(
    module: pl.LightningModule, datamodule: pl.LightningDataModule, trainer: pl.Trainer
) -> float:
    """Estimate the seconds of an optimiser step, including the data.

    Args:
        module: module to train.
        datamodule: data of the run.
        trainer: trainer of the run.

    Returns:
        Seconds of a step.
    """
    reads: list[float] = []
    cached = module.wants_cache(datamodule)

    def random_latents(count: int) -> Batch:
        length = module.codec.num_frames(module.hparams.length)
        latents = torch.randn(count, module.features.latent_channels, length)
        return [latents, torch.zeros(count, dtype=torch.long)] if module.labels else latents

    def read_items(count: int) -> Batch:
        items = []
        for index in range(count):
            begun = time.perf_counter()
            items.append(datamodule.train_set[index % len(datamodule.train_set)])
            reads.append(time.perf_counter() - begun)
        return default_collate(items)

    takes_latents = module.takes_latents
    module.takes_latents = cached
    try:
        make = random_latents if cached else read_items
        seconds = time_batch(module, make, datamodule.batch_size, trainer)
    finally:
        module.takes_latents = takes_latents
    reading = datamodule.batch_size * min(reads, default=0.0)
    workers = datamodule.num_workers  # they read while this process computes
    step = max(seconds, reading / workers) if workers else seconds + reading
    return trainer.accumulate_grad_batches * step


@torch.no_grad()
def time_encoding(codec: Codec, seconds: float, device: torch.device) -> float:
    """Estimate the seconds that encoding takes.

    Args:
        codec: the codec, which moves to `device`.
        seconds: duration of the audio.
        device: device of the encoder.

    Returns:
        Seconds of encoding.
    """
    codec.to(device)
    short = torch.randn(1, 1, round(_ENCODED * codec.sample_rate), device=device) / 10
    codec.encode(short[..., : short.shape[-1] // 8])  # warm-up
    begun = time.perf_counter()
    codec.encode(short).cpu()
    return (time.perf_counter() - begun) * seconds / _ENCODED


def time_report(
    module: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    trainer: pl.Trainer,
    steps: float,
    sound: float,
) -> list[str]:
    """Describe the duration of a run.

    Args:
        module: module to train.
        datamodule: data of the run.
        trainer: trainer of the run.
        steps: steps of the run; infinity without a limit.
        sound: seconds of audio to encode for a latent cache; 0 without a cache.

    Returns:
        Lines of text.
    """
    if getattr(module, "hparams", {}).get("compile"):
        return [
            "time:       unknown: torch.compile takes minutes before the first step; "
            "omit compile=true"
        ]
    device = trainer.strategy.root_device
    name = {"cpu": "the CPU", "cuda": "the GPU"}.get(device.type, device.type)
    try:
        step = time_training(module, datamodule, trainer)
        encoding = time_encoding(module.features, sound, device) if sound else 0.0
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [f"time:       unknown: out of memory in a step ({str(error).splitlines()[0]})"]
    whole = "unlimited"
    if steps < math.inf:
        whole = f"about {duration(steps * step)} for {steps} steps"
    lines = [
        f"time:       {whole}, {step:.3g} s a step on {name} (from a few steps); "
        "validation and samples take extra time"
    ]
    if encoding:
        lines.append(
            f"            at most {duration(encoding)} more, once, to encode the recordings"
        )
    return lines


def duration(seconds: float) -> str:
    """Format a duration, for example "1.7 h"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
