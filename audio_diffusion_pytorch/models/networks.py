"""Networks by name: models and checkpoints store the name of their network, not its code."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.utils.registry import Registry

DEFAULT = "unet"
NETWORKS: Registry[type[nn.Module]] = Registry("network", {DEFAULT: UNet1d})


def network_name(net: nn.Module) -> str:
    """Return the registered name of a network's class, or `MODULE.CLASS` without such a name."""
    for name, network in NETWORKS.items():
        if type(net) is network:
            return name
    return f"{type(net).__module__}.{type(net).__qualname__}"


def build_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Build a network from its name and its arguments.

    Args:
        name: name in `NETWORKS`.
        config: arguments of the network, its attribute `config`.

    Raises:
        InputError: no network has this name.
    """
    if name not in NETWORKS:
        raise InputError(
            f"the model's network {name} is not registered: add plugins=[MODULE], the module that "
            f"registers {name} in NETWORKS (registered: {', '.join(NETWORKS)})"
        )
    return NETWORKS[name](**config)
