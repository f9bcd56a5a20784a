"""Choose devices; avoid the limits of Apple's GPU (mps): no float64, few complex operations."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def exact_device(device: torch.device) -> torch.device:
    """Return a device with float64 and complex numbers: the CPU for Apple's GPU, else `device`."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def exactly(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call a module that computes with complex numbers, on a device that supports them.

    Args:
        module: the module.
        inputs: its inputs, all on one device.

    Returns:
        The output of the module, on the device of the inputs.
    """
    device = inputs[0].device
    place = exact_device(device)
    if place == device:
        return module(*inputs)
    return copy.deepcopy(module).to(place)(*(x.to(place) for x in inputs)).to(device)


def choose_device(name: str, worker: int = 0) -> torch.device:
    """Choose a device by its name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps` ..., or `auto` for a GPU if one is available.
        worker: index of this process; with `auto` and `cuda`, workers use the GPUs in turn.

    Returns:
        The device.

    Raises:
        InputError: the device is not available.
    """
    import torch

    if name == "auto":
        name = _best_device()
    if name == "cuda" and torch.cuda.device_count() > 1:
        name = f"cuda:{worker % torch.cuda.device_count()}"
    try:
        probe = torch.empty(0, device=str(name))
        probe.cpu()  # fails for the device `meta`, which stores no data
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device={name} cannot be used ({reason}): use cpu, cuda, cuda:1 ..., mps or auto"
        ) from error


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters or buffers; the CPU if it has neither."""
    import torch

    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def device_of_worker(device: torch.device | str, worker: int) -> torch.device:
    """Return the device of a worker: a GPU of its machine if the command uses one, else `device`.

    Args:
        device: device of the command.
        worker: see `choose_device`.
    """
    name = str(device)
    return choose_device("auto" if name.startswith("cuda") else name, worker)


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
