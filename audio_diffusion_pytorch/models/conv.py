"""1-D convolutions of wide, short sequences as one matrix product (CPU).

Convolution libraries repack the weights in every call. If the weights are larger than the input, as
at the bottom of the UNet (1024 channels, 5 to 40 columns), repacking costs more than the
arithmetic. A matrix product reads the weights in place, forwards and backwards.
"""

import torch.nn.functional as F
from torch import Tensor, nn

_MAX_COLUMNS = 256  # a product is faster up to this batch size times length ...
_MIN_WEIGHTS = 1 << 18  # ... from this many elements of the weight on


def _as_product(x: Tensor, weight: Tensor, columns: int) -> bool:
    return x.device.type == "cpu" and columns <= _MAX_COLUMNS and weight.numel() >= _MIN_WEIGHTS


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` with zero padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, T] to [B, out_channels, T / stride]."""
        kernel = self.kernel_size[0]
        stride = self.stride[0]
        padding = int(self.padding[0])
        length = (x.shape[2] + 2 * padding - kernel) // stride + 1
        if not _as_product(x, self.weight, x.shape[0] * length):
            return super().forward(x)
        columns = F.pad(x, (padding, padding)).unfold(2, kernel, stride)  # [B, C, length, kernel]
        out = F.linear(columns.transpose(1, 2).flatten(2), self.weight.flatten(1), self.bias)
        return out.transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with a kernel of 2 * stride."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, T] to [B, out_channels, T * stride]."""
        stride = self.stride[0]
        padding = int(self.padding[0])
        extra = self.output_padding[0]
        if not _as_product(x, self.weight, x.shape[0] * x.shape[2]):
            return super().forward(x)
        pieces = x.transpose(1, 2) @ self.weight.flatten(1)  # [B, T, out_channels * kernel]
        # Each frame contributes to its own place and to the next one.
        own, following = pieces.unflatten(2, (-1, 2, stride)).unbind(3)
        out = F.pad(own, (0, 0, 0, 0, 0, 1)) + F.pad(following, (0, 0, 0, 0, 1, 0))
        samples = out.transpose(1, 2).flatten(2)  # [B, out_channels, (T + 1) * stride]
        end = x.shape[2] * stride + stride - padding + extra
        out = samples[..., padding:end]
        return out if self.bias is None else out + self.bias[:, None]
