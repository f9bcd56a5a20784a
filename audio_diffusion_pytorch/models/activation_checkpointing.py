"""Activation checkpointing (Chen et al. 2016): less memory for about a third more time."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from audio_diffusion_pytorch.models.layers import ResidualBlock, TransformerLayer

BLOCKS = (ResidualBlock, TransformerLayer)


def checkpoint_blocks(net: nn.Module) -> None:
    """Store only the inputs of the blocks of `net`; recompute activations in the backward pass.

    Names and values of the parameters do not change. Do not copy `net` afterwards: the copy would
    call the blocks of the original.
    """
    for block in net.modules():
        if isinstance(block, BLOCKS):
            # The blocks draw no random numbers, so the states of the generators need not be
            # preserved.
            block.forward = partial(  # type: ignore[method-assign]
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )


recompute_blocks = checkpoint_blocks  # the old name
