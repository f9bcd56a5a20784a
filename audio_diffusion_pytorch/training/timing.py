"""How long training would take: a few steps, timed, which change no weight and write nothing."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from audio_diffusion_pytorch.codecs.base import Codec

_SECONDS = 1.0  # for one timed step: a whole batch where it is quicker, else the part of it that takes so long
_STEPS = 2  # timed, after the first
_MOST = 64  # samples in a timed batch
_ENCODED = 4.0  # seconds of sound that the codec is timed with
Batch = Tensor | Sequence[Tensor]


class Clock(pl.Callback):
    """Times the training steps, in which no weight changes: the optimiser works with a learning rate of 0."""

    def __init__(self) -> None:
        self.seconds: list[
            tuple[float, float]
        ] = []  # of a step: up to the gradients, and after them
        self._begun = self._gradients = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *args) -> None:
        self._begun = _now(trainer)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        self._gradients = _now(trainer)
        for group in optimizer.param_groups:
            group.update(lr=0.0, weight_decay=0.0)

    def on_train_batch_end(self, trainer: pl.Trainer, *args) -> None:
        self.seconds.append((self._gradients - self._begun, _now(trainer) - self._gradients))


def _now(trainer: pl.Trainer) -> float:
    """The time when a GPU has done its work so far."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


def time_batch(
    module: pl.LightningModule, make: Callable[[int], Batch], size: int, like: pl.Trainer
) -> float:
    """Seconds of a training step with `size` samples.

    Args:
        make: function of a number of samples -> a batch of them.
        like: a trainer whose device and precision count.
    """
    few = min(2, size)
    gradients, update = _time_steps(module, [make(few) for _ in range(2)], like)
    most = min(size, _MOST, int(_SECONDS * few / gradients))
    if most > 2 * few:
        gradients, update = _time_steps(module, [make(most) for _ in range(1 + _STEPS)], like)
        few = most
    return gradients / few * size + update  # the optimiser takes as long for any batch


def _time_steps(
    module: pl.LightningModule, batches: Sequence[Batch], like: pl.Trainer
) -> tuple[float, float]:
    """Seconds of the shortest of the steps but the first, up to the gradients and after them.

    The first one also makes the optimiser's state.
    """
    clock, device = Clock(), like.strategy.root_device
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a training without validation, loggers and checkpoints
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
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
        trainer.fit(module, DataLoader(batches, batch_size=None, shuffle=False))
    for name, value in module.named_buffers():
        value.copy_(buffers[name])
    return min(clock.seconds[1:], key=sum)


def time_training(
    module: pl.LightningModule, datamodule: pl.LightningDataModule, trainer: pl.Trainer
) -> float:
    """Seconds of an optimiser step, its data included."""
    read: list[float] = []
    caches = module.wants_cache(datamodule)

    def make(count: int) -> Batch:
        if caches:
            length = module.codec.num_frames(module.hparams.length)
            latents = torch.randn(count, module.codec.latent_channels, length)
            return [latents, torch.zeros(count, dtype=torch.long)] if module.labels else latents
        items = []
        for index in range(count):
            begun = time.perf_counter()
            items.append(datamodule.train_set[index % len(datamodule.train_set)])
            read.append(time.perf_counter() - begun)
        return default_collate(items)

    takes_latents = module.takes_latents
    module.takes_latents = caches
    try:
        seconds = time_batch(module, make, datamodule.batch_size, trainer)
    finally:
        module.takes_latents = takes_latents
    waited = datamodule.batch_size * min(read, default=0.0) / max(1, datamodule.num_workers)
    whole = (
        max(seconds, waited) if datamodule.num_workers else seconds + waited
    )  # processes read while it computes
    return trainer.accumulate_grad_batches * whole


@torch.no_grad()
def time_encoding(codec: Codec, seconds: float, device: torch.device) -> float:
    """Seconds for encoding so many seconds of sound."""
    codec.to(device)
    short = torch.randn(1, 1, round(_ENCODED * codec.sample_rate), device=device) / 10
    codec.encode(short[..., : len(short[0, 0]) // 8])
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
    """Lines on how long a run would take.

    Args:
        steps: of the whole run; infinity where nothing ends it.
        sound: seconds of sound that a latent cache would hold; 0 where there is none.
    """
    if getattr(module, "hparams", {}).get("compile"):
        return [
            "time:       not known: torch.compile takes minutes before the first step; leave out compile=true"
        ]
    device = trainer.strategy.root_device
    name = {"cpu": "the CPU", "cuda": "the GPU"}.get(device.type, device.type)
    try:
        step = time_training(module, datamodule, trainer)
        encoding = time_encoding(module.codec, sound, device) if sound else 0.0
    except (torch.OutOfMemoryError, MemoryError) as error:
        return [f"time:       not known: memory ran out in a step ({str(error).splitlines()[0]})"]
    each = f"{step:.3g} s a step on {name} (a few were timed); validation and samples come on top"
    whole = (
        "without an end"
        if steps == math.inf
        else f"about {duration(steps * step)} for {steps} steps"
    )
    lines = [f"time:       {whole}, {each}"]
    if encoding:
        lines.append(
            f"            before that at most {duration(encoding)}, once, for encoding the recordings"
        )
    return lines


def duration(seconds: float) -> str:
    """Seconds as text: "1.7 h"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
