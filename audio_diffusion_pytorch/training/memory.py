"""Memory of a training step."""

import os
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from audio_diffusion_pytorch.models.activation_checkpointing import BLOCKS, checkpoint_blocks
from audio_diffusion_pytorch.models.unet import UNet1d


def _check_memory(needed: float, trainer: pl.Trainer) -> None:
    """Warn where a device has less than training needs; the processes of the CPU share its memory."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    elif not hasattr(os, "sysconf"):  # Windows
        return
    else:
        there, needed = (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            needed * trainer.num_devices,
        )
    if needed > there:
        warnings.warn(
            f"training needs about {_size(needed)} of memory, and there are {_size(there)}: lower "
            "datamodule.batch_size, or set model.checkpoint_activations=true",
            stacklevel=2,
        )


def activation_bytes(
    config: dict[str, Any],
    batch: int,
    frames: int,
    recompute: bool = False,
    network: type[nn.Module] = UNet1d,
) -> int:
    """Bytes that `network(**config)` keeps for the backward pass of a batch [batch, in_channels, frames], in float32.

    Nothing is computed: the pass runs on the meta device. With `recompute`, as after `checkpoint_blocks`: the inputs of
    the blocks, and the inside of the largest one.
    """
    with torch.device("meta"):
        net = network(**config)
        x, c_noise = torch.empty(batch, net.in_channels, frames), torch.empty(batch)
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, Tensor] = {}  # by storage: views share one
    inside: list[int] = []

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
        output = net(x, c_noise)  # noqa: F841  (its graph holds what is kept)
    return size() + max(inside, default=0)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
