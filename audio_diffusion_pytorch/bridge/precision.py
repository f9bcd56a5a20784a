"""A denoiser as a bridge runs it: in single or half precision, compiled or not."""

import copy

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.unet import UNet1d

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}


def choose_dtype(precision: str | int, device: torch.device) -> torch.dtype:
    """The type that networks compute in; "auto" is float16 on CUDA and float32 elsewhere.

    float16 keeps 11 bits where bfloat16 keeps 8: its rounding hardly adds to the solver's error, that of bfloat16 is
    several times larger. A CPU without matrix instructions is no faster in either
    (`benchmarks/transfer.py --only evaluation`).

    Raises:
        InputError: no such precision.
    """
    if str(precision) == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if str(precision) not in DTYPES:
        raise InputError(f"no precision {precision!r}; there are auto, {', '.join(DTYPES)}")
    return DTYPES[str(precision)]


def at_precision(denoiser: Denoiser, dtype: torch.dtype, compile: bool = False) -> Denoiser:
    """The same denoiser with its network at another precision; itself where nothing changes.

    Args:
        denoiser: in float32; a user's own network stays in float32.
        compile: with torch.compile, and CUDA graphs on a GPU: the first calls for each size of batch take minutes.
    """
    net = denoiser.net
    if dtype != torch.float32 and isinstance(
        net, UNet1d
    ):  # which layer embeds sigma is known there
        net = Reduced(net, dtype)
    if compile:
        cuda = next(denoiser.parameters()).is_cuda
        net = torch.compile(net, mode="reduce-overhead" if cuda else None)
    return denoiser if net is denoiser.net else Denoiser(net, denoiser.sigma_data)


class Reduced(nn.Module):
    """A copy of a network in another type, for inputs and outputs in float32.

    The embedding of the noise level stays in float32: rounded, it would stand for another level.
    """

    def __init__(self, net: UNet1d, dtype: torch.dtype):
        super().__init__()
        self.net = copy.deepcopy(net).to(dtype)
        self.net.to_time = copy.deepcopy(net.to_time)
        self.net.to_mapping = nn.Sequential(*copy.deepcopy(net.to_mapping), _Cast(dtype))
        self.dtype = dtype

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.net(x.to(self.dtype), c_noise).to(x.dtype)


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)
