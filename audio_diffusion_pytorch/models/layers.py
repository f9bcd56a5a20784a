"""Building blocks of the UNet: noise embedding, residual block, patches, transformer, resampling.

Sequences are [B, C, T] outside a transformer and [B, T, C] inside. Parameters have the names of the
published checkpoints (Mancusi et al. 2025).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audio_diffusion_pytorch.models.conv import Conv1d, ConvTranspose1d

TRANSFORMER_GROUPS = 32  # groups of the normalisation before each transformer
_PITCH_FRAMES = 9  # frames, about 0.1 s, over which a pitch must be the strongest one
_PITCH_WIDTH = 4  # channels on both sides of the strongest pitch: vibrato stays visible
_CLEAR_PITCH = 0.2  # posterior from which a pitch has full strength


class FourierFeatures(nn.Module):
    """Embedding of a scalar by learned frequencies: the value, its sines and its cosines."""

    def __init__(self, channels: int):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(channels // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [B] in [B, channels + 1]."""
        t = t[:, None]
        angle = 2 * math.pi * t * self.weights
        return torch.cat([t, angle.sin(), angle.cos()], dim=-1)


class ConvBlock(nn.Module):
    """GroupNorm, modulation, SiLU, convolution with 3 taps."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.groupnorm = nn.GroupNorm(groups, in_channels)
        self.project = Conv1d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Map x [B, in_channels, T] to [B, out_channels, T].

        Args:
            x: input.
            scale_shift: modulation, each [B, in_channels, 1]; None: no modulation.
        """
        x = self.groupnorm(x)
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return self.project(F.silu(x))


class ScaleShift(nn.Module):
    """Scale and shift of `channels` channels from the noise embedding."""

    def __init__(self, mapping_features: int, channels: int):
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.SiLU(), nn.Linear(mapping_features, 2 * channels))

    def forward(self, mapping: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise embeddings [B, mapping_features] to scale and shift, each [B, channels, 1]."""
        scale, shift = self.to_scale_shift(mapping).unsqueeze(-1).chunk(2, dim=1)
        return scale, shift


class ResidualBlock(nn.Module):
    """Two convolutions, the second modulated by the noise embedding, plus a shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        groups: groups of the normalisation; must divide both numbers of channels.
        mapping_features: features of the noise embedding.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, mapping_features: int):
        super().__init__()
        self.block1 = ConvBlock(in_channels, out_channels, groups)
        self.to_scale_shift = ScaleShift(mapping_features, out_channels)
        self.block2 = ConvBlock(out_channels, out_channels, groups)
        self.to_out = (
            Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        """Map x [B, in_channels, T] and embedding [B, mapping_features] to [B, out_channels, T]."""
        return self.block2(self.block1(x), self.to_scale_shift(mapping)) + self.to_out(x)


class PatchBlock(nn.Module):
    """Residual block, then patches of `size` samples."""

    def __init__(self, in_channels: int, out_channels: int, size: int, mapping_features: int):
        super().__init__()
        self.size = size
        self.block = ResidualBlock(
            in_channels, out_channels // size, min(size, in_channels), mapping_features
        )

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        """Map x [B, in_channels, T] to [B, out_channels, T / size]."""
        x = self.block(x, mapping)
        # Channels of the result are (channel, offset in the patch).
        return x.unflatten(2, (-1, self.size)).transpose(2, 3).flatten(1, 2)


class UnpatchBlock(nn.Module):
    """Inverse of the patches of `PatchBlock`, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, size: int, mapping_features: int):
        super().__init__()
        self.size = size
        self.block = ResidualBlock(
            in_channels // size, out_channels, min(size, out_channels), mapping_features
        )

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        """Map x [B, in_channels, T] to [B, out_channels, T * size]."""
        x = x.unflatten(1, (-1, self.size)).transpose(2, 3).flatten(2, 3)
        return self.block(x, mapping)


class Chain(nn.Module):
    """Sequence of blocks that share the noise embedding."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.module_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        """Apply the blocks to x [B, C, T] in order."""
        for block in self.module_list:
            x = block(x, mapping)
        return x


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, features: int, heads: int, head_features: int):
        super().__init__()
        self.heads = heads
        self.to_out = nn.Linear(heads * head_features, features)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q to k and v, each [B, T, heads * head_features]; return [B, T, features]."""
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)  # [B, heads, T, D], scaled by D^-1/2
        return self.to_out(out.transpose(1, 2).flatten(2))


