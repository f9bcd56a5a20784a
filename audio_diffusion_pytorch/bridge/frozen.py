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
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        examples = {name: torch.ones(value.shape) for name, value in inputs.items()}
        recorded = torch.jit.trace(denoiser, example_kwarg_inputs=examples, check_trace=False)
        return torch.jit.freeze(recorded.eval())


def with_frozen_networks(pair: ModelPair, window: int) -> ModelPair:
    """Return a bridge whose networks are recorded for single windows of one length.

    Args:
        pair: bridge; the result shares its models. Bridges on a GPU stay unchanged.
        window: frames of a window.
    """
    if pair.device.type != "cpu":
        return pair
    frozen = copy.copy(pair)
    channels = pair.codec.latent_channels
    frozen.denoisers = [
        cast(Denoiser, FrozenDenoiser(net, window, channels)) for net in pair.denoisers
    ]
    return frozen
