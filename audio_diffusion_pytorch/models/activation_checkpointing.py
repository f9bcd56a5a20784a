"""Activation checkpointing (Chen et al. 2016): less memory in training, for about a third more time."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from audio_diffusion_pytorch.models.layers import ResidualBlock, TransformerLayer

BLOCKS = (ResidualBlock, TransformerLayer)


def recompute_blocks(net: nn.Module) -> None:
    """Let each block of `net` keep its input only, and compute the rest again in the backward pass.

    Names and values of the parameters stay. A copy of `net` made afterwards would run the blocks of the original.
    """
    for block in net.modules():
        if isinstance(
            block, BLOCKS
        ):  # nothing in them is random: no state of generators needs to be kept
            block.forward = partial(
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )
