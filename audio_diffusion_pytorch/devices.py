"""What a device cannot do: Apple's GPU (mps) has no float64, and knows complex numbers only in part."""

import copy

import torch
from torch import Tensor, nn


def exact_device(device: torch.device) -> torch.device:
    """Where float64 and complex numbers are computed: on the CPU for Apple's GPU, else on `device` itself."""
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
