"""Configuration of `UNet1d`: its arguments, validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from audio_diffusion_pytorch.models.layers import TRANSFORMER_GROUPS

_POSITIVE = (
    "in_channels",
    "out_channels",
    "channels",
    "patch_factor",
    "attention_heads",
    "attention_features",
    "attention_multiplier",
    "resnet_groups",
    "kernel_multiplier_downsample",
)
_EVEN = ("channels", "kernel_multiplier_downsample")


@dataclass(frozen=True)
class UNetConfig:
    """Arguments of `UNet1d`, in the order of the metadata of model files; `UNet1d` documents them.

    Raises:
        ValueError: the arguments are inconsistent.
    """

    in_channels: int
    channels: int
    patch_factor: int
    multipliers: Sequence[int]
    factors: Sequence[int]
    num_blocks: Sequence[int]
    attentions: Sequence[int]
    attention_heads: int
    attention_features: int
    attention_multiplier: int
    resnet_groups: int
    kernel_multiplier_downsample: int
    use_nearest_upsample: bool
    use_skip_scale: bool
    out_channels: int | None
    num_labels: int
    melody_channels: int = 0
    end_level: bool = False
    single_pitch: bool = False

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_levels()
        self._check_groups()
        self._check_patches()

    @property
    def widths(self) -> list[int]:
        """Channels at the borders of the levels, len(factors) + 1 of them."""
        return [self.channels * multiplier for multiplier in self.multipliers]

    @property
    def outputs(self) -> int:
        """Channels of the network's output."""
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def mapping_features(self) -> int:
        """Features of the noise embedding."""
        return 4 * self.channels

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments by name, sequences as lists.

        Without the inputs of later versions, the result equals that of earlier versions.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for later in ("melody_channels", "end_level", "single_pitch"):
            if not values[later]:
                del values[later]
        return {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in values.items()
        }

    def _check_sizes(self) -> None:
        for name in _POSITIVE:
            value = self.outputs if name == "out_channels" else getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        for name in _EVEN:
            value = getattr(self, name)
            require(value % 2 == 0, f"{name} must be even, got {value}")

    def _check_levels(self) -> None:
        levels = len(self.factors)
        expected = {  # name: values, number of them, smallest allowed
            "factors": (self.factors, max(levels, 1), 1),
            "multipliers": (self.multipliers, levels + 1, 1),
            "num_blocks": (self.num_blocks, levels, 1),
            "attentions": (self.attentions, levels + 1, 0),
        }
        for name, (values, number, least) in expected.items():
            require(
                len(values) == number and min(values) >= least,
                f"{name} must be {number} numbers of at least {least} for {levels} factors, got "
                f"{list(values)}",
            )

    def _check_groups(self) -> None:
        inner = self.widths[1:] + self.widths[-1:]  # of each level and of the bottleneck
        for i, (width, layers) in enumerate(zip(inner, self.attentions, strict=True)):
            require(
                width % self.resnet_groups == 0,
                f"resnet_groups {self.resnet_groups} must divide the {width} channels of level {i}",
            )
            require(
                layers == 0 or width % TRANSFORMER_GROUPS == 0,
                f"attentions[{i}] = {layers} requires channels divisible by {TRANSFORMER_GROUPS}, "
                f"level {i} has {width}",
            )

    def _check_patches(self) -> None:
        patch_factor = self.patch_factor
        width = self.widths[0]
        require(
            width % patch_factor == 0,
            f"patch_factor {patch_factor} must divide the {width} channels of the patches",
        )
        for name, outer in (("in_channels", self.in_channels), ("out_channels", self.outputs)):
            groups = min(patch_factor, outer)
            inner = width // patch_factor
            require(
                outer % groups == 0 and inner % groups == 0,
                f"patch_factor {patch_factor} leads to {groups} normalisation groups, which must "
                f"divide {name} = {outer} and {inner} channels",
            )


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)
