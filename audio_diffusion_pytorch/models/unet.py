"""Raw network F(x, c_noise) of the denoiser (Karras et al. 2022, eq. 7): a 1-D UNet."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.models.layers import (
    Chain,
    FourierFeatures,
    PatchBlock,
    ResidualBlock,
    Transformer,
    UnpatchBlock,
    downsample,
    keep_strongest_pitch,
    upsample,
)
from audio_diffusion_pytorch.models.unet_config import UNetConfig, require

SKIP_SCALE = 2**-0.5


class DownLevel(nn.Module):
    """One level of the encoder: downsample, residual blocks, transformer."""

    def __init__(
        self, downsample: nn.Module, blocks: list[nn.Module], transformer: nn.Module | None
    ):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.transformer = transformer

    def forward(self, x: Tensor, mapping: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the level.

        Args:
            x: [B, outer, T].
            mapping: noise embedding [B, features].

        Returns:
            The output [B, inner, T / factor], and one skip after each block and after the
            transformer.
        """
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
    """Innermost part of the UNet: residual block, transformer, residual block."""

    def __init__(self, pre_block: nn.Module, transformer: nn.Module | None, post_block: nn.Module):
        super().__init__()
        self.pre_block = pre_block
        self.transformer = transformer
        self.post_block = post_block

    def forward(self, x: Tensor, mapping: Tensor) -> Tensor:
        """Map x [B, C, T] to the same shape; mapping: noise embedding [B, features]."""
        x = self.pre_block(x, mapping)
        if self.transformer is not None:
            x = self.transformer(x)
        return self.post_block(x, mapping)


class UpLevel(nn.Module):
    """Decoder level: residual blocks over the input and the skips, transformer, upsampling."""

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
        """Run the level.

        Args:
            x: [B, inner, T].
            skips: skips of the encoder's level, each [B, inner, T]; consumed from the last to the
                first.
            mapping: noise embedding [B, features].

        Returns:
            [B, outer, T * factor].
        """
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, skip * self.skip_scale], dim=1), mapping)
        if self.transformer is not None:
            x = self.transformer(x)
        return self.upsample(x)


