"""Estimate the memory of a training step."""

import os
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from audio_diffusion_pytorch.models.activation_checkpointing import BLOCKS, checkpoint_blocks
from audio_diffusion_pytorch.models.unet import UNet1d


def check_memory(needed: float, trainer: pl.Trainer) -> None:
    """Warn if training needs more memory than the device has; processes on a CPU share it.

    Args:
        needed: bytes of one process.
        trainer: trainer of the run.
    """
    device = trainer.strategy.root_device
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed *= trainer.num_devices
    else:  # Windows
        return
    if needed > available:
        warnings.warn(
            f"training needs about {format_size(needed)} of memory, and the device has "
            f"{format_size(available)}: lower datamodule.batch_size, or set "
            "model.checkpoint_activations=true",
            stacklevel=2,
        )


def activation_bytes(
    config: dict[str, Any],
    batch: int,
    frames: int,
    recompute: bool = False,
    network: type[nn.Module] = UNet1d,
) -> int:
    """Measure the tensors that a network keeps for its backward pass, in float32.

    The pass runs on the meta device, which computes nothing.

    Args:
        config: arguments of the network.
        batch: batch size.
        frames: frames of the input.
        recompute: use activation checkpointing, see `checkpoint_blocks`. The network then keeps the
            inputs of its blocks, and the tensors inside the largest block.
        network: class of the network, called with inputs [batch, in_channels, frames] and [batch].

    Returns:
        Size in bytes.
    """
    with torch.device("meta"):
        net: Any = network(**config)
        x = torch.empty(batch, net.in_channels, frames)
        c_noise = torch.empty(batch)
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, Tensor] = {}  # by storage, which several views share
    inside: list[int] = []  # sizes of the tensors inside each block

    def size() -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    def keep_inputs(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for tensor in inputs:
            keep(tensor)

    blocks = [block for block in net.modules() if isinstance(block, BLOCKS)]
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: inside.append(-size()))
        block.register_forward_hook(lambda *_: inside.append(inside.pop() + size()))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(x, c_noise)
    if not recompute:
        return size()
    kept.clear()
    checkpoint_blocks(net)
    for block in blocks:
        block.register_forward_pre_hook(keep_inputs)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = net(x, c_noise)  # noqa: F841  (its graph owns the kept tensors)
    return size() + max(inside, default=0)


def format_size(count: float) -> str:
    """Format a number of bytes: "1.5 GB" or "20.0 MB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
