"""What a device cannot do: Apple's GPU (mps) has no float64, and knows complex numbers only in part."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def exact_device(device: torch.device) -> torch.device:
    """Where float64 and complex numbers are computed: on the CPU for Apple's GPU, else on `device` itself."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def exactly(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call a module that computes with complex numbers where its inputs are, or on the CPU for Apple's GPU.

    Returns:
        What the module returns, on the inputs' device.
    """
    device, place = inputs[0].device, exact_device(inputs[0].device)
    if place == device:
        return module(*inputs)
    return copy.deepcopy(module).to(place)(*(x.to(place) for x in inputs)).to(device)


def choose_device(name: str) -> torch.device:
    """`auto` (the GPU where there is one, CUDA's or Apple's), `cpu`, `cuda`, `cuda:1`, `mps` ... -> torch.device.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        probe = torch.empty(0, device=str(name))
        probe.cpu()  # the device named meta holds nothing
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device={name} cannot be used ({reason}): use cpu, cuda, cuda:1 ..., mps or auto"
        ) from error
