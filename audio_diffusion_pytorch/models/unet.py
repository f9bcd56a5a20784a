"""The network F(x, c_noise) that the denoiser preconditions: a 1-D UNet over latents."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.models.layers import (
    TRANSFORMER_GROUPS,
    Chain,
    FourierFeatures,
    PatchBlock,
    ResidualBlock,
    Transformer,
    UnpatchBlock,
    downsample,
    upsample,
)

SKIP_SCALE = 2**-0.5


class DownLevel(nn.Module):
    """Downsample, residual blocks, transformer; returns its output and a skip after every block and the transformer."""

    def __init__(
        self, downsample: nn.Module, blocks: list[nn.Module], transformer: nn.Module | None
    ):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.transformer = transformer

    def forward(self, x: Tensor, mapping: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        x = self.downsample(x)
        for block in self.blocks:
            x = block(x, mapping)
            skips.append(x)
        if self.transformer is not None:
            x = self.transformer(x)
            skips.append(x)
        return x, skips


class Bottleneck(nn.Module):
    """Residual block, transformer, residual block."""

    def __init__(self, pre_block: nn.Module, transformer: nn.Module | None, post_block: nn.Module):
        super().__init__()
        self.pre_block = pre_block
        self.transformer = transformer
        self.post_block = post_block

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        x = self.pre_block(x, mapping)
        if self.transformer is not None:
            x = self.transformer(x)
        return self.post_block(x, mapping)


class UpLevel(nn.Module):
    """Residual blocks that take the level's skips, last one first, then transformer and upsample."""

    def __init__(
        self,
        blocks: list[nn.Module],
        transformer: nn.Module | None,
        upsample: nn.Module,
        skip_scale: float,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.transformer = transformer
        self.upsample = upsample
        self.skip_scale = skip_scale

    def forward(self, x: Tensor, skips: list[Tensor], mapping: Tensor) -> Tensor:
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, skip * self.skip_scale], dim=1), mapping)
        if self.transformer is not None:
            x = self.transformer(x)
        return self.upsample(x)


