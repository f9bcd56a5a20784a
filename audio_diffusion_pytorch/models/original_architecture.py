"""Architecture of a `UNet1d` from the shapes of its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from audio_diffusion_pytorch.errors import InputError

Shapes = Mapping[str, Sequence[int]]

_HEAD_FEATURES = 128  # of the published models; shapes encode only heads times features
_PUBLISHED = (1024, 128)  # heads times features, channels
# Arguments that suffice to build a network and to compare its keys with a checkpoint.
_SUFFICIENT = {"in_channels", "channels", "multipliers", "factors", "num_blocks", "attentions"}


def infer_unet(shapes: Shapes, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Infer the arguments of `UNet1d` from the shapes of its parameters.

    Args:
        shapes: shape of each parameter by name.
        known: arguments that are known; these take precedence.

    Raises:
        InputError: a parameter is missing; or the number of heads, or the factors of
            nearest-neighbour upsampling, are neither known nor encoded in the shapes.
    """
    known = dict(known or {})
    try:
        return _infer_levels(shapes, known) | _infer_transformers(shapes, known) | known
    except (KeyError, IndexError, ZeroDivisionError) as error:
        if known.keys() >= _SUFFICIENT:
            return known
        raise InputError(f"not the original's UNet, or incomplete: {error} is missing") from error
    except TypeError as error:
        raise InputError(f"invalid arguments of a UNet: {known}: {error}") from error


def _infer_levels(shapes: Shapes, known: Mapping[str, Any]) -> dict[str, Any]:
    levels = _count(shapes, r"downsamples\.(\d+)\.")
    down = [shapes[f"downsamples.{i}.downsample.weight"] for i in range(levels)]
    nearest = any(f"upsamples.{i}.upsample.1.weight" in shapes for i in range(levels))
    if nearest and not {"factors", "kernel_multiplier_downsample"} & known.keys():
        raise InputError(
            "shapes of nearest-neighbour upsampling do not encode the factors: pass "
            "unet={'factors': [...]}"
        )
    factors = _infer_factors(shapes, down, known)
    channels = 2 * shapes["to_time.0.0.weights"][0]
    patched = shapes["to_in.module_list.0.block.block1.project.weight"]
    out_channels = shapes["to_out.module_list.0.block.block2.project.weight"][0]
    widths = [down[0][1], *(shape[0] for shape in down)]
    parts = [*(rf"downsamples\.{i}" for i in range(levels)), "bottleneck"]
    return {
        "in_channels": patched[1],
        "channels": channels,
        "patch_factor": down[0][1] // patched[0],
        "multipliers": [width // channels for width in widths],
        "factors": factors,
        "num_blocks": [_count(shapes, rf"{part}\.blocks\.(\d+)\.") for part in parts[:-1]],
        "attentions": [_count(shapes, rf"{part}\.transformer\.blocks\.(\d+)\.") for part in parts],
        "kernel_multiplier_downsample": (down[0][2] - 1) // factors[0],
        "use_nearest_upsample": nearest,
        "out_channels": None if out_channels == patched[1] else out_channels,
    }


def _infer_factors(
    shapes: Shapes, down: Sequence[Sequence[int]], known: Mapping[str, Any]
) -> list[int]:
    """Infer the factors from the kernels: 2 * factor taps if transposed, 3 taps otherwise.

    Without either (nearest-neighbour upsampling) the downsampling kernel decides: multiplier *
    factor + 1 taps.
    """
    multiplier = known.get("kernel_multiplier_downsample", 2)
    factors = []
    for level, shape in enumerate(down):
        up = shapes.get(f"upsamples.{len(down) - 1 - level}.upsample.weight")
        if up is None:
            factors.append((shape[2] - 1) // multiplier)
        else:
            factors.append(up[2] // 2 if up[2] % 2 == 0 else 1)
    return factors


def _infer_transformers(shapes: Shapes, known: Mapping[str, Any]) -> dict[str, int]:
    queries = _first(shapes, "attention.to_q.weight")
    if queries is None:
        return {}
    hidden = _first(shapes, "feed_forward.0.weight")
    if hidden is None:
        raise KeyError("feed_forward.0.weight")
    channels = 2 * shapes["to_time.0.0.weights"][0]
    heads = _infer_heads(queries[0], channels, known)
    return heads | {"attention_multiplier": hidden[0] // hidden[1]}


def _infer_heads(total: int, channels: int, known: Mapping[str, Any]) -> dict[str, int]:
    heads = known.get("attention_heads")
    features = known.get("attention_features")
    if heads is None and features is None and (total, channels) != _PUBLISHED:
        raise InputError(
            "the checkpoint's shapes encode attention_heads * attention_features = "
            f"{total}, not the number of heads: pass unet={{'attention_heads': N}} "
            "(scripts/convert_checkpoint.py: --unet attention_heads=N)"
        )
    heads = heads or total // (features or _HEAD_FEATURES)
    return {"attention_heads": heads, "attention_features": features or total // heads}


def _first(shapes: Shapes, suffix: str) -> Sequence[int] | None:
    return next((shape for key, shape in shapes.items() if key.endswith(suffix)), None)


def _count(names: Shapes, pattern: str) -> int:
    """1 + the highest number that `pattern` matches at the start of a name; 0 without a match."""
    matches = (re.match(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)
