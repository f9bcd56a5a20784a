"""Record networks for one shape of input: small networks spend half of their time in Python."""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.bridge.model_pair import ModelPair
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser


class FrozenDenoiser(nn.Module):
    """Denoiser that is recorded for single windows of one length.

    The first call takes about a second: it records. The recording computes the same numbers. Inputs
    of other shapes use the denoiser itself.

    Args:
        denoiser: the denoiser.
        window: frames L of a window.
        channels: latent channels D.
    """

    def __init__(self, denoiser: nn.Module, window: int, channels: int):
        super().__init__()
        self.denoiser = denoiser
        self._shape = (1, channels, window)
        self._recorded: dict[bool, Any] = {}  # without and with melody

    def forward(self, x: Tensor, sigma: Tensor, melody: Tensor | None = None) -> Tensor:
        """Return D(x; sigma) [B, D, L] for x [B, D, L], and a melody [B, M, L] if it is given."""
        inputs = {"x": x, "sigma": sigma} | ({} if melody is None else {"melody": melody})
        if x.shape != self._shape or sigma.shape != (1,):
            return self.denoiser(**inputs)
        key = melody is not None
        if key not in self._recorded:
            self._recorded[key] = _record(self.denoiser, inputs)
        return self._recorded[key](**inputs)


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

    def forward(self, x: Tensor, sigma: Tensor, melody: Tensor | None = None) -> Tensor:
        """Call the network."""
        network = self._hidden[0]
        if melody is None:
            return network(x=x, sigma=sigma)
        return network(x=x, sigma=sigma, melody=melody)


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
    for net in pair.denoisers:
        if net not in known:
            known[net] = FrozenDenoiser(net, window, pair.codec.latent_channels)
    frozen.denoisers = [cast(Denoiser, known[net]) for net in pair.denoisers]
    return frozen