class UNet1d(nn.Module):
    """UNet over sequences with residual blocks, transformers and a noise embedding.

    Level i maps `channels * multipliers[i]` to `channels * multipliers[i + 1]` channels and divides
    the length by `factors[i]`; it has `num_blocks[i]` residual blocks and, if `attentions[i] > 0`,
    a transformer of that many layers. `attentions[-1]` belongs to the bottleneck. The defaults are
    the published size, 302.3 M parameters (Mancusi et al. 2025).

    Args:
        in_channels: channels D of the latents x.
        channels: base width; the noise embedding has 4 times as many features.
        patch_factor: samples of x in one patch; all levels operate on patches.
        multipliers: widths, len(factors) + 1 of them.
        factors: length divisors.
        num_blocks: residual blocks of each level.
        attentions: transformer layers of each level and of the bottleneck, len(factors) + 1 of
            them.
        attention_heads: heads of each transformer layer.
        attention_features: features of one head.
        attention_multiplier: ratio of the width of a transformer's MLP to the width of its input.
        resnet_groups: groups of the normalisation in the residual blocks.
        kernel_multiplier_downsample: even number m; a downsampling kernel has m * factor + 1 taps.
        use_nearest_upsample: repeat samples and convolve, instead of a transposed convolution.
        use_skip_scale: multiply skips by 2^-1/2.
        out_channels: channels of the output, None for `in_channels`.
        num_labels: labels that condition the network; 0: an unconditional network.
        melody_channels: channels M of the melody input, see `pitch.melody_input`; 0: no such input.
        end_level: embed a second noise level, the last one of a solver; for students.
        single_pitch: use only the strongest pitch of the melody, see `keep_strongest_pitch`.

    Attributes:
        config: the arguments by name, sequences as lists.
        downsample_factor: patch_factor times the product of the factors; T must be a multiple.

    Raises:
        ValueError: the arguments are inconsistent.
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
        melody_channels: int = 0,
        end_level: bool = False,
        single_pitch: bool = False,
    ):
        super().__init__()
        config = UNetConfig(
            in_channels=in_channels,
            channels=channels,
            patch_factor=patch_factor,
            multipliers=multipliers,
            factors=factors,
            num_blocks=num_blocks,
            attentions=attentions,
            attention_heads=attention_heads,
            attention_features=attention_features,
            attention_multiplier=attention_multiplier,
            resnet_groups=resnet_groups,
            kernel_multiplier_downsample=kernel_multiplier_downsample,
            use_nearest_upsample=use_nearest_upsample,
            use_skip_scale=use_skip_scale,
            out_channels=out_channels,
            num_labels=num_labels,
            melody_channels=melody_channels,
            end_level=end_level,
            single_pitch=single_pitch,
        )
        self.config = config.to_dict()
        self.in_channels = in_channels
        self.num_labels = num_labels
        self.melody_channels = melody_channels
        self.single_pitch = single_pitch
        self.downsample_factor = patch_factor * math.prod(factors)

        # The order of construction fixes the initial values of a seed.
        features = config.mapping_features
        embedding = nn.Sequential(FourierFeatures(channels), nn.Linear(channels + 1, features))
        self.to_time = nn.Sequential(embedding, nn.GELU())
        self.to_mapping = nn.Sequential(
            nn.Linear(features, features),
            nn.GELU(),
            nn.Linear(features, features),
            nn.GELU(),
        )
        if num_labels:  # the last row is the unconditional network
            self.to_label = nn.Embedding(num_labels + 1, features)
            nn.init.zeros_(self.to_label.weight)
        widths = config.widths
        self.to_in = Chain(PatchBlock(in_channels, widths[0], patch_factor, features))
        levels = range(len(factors))
        self.downsamples = nn.ModuleList(_down_level(config, level) for level in levels)
        self.upsamples = nn.ModuleList()
        self.bottleneck = Bottleneck(
            _residual(config, widths[-1], widths[-1]),
            _transformer(config, widths[-1], attentions[-1]),
            _residual(config, widths[-1], widths[-1]),
        )
        self.upsamples.extend(_up_level(config, level) for level in reversed(levels))
        self.to_out = Chain(UnpatchBlock(widths[0], config.outputs, patch_factor, features))
        if melody_channels:  # one channel more: 1 where there is a melody, 0 without
            kernel = 2 * patch_factor + 1
            self.to_melody = nn.Conv1d(
                melody_channels + 1, widths[0], kernel, stride=patch_factor, padding=patch_factor
            )
        if end_level:  # without effect at first: a student begins as its teacher
            end = nn.Linear(channels + 1, features)
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)
            self.to_end = nn.Sequential(FourierFeatures(channels), end)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        melody: Tensor | None = None,
        c_end: Tensor | None = None,
        melody_features: Tensor | None = None,
    ) -> Tensor:
        """Map latents to the raw network output.

        Args:
            x: [B, in_channels, T], T a multiple of `downsample_factor`.
            c_noise: [B], the transformed noise level (Karras et al. 2022, table 1).
            label: [B], int64; None or `num_labels`: unconditional. Ignored by a network without
                labels.
            melody: posteriors of the pitches [B, melody_channels, T], or one more channel with 1
                where the melody is given and 0 where it is dropped; None: without melody. Ignored
                by a network without this input.
            c_end: [B], the transformed last noise level, for a network with `end_level`.
            melody_features: output of `embed_melody`, instead of the melody.

        Returns:
            [B, out_channels, T].

        Raises:
            ValueError: the channels of x differ from `in_channels`, or T is not a multiple of
                `downsample_factor`.
        """
        require(
            x.ndim == 3 and x.shape[1] == self.in_channels,
            f"x must be [B, {self.in_channels}, T], got {list(x.shape)}",
        )
        length = x.shape[2]
        factor = self.downsample_factor
        require(
            length > 0 and length % factor == 0,
            f"length must be a multiple of {factor}, got {length}",
        )

        embedding = self.to_time(c_noise)
        if self.num_labels:
            if label is None:
                label = torch.full_like(c_noise, self.num_labels, dtype=torch.long)
            embedding = embedding + self.to_label(label)
        if c_end is not None:
            embedding = embedding + self.to_end(c_end)
        mapping = self.to_mapping(embedding)
        x = self.to_in(x, mapping)
        if self.melody_channels:
            if melody_features is None:
                melody_features = self.embed_melody(melody)
            x = x + melody_features[..., : x.shape[-1]]
        x_in = x
        skips = []
        for level in self.downsamples:
            x, level_skips = level(x, mapping)
            skips.append(level_skips)
        x = self.bottleneck(x, mapping)
        for level in self.upsamples:
            x = level(x, skips.pop(), mapping)
        return self.to_out(x + x_in, mapping)

    def embed_melody(self, melody: Tensor | None) -> Tensor:
        """Embed the melody, which is the same at all noise levels of a solver.

        Args:
            melody: as in `forward`.

        Returns:
            First features [B, channels, T / patch_factor], or [channels, 1] without melody.
        """
        bias = cast(Tensor, self.to_melody.bias)
        if melody is None:
            return bias[:, None]
        melody, given = melody[:, : self.melody_channels], melody[:, self.melody_channels :]
        if not given.shape[1]:
            given = torch.ones_like(melody[:, :1])
        if self.single_pitch:
            melody = keep_strongest_pitch(melody)
        return self.to_melody(torch.cat([melody, given], dim=1).to(bias.dtype))


def _residual(config: UNetConfig, in_width: int, out_width: int) -> ResidualBlock:
    return ResidualBlock(in_width, out_width, config.resnet_groups, config.mapping_features)


def _transformer(config: UNetConfig, width: int, layers: int) -> Transformer | None:
    if layers == 0:
        return None
    return Transformer(
        width,
        layers,
        config.attention_heads,
        config.attention_features,
        config.attention_multiplier,
    )


def _down_level(config: UNetConfig, level: int) -> DownLevel:
    outer, inner = config.widths[level : level + 2]
    down = downsample(outer, inner, config.factors[level], config.kernel_multiplier_downsample)
    blocks: list[nn.Module] = [
        _residual(config, inner, inner) for _ in range(config.num_blocks[level])
    ]
    return DownLevel(down, blocks, _transformer(config, inner, config.attentions[level]))


def _up_level(config: UNetConfig, level: int) -> UpLevel:
    outer, inner = config.widths[level : level + 2]
    layers = config.attentions[level]
    skips = config.num_blocks[level] + (layers > 0)
    up = upsample(inner, outer, config.factors[level], config.use_nearest_upsample)
    blocks: list[nn.Module] = [_residual(config, 2 * inner, inner) for _ in range(skips)]
    skip_scale = SKIP_SCALE if config.use_skip_scale else 1.0
    return UpLevel(blocks, _transformer(config, inner, layers), up, skip_scale)


def fold_label(state: dict[str, Tensor], label: int) -> dict[str, Tensor]:
    """Fold one label of a conditional network into the bias of an unconditional one.

    The network adds the label's embedding to the noise embedding, and a linear layer follows: the
    unconditional network differs in that layer's bias only.

    Args:
        state: state of a network with labels.
        label: label to fold.

    Returns:
        State of the network without labels; all tensors but one are shared.
    """
    state = dict(state)
    embedding = state.pop("to_label.weight")[label]
    weight = state["to_mapping.0.weight"]
    bias = state["to_mapping.0.bias"]
    return state | {"to_mapping.0.bias": bias + weight @ embedding}


def choose_labels(state: dict[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    """Restrict the state of a conditional network to `labels`, and the unconditional row."""
    weight = state["to_label.weight"]
    return state | {"to_label.weight": weight[[*labels, len(weight) - 1]]}


def fold_melody(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold a dropped melody into the bias of a network without a melody input.

    Without a melody, this input adds its bias to the first features, which end with a convolution.

    Args:
        state: state of a network with a melody input, and with patch_factor 1.

    Returns:
        State of the network without this input.
    """
    state = dict(state)
    state.pop("to_melody.weight")
    last = "to_in.module_list.0.block.block2.project.bias"
    return state | {last: state[last] + state.pop("to_melody.bias")}