class UNet1d(nn.Module):
    """UNet over sequences with residual blocks, transformers and a noise embedding.

    Level i goes from `channels * multipliers[i]` to `channels * multipliers[i + 1]` channels and divides the length
    by `factors[i]`; it has `num_blocks[i]` residual blocks and, where `attentions[i] > 0`, a transformer of that many
    layers. `attentions[-1]` belongs to the bottleneck. The defaults are the published size, 302.3 M parameters.

    Args:
        in_channels: channels D of the latents x.
        channels: base width; the noise embedding has 4 times as many features.
        patch_factor: samples of x in one patch; the UNet proper sees patches.
        multipliers: widths, len(factors) + 1 of them.
        factors: length divisors.
        num_blocks: residual blocks of each level.
        attentions: transformer layers of each level and of the bottleneck, len(factors) + 1 of them.
        attention_heads, attention_features: heads, and features of one head.
        attention_multiplier: width of a transformer's MLP over its input's.
        resnet_groups: groups of the normalisation in the residual blocks.
        kernel_multiplier_downsample: a downsampling kernel is this times the factor, plus 1; even.
        use_nearest_upsample: repeat samples and convolve, instead of a transposed convolution.
        use_skip_scale: multiply skips by 2^-1/2.
        out_channels: channels of the output, None for `in_channels`.
        num_labels: instruments that one network tells apart by a label; 0: no labels.

    Attributes:
        config: the arguments, as plain containers.
        downsample_factor: patch_factor times the product of the factors: the shortest T, and every T is a multiple.

    Raises:
        ValueError: the arguments do not fit together.
    """

    def __init__(
        self,
        in_channels: int = 128,
        channels: int = 128,
        patch_factor: int = 1,
        multipliers: Sequence[int] = (1, 2, 4, 8, 8, 8),
        factors: Sequence[int] = (4, 4, 4, 2, 2),
        num_blocks: Sequence[int] = (2, 2, 2, 2, 2),
        attentions: Sequence[int] = (0, 1, 1, 1, 1, 1),
        attention_heads: int = 8,
        attention_features: int = 128,
        attention_multiplier: int = 2,
        resnet_groups: int = 8,
        kernel_multiplier_downsample: int = 2,
        use_nearest_upsample: bool = False,
        use_skip_scale: bool = True,
        out_channels: int | None = None,
        num_labels: int = 0,
    ):
        super().__init__()
        arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.config = {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in arguments.items()
        }
        out_channels = in_channels if out_channels is None else out_channels
        _check_sizes(
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            patch_factor=patch_factor,
            attention_heads=attention_heads,
            attention_features=attention_features,
            attention_multiplier=attention_multiplier,
            resnet_groups=resnet_groups,
            kernel_multiplier_downsample=kernel_multiplier_downsample,
        )
        _check_levels(factors, multipliers, num_blocks, attentions)
        widths = [channels * m for m in multipliers]
        _check_groups(widths, attentions, resnet_groups)
        _check_patches(widths[0], patch_factor, in_channels, out_channels)

        def residual(in_width: int, out_width: int) -> ResidualBlock:
            return ResidualBlock(in_width, out_width, resnet_groups, mapping_features)

        def transformer(width: int, layers: int) -> Transformer | None:
            if layers == 0:
                return None
            return Transformer(
                width, layers, attention_heads, attention_features, attention_multiplier
            )

        mapping_features = 4 * channels
        skip_scale = SKIP_SCALE if use_skip_scale else 1.0
        self.in_channels = in_channels
        self.downsample_factor = patch_factor * math.prod(factors)

        embedding = nn.Sequential(
            FourierFeatures(channels), nn.Linear(channels + 1, mapping_features)
        )
        self.to_time = nn.Sequential(embedding, nn.GELU())
        self.to_mapping = nn.Sequential(
            nn.Linear(mapping_features, mapping_features),
            nn.GELU(),
            nn.Linear(mapping_features, mapping_features),
            nn.GELU(),
        )
        self.num_labels = num_labels
        if num_labels:  # the last row means no label
            self.to_label = nn.Embedding(num_labels + 1, mapping_features)
            nn.init.zeros_(self.to_label.weight)
        self.to_in = Chain(PatchBlock(in_channels, widths[0], patch_factor, mapping_features))
        self.downsamples = nn.ModuleList()
        self.upsamples = nn.ModuleList()
        for i, factor in enumerate(factors):
            outer, inner = widths[i], widths[i + 1]
            down = downsample(outer, inner, factor, kernel_multiplier_downsample)
            blocks = [residual(inner, inner) for _ in range(num_blocks[i])]
            self.downsamples.append(DownLevel(down, blocks, transformer(inner, attentions[i])))
        self.bottleneck = Bottleneck(
            residual(widths[-1], widths[-1]),
            transformer(widths[-1], attentions[-1]),
            residual(widths[-1], widths[-1]),
        )
        for i, factor in reversed(list(enumerate(factors))):
            outer, inner = widths[i], widths[i + 1]
            up = upsample(inner, outer, factor, use_nearest_upsample)
            blocks = [
                residual(2 * inner, inner) for _ in range(num_blocks[i] + (attentions[i] > 0))
            ]
            self.upsamples.append(
                UpLevel(blocks, transformer(inner, attentions[i]), up, skip_scale)
            )
        self.to_out = Chain(UnpatchBlock(widths[0], out_channels, patch_factor, mapping_features))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Map latents to the raw network output.

        Args:
            x: [B, in_channels, T], T a multiple of `downsample_factor`.
            c_noise: [B], the transformed noise level (Karras et al. 2022, table 1).
            label: [B], int64, `num_labels` and None for no label; only for a network with labels.

        Returns:
            [B, out_channels, T].

        Raises:
            ValueError: x has another number of channels, or a length that is no multiple of `downsample_factor`.
        """
        _require(
            x.ndim == 3 and x.shape[1] == self.in_channels,
            f"x must be [B, {self.in_channels}, T], got {list(x.shape)}",
        )
        length, factor = x.shape[2], self.downsample_factor
        _require(
            length > 0 and length % factor == 0,
            f"length must be a multiple of {factor}, got {length}",
        )

        embedding = self.to_time(c_noise)
        if self.num_labels:
            label = (
                torch.full_like(c_noise, self.num_labels, dtype=torch.long)
                if label is None
                else label
            )
            embedding = embedding + self.to_label(label)
        mapping = self.to_mapping(embedding)
        x = x_in = self.to_in(x, mapping)
        skips = []
        for level in self.downsamples:
            x, level_skips = level(x, mapping)
            skips.append(level_skips)
        x = self.bottleneck(x, mapping)
        for level in self.upsamples:
            x = level(x, skips.pop(), mapping)
        return self.to_out(x + x_in, mapping)


def fold_label(state: dict[str, Tensor], label: int) -> dict[str, Tensor]:
    """State of a network with labels -> that of the network without, for one label.

    The label is added to the noise embedding, and what follows is linear: the same network with another bias.
    """
    state = dict(state)
    embedding = state.pop("to_label.weight")[label]
    weight, bias = (state[f"to_mapping.0.{name}"] for name in ("weight", "bias"))
    return state | {"to_mapping.0.bias": bias + weight @ embedding}


def choose_labels(state: dict[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    """State of a network with labels -> that of one with these only, in this order, and with none at all."""
    weight = state["to_label.weight"]
    return state | {"to_label.weight": weight[[*labels, len(weight) - 1]]}


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        _require(value >= 1, f"{name} must be at least 1, got {value}")
    for name in ("channels", "kernel_multiplier_downsample"):
        _require(sizes[name] % 2 == 0, f"{name} must be even, got {sizes[name]}")


def _check_levels(
    factors: Sequence[int],
    multipliers: Sequence[int],
    num_blocks: Sequence[int],
    attentions: Sequence[int],
) -> None:
    levels = len(factors)
    expected = {  # name: values, number of them, smallest allowed
        "factors": (factors, max(levels, 1), 1),
        "multipliers": (multipliers, levels + 1, 1),
        "num_blocks": (num_blocks, levels, 1),
        "attentions": (attentions, levels + 1, 0),
    }
    for name, (values, number, least) in expected.items():
        _require(
            len(values) == number and min(values) >= least,
            f"{name} must be {number} numbers of at least {least} for {levels} factors, got {list(values)}",
        )


def _check_groups(widths: list[int], attentions: Sequence[int], resnet_groups: int) -> None:
    inner = widths[1:] + widths[-1:]  # of each level and of the bottleneck
    for i, (width, layers) in enumerate(zip(inner, attentions, strict=True)):
        _require(
            width % resnet_groups == 0,
            f"resnet_groups {resnet_groups} must divide level {i}'s {width} channels",
        )
        _require(
            layers == 0 or width % TRANSFORMER_GROUPS == 0,
            f"attentions[{i}] = {layers} needs channels that {TRANSFORMER_GROUPS} divides, level {i} has {width}",
        )


def _check_patches(width: int, patch_factor: int, in_channels: int, out_channels: int) -> None:
    _require(
        width % patch_factor == 0,
        f"patch_factor {patch_factor} must divide the {width} channels it makes",
    )
    for name, outer in (("in_channels", in_channels), ("out_channels", out_channels)):
        groups, inner = min(patch_factor, outer), width // patch_factor
        _require(
            outer % groups == 0 and inner % groups == 0,
            f"patch_factor {patch_factor} makes {groups} groups, which must divide {name} {outer} and {inner} channels",
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
