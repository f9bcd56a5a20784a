"""Convolutions of wide, short sequences as one matrix product (CPU).

A convolution library repacks its weights in every call. Where a weight is larger than what it is applied to, as at the
bottom of the UNet (1024 channels, 5 to 40 columns), that takes longer than the arithmetic; a product of the weight as
it lies in memory with the sequence's columns does without, forwards and backwards.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_COLUMNS = 256  # batch times length, up to which a product is faster
_WEIGHTS = 1 << 18  # elements of a weight, from which on it is


def _as_product(x: Tensor, weight: Tensor, columns: int) -> bool:
    return x.device.type == "cpu" and columns <= _COLUMNS and weight.numel() >= _WEIGHTS


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` with zero padding: [B, in_channels, T] -> [B, out_channels, T / stride]."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel,), (stride,), (padding,) = self.kernel_size, self.stride, self.padding
        length = (x.shape[2] + 2 * padding - kernel) // stride + 1
        if not _as_product(x, self.weight, x.shape[0] * length):
            return super().forward(x)
        columns = F.pad(x, (padding, padding)).unfold(2, kernel, stride)  # [B, C, length, kernel]
        out = F.linear(columns.transpose(1, 2).flatten(2), self.weight.flatten(1), self.bias)
        return out.transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with a kernel of 2 * stride: [B, in_channels, T] -> [B, out_channels, T * stride]."""

    def forward(self, x: Tensor) -> Tensor:
        (stride,), (padding,), (extra,) = self.stride, self.padding, self.output_padding
        if not _as_product(x, self.weight, x.shape[0] * x.shape[2]):
            return super().forward(x)
        pieces = x.transpose(1, 2) @ self.weight.flatten(1)  # [B, T, out_channels * kernel]
        first, second = pieces.unflatten(2, (-1, 2, stride)).unbind(
            3
        )  # what falls into a frame's own place, and after
        out = F.pad(first, (0, 0, 0, 0, 0, 1)) + F.pad(
            second, (0, 0, 0, 0, 1, 0)
        )  # [B, T + 1, out_channels, stride]
        out = out.transpose(1, 2).flatten(2)[
            ..., padding : x.shape[2] * stride + stride - padding + extra
        ]
        return out + self.bias[:, None]
