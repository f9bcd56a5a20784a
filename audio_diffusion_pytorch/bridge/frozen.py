"""Record networks for one shape of input: small networks spend half of their time in Python."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.bridge.model_pair import ModelPair


class FrozenDenoiser(nn.Module):
    """Denoiser that is recorded for single windows of one length.

    The first call takes about a second: it records. The recording computes the same numbers. Inputs
    of other shapes use the denoiser itself.

    Args:
        denoiser: the denoiser.
        window: frames L of a window.
        channels: latent channels D.
    """

    def __init__(self, denoiser: Any, window: int, channels: int):
        super().__init__()
        self.denoiser = denoiser
        self._shape = (1, channels, window)
        self._recorded: dict[tuple[str, ...], Any] = {}  # by the names of the inputs

    def forward(self, x: Tensor, sigma: Tensor, **conditions: Tensor) -> Tensor:
        """Return D(x; sigma) [B, D, L] for x [B, D, L], perhaps with a melody or an end level."""
        inputs = {"x": x, "sigma": sigma, **conditions}
        if x.shape != self._shape or sigma.shape != (1,):
            return self.denoiser(**inputs)
        key = tuple(inputs)
        if key not in self._recorded:
            self._recorded[key] = _record(self.denoiser, inputs)
        return self._recorded[key](**inputs)

    def melody_conditions(self, melody: Tensor) -> dict[str, Tensor]:
        """Return a melody as keywords of `forward`, see `Denoiser.melody_conditions`."""
        return self.denoiser.melody_conditions(melody)


def _record(denoiser: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """Record the operations of a denoiser with its weights as constants."""
    trained = [weight for weight in denoiser.parameters() if weight.requires_grad]
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        examples = {name: torch.ones(value.shape) for name, value in inputs.items()}
        try:
            for weight in trained:  # a constant has no gradient
                weight.requires_grad_(False)
            recorded = torch.jit.trace(
                _Opaque(denoiser), example_kwarg_inputs=examples, check_trace=False
            )
        finally:
            for weight in trained:
                weight.requires_grad_(True)
        return torch.jit.freeze(recorded.eval())


class _Opaque(nn.Module):
    """Hide the modules of a network from TorchScript, which takes long to convert each of them."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self._hidden = (network,)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        end: Tensor | None = None,
        melody: Tensor | None = None,
        melody_features: Tensor | None = None,
    ) -> Tensor:
        """Call the network."""
        inputs = {
            "x": x,
            "sigma": sigma,
            "end": end,
            "melody": melody,
            "melody_features": melody_features,
        }
        given = {name: value for name, value in inputs.items() if value is not None}
        return self._hidden[0](**given)


def with_frozen_networks(
    pair: ModelPair, window: int, known: dict[nn.Module, FrozenDenoiser] | None = None
) -> ModelPair:
    """Return a bridge whose networks are recorded for single windows of one length.

    Args:
        pair: bridge; the result shares its models. Bridges on a GPU stay unchanged.
        window: frames of a window.
        known: recordings of other bridges that share models, by denoiser; new ones are added.
    """
    if pair.device.type != "cpu":
        return pair
    frozen = copy.copy(pair)
    known = {} if known is None else known

    def record(net: nn.Module) -> Any:
        if net not in known:
            known[net] = FrozenDenoiser(net, window, pair.codec.latent_channels)
        return known[net]

    frozen.denoisers = [record(net) for net in pair.denoisers]
    for net in pair.networks:  # `networks` fills `prepared`
        record(net)
    frozen.prepared = {one: record(net) for one, net in pair.prepared.items()}
    return frozen