class SelfAttention(nn.Module):
    """Self-attention with separate normalisations of queries and of keys and values."""

    def __init__(self, features: int, heads: int, head_features: int):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.norm_context = nn.LayerNorm(features)
        self.to_q = nn.Linear(features, heads * head_features, bias=False)
        self.to_kv = nn.Linear(features, 2 * heads * head_features, bias=False)
        self.attention = Attention(features, heads, head_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, features] to the same shape."""
        k, v = self.to_kv(self.norm_context(x)).chunk(2, dim=-1)
        return self.attention(self.to_q(self.norm(x)), k, v)


class TransformerLayer(nn.Module):
    """Self-attention with a residual, then an MLP (without normalisation) with a residual."""

    def __init__(self, features: int, heads: int, head_features: int, multiplier: int):
        super().__init__()
        self.attention = SelfAttention(features, heads, head_features)
        self.feed_forward = nn.Sequential(
            nn.Linear(features, features * multiplier),
            nn.GELU(),
            nn.Linear(features * multiplier, features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, features] to the same shape."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class Transpose(nn.Module):
    """Swap channels and time."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to [B, T, C], and back."""
        return x.transpose(1, 2)


class Transformer(nn.Module):
    """Transformer layers between two 1x1 convolutions, without a residual around all of them."""

    def __init__(
        self, channels: int, num_layers: int, heads: int, head_features: int, multiplier: int
    ):
        super().__init__()
        self.to_in = nn.Sequential(
            nn.GroupNorm(TRANSFORMER_GROUPS, channels, eps=1e-6),
            Conv1d(channels, channels, 1),
            Transpose(),
        )
        self.blocks = nn.Sequential(
            *(
                TransformerLayer(channels, heads, head_features, multiplier)
                for _ in range(num_layers)
            )
        )
        self.to_out = nn.Sequential(Transpose(), Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, channels, T] to the same shape."""
        return self.to_out(self.blocks(self.to_in(x)))


def downsample(
    in_channels: int, out_channels: int, factor: int, kernel_multiplier: int = 2
) -> nn.Module:
    """Build a strided convolution from [B, in_channels, T] to [B, out_channels, T / factor].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        factor: stride.
        kernel_multiplier: even number m; the kernel has m * factor + 1 taps.
    """
    kernel = factor * kernel_multiplier + 1
    padding = factor * kernel_multiplier // 2
    return Conv1d(in_channels, out_channels, kernel, stride=factor, padding=padding)


def upsample(in_channels: int, out_channels: int, factor: int, nearest: bool = False) -> nn.Module:
    """Build an upsampling layer from [B, in_channels, T] to [B, out_channels, T * factor].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        factor: ratio of the lengths.
        nearest: repeat samples and convolve, instead of a transposed convolution.
    """
    if factor == 1:
        return Conv1d(in_channels, out_channels, kernel_size=3, padding=1)
    if nearest:
        conv = Conv1d(in_channels, out_channels, kernel_size=3, padding=1)
        return nn.Sequential(nn.Upsample(scale_factor=factor, mode="nearest"), conv)
    odd = factor % 2
    return ConvTranspose1d(
        in_channels,
        out_channels,
        2 * factor,
        stride=factor,
        padding=factor // 2 + odd,
        output_padding=odd,
    )


def keep_strongest_pitch(melody: Tensor) -> Tensor:
    """Keep the strongest pitch of each frame, at one strength.

    Partials and strengths of pitch posteriors depend on the instrument and the register: a network
    that receives them takes over the timbre of the source.

    Args:
        melody: posteriors of the pitches [B, M, L].

    Returns:
        [B, M, L]; the maximum of a frame is 1, or less without a clear pitch.
    """
    over = min(_PITCH_FRAMES, 2 * melody.shape[-1] - 1)
    mean = F.avg_pool1d(melody, over, 1, over // 2, count_include_pad=False)
    pitch = torch.arange(melody.shape[1], device=melody.device)[:, None]
    near = (pitch - mean.argmax(1, keepdim=True)).abs() <= _PITCH_WIDTH
    kept = melody * near
    return kept / kept.amax(1, keepdim=True).clamp_min(_CLEAR_PITCH)
