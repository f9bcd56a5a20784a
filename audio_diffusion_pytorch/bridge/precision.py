"""Run a denoiser in single or half precision, compiled or not."""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.utils.settings import check_choice

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def choose_dtype(precision: str | int, device: torch.device) -> torch.dtype:
    """Choose the type in which networks compute; "auto" is float16 on CUDA and float32 elsewhere.

    float16 has 11 bits of precision and bfloat16 has 8: rounding to float16 hardly adds to the
    solver's error, rounding to bfloat16 adds several times more. A CPU without matrix instructions
    is not faster in half precision (`benchmarks/transfer.py --only evaluation`).

    Args:
        precision: "auto" or a name in `DTYPES`.
        device: device of the networks.

    Raises:
        InputError: the precision is unknown.
    """
    check_choice("precision", str(precision), ("auto", *DTYPES))
    if str(precision) == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[str(precision)]


def at_precision(denoiser: Denoiser, dtype: torch.dtype, compile: bool = False) -> Denoiser:
    """Return a denoiser whose network computes in another type.

    Args:
        denoiser: denoiser in float32; it stays unchanged.
        dtype: type of the network.
        compile: compile the network with torch.compile, and CUDA graphs on a GPU: the first calls
            of each batch size take minutes.

    Returns:
        A denoiser that shares the network in float32; `denoiser` itself without any change.
    """
    net = denoiser.net
    # `Reduced` keeps the embedding of sigma in float32, a layer that only UNet1d names.
    if dtype != torch.float32 and isinstance(net, UNet1d):
        net = Reduced(net, dtype)
    if compile:
        cuda = next(denoiser.parameters()).is_cuda
        net = cast(nn.Module, torch.compile(net, mode="reduce-overhead" if cuda else None))
    return denoiser if net is denoiser.net else Denoiser(net, denoiser.sigma_data)


class Reduced(nn.Module):
    """Copy of a network in half precision, with inputs and outputs in float32.

    The embedding of the noise level stays in float32: a rounded level is another level.

    Args:
        net: network in float32.
        dtype: type of the copy.
    """

    def __init__(self, net: UNet1d, dtype: torch.dtype):
        super().__init__()
        self.net = copy.deepcopy(net).to(dtype)
        self.net.to_time = copy.deepcopy(net.to_time)
        if net.config.get("end_level"):
            self.net.to_end = copy.deepcopy(net.to_end)
        self.net.to_mapping = nn.Sequential(*copy.deepcopy(net.to_mapping), _Cast(dtype))
        self.dtype = dtype

    def forward(self, x: Tensor, c_noise: Tensor, **conditions: Tensor) -> Tensor:
        """Run the network on x [B, D, L], c_noise [B] and perhaps conditions: [B, D, L]."""
        return self.net(x.to(self.dtype), c_noise, **conditions).to(x.dtype)

    def embed_melody(self, melody: Tensor) -> Tensor:
        """Embed a melody [B, M, L], see `UNet1d.embed_melody`."""
        return self.net.embed_melody(melody)


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)
