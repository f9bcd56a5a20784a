"""Checkpoints of the original system (Mancusi et al. 2025, arXiv 2409.06096): read, check, convert, write back.

Their Lightning layout holds one UNet under three names, `unet.*`, `diffusion.net.*` and `diffusion.diffusion.net.*`,
and all of that three times: `model.` has the raw weights, `model_ema.online_model.` the same once more, and
`model_ema.ema_model.` the averaged ones. The codec lies under `encodec_model.`. Latent statistics are in other files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.utils.checkpoint_io import load_tensor
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.codecs.encodec_weights import CODEC_PREFIX
from audio_diffusion_pytorch.utils.checkpoint_io import check_keys, read_checkpoint

Weights = Literal["ema", "raw"]
_ALIASES = ("unet.", "diffusion.net.", "diffusion.diffusion.net.")
_ROOTS = {"ema": ("model_ema.ema_model.",), "raw": ("model.", "model_ema.online_model.", "")}
_EMA_COUNTERS = ("model_ema.initted", "model_ema.step")
_UNET_KEY = re.compile(
    r"((?:model_ema\.ema_model\.|model_ema\.online_model\.|model\.)?(?:unet|diffusion\.net|diffusion\.diffusion\.net)\.)(.+)"
)
_HEAD_FEATURES = 128  # of the published models; shapes tell only heads times features
_PUBLISHED = (1024, 128)  # heads times features, channels
_SPEC_KEYS = {  # InstrumentSpec's field: names in the original's configuration
    "sigma_data": ("diffusion_sigma_data", "sigma_data"),
    "sigma_min": ("sigma_min",),
    "sigma_max": ("sigma_max",),
    "rho": ("rho",),
}


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's content has the original's keys."""
    state = _state(content)
    return "instrument" not in content and any(_UNET_KEY.fullmatch(str(key)) for key in state)


def has_ema(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of the original holds averaged weights."""
    return any(prefix.startswith(_ROOTS["ema"]) for prefix in _groups(content))


def load_unet_state(
    path: str | Path,
    weights: Weights = "ema",
    unet: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Weights for `UNet1d.load_state_dict`, from one of the original's checkpoints: to start a training from them.

    `weights`, `unet` and `content` are those of `load_original`; copies in float32, nothing stays mapped.

    Raises:
        InputError: no such checkpoint, damaged, of another architecture, or without EMA where it is asked for.
    """
    content = read_checkpoint(path) if content is None else content
    return _unet_state(content, path, weights, _architecture(content, path, unet))


def load_original(
    path: str | Path,
    mean_path: str | Path | None = None,
    std_path: str | Path | None = None,
    weights: Weights = "ema",
    unet: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
    **spec: Any,
) -> InstrumentModel:
    """One of the original's checkpoints as an `InstrumentModel`, with the codec in it as the model's codec.

    Args:
        mean_path, std_path: files of one tensor each, [D] or [D, 1]: the latents' statistics per channel.
        weights: "ema" for the averaged weights, "raw" for the ones they follow.
        unet: arguments of `UNet1d`, some or all; what is not given comes from the checkpoint's hyper-parameters, then
            from its shapes. Shapes do not tell `attention_heads`: taken as published (8) for the published width, to be
            given for any other; nor `resnet_groups` (8 is taken), nor `use_skip_scale` (True).
        content: what `read_checkpoint` made of `path`; None: read it.
        spec: fields of `InstrumentSpec`, or arguments of `UNet1d` as in `unet`. Fields not given: what the
            hyper-parameters hold, then the defaults there (sigma_max is 100, right for the published flute and violin;
            5 for bassoon, cello, trumpet and pitch-shifted flute).

    Raises:
        InputError: something is missing, damaged, holds code, or does not fit; the message names it.
    """
    from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
    from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
    from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec

    content = read_checkpoint(path) if content is None else content
    names = UNet1d.__init__.__annotations__.keys()
    unet = dict(unet or {}) | {key: spec.pop(key) for key in list(spec) if key in names}
    unknown = spec.keys() - {field.name for field in dataclasses.fields(InstrumentSpec)}
    if unknown:
        raise InputError(
            f"neither arguments of UNet1d nor fields of InstrumentSpec: {', '.join(sorted(unknown))}"
        )
    unet = _architecture(content, path, unet)
    state = _unet_state(content, path, weights, unet)
    with torch.device("meta"):  # no time is spent on initial values
        net = UNet1d(**unet)
    mean, std = _statistics(mean_path, std_path, net.in_channels, path)
    try:
        fields = {"name": Path(path).stem, "codec": "encodec", **_hyper_spec(content), **spec}
        spec = InstrumentSpec(unet=net.config, **fields)
        denoiser = Denoiser(net, spec.sigma_data)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    net.load_state_dict(state, assign=True)
    codec = codec_state(content)
    try:
        codec = EncodecCodec(codec).freeze() if codec and spec.codec == "encodec" else None
    except InputError as error:
        raise InputError(f"{path}: the EnCodec in it cannot be used: {error}") from error
    return InstrumentModel(spec, mean, std, denoiser, codec)


def codec_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The codec's tensors in a checkpoint, under `transformers`' names; empty where there are none."""
    return {
        k[len(CODEC_PREFIX) :]: value
        for k, value in _state(content).items()
        if k.startswith(CODEC_PREFIX)
    }


def save_original(
    model: InstrumentModel, path: str | Path, codec: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model in the original's layout, float32; the raw and the averaged weights are both the model's.

    Args:
        codec: EnCodec's tensors under `transformers`' names, quantizer included. Without them their Lightning module
            takes the file with strict=False only; their AudioDiffusionModel needs none.

    Raises:
        InputError: the file cannot be written.
    """
    net = {
        key: value.detach().float().contiguous().cpu()
        for key, value in model.denoiser.net.state_dict().items()
    }
    roots = (root for roots in _ROOTS.values() for root in roots if root)
    state = {
        root + alias + key: value
        for root in roots
        for alias in _ALIASES
        for key, value in net.items()
    }
    state |= {"model_ema.initted": torch.tensor(True), "model_ema.step": torch.tensor(0)}
    state |= {
        CODEC_PREFIX + key: value.detach().contiguous().cpu()
        for key, value in (codec or {}).items()
    }
    content = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": state,
        "loops": {},
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)  # a storage with several names is written once


def infer_unet(shapes: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of `UNet1d` from the shapes of its parameters; `known` ones win.

    Raises:
        InputError: a parameter is missing; or the number of heads, or with nearest-neighbour upsampling the factors,
            are not known and cannot be told.
    """
    known = dict(known or {})
    try:
        levels = _count(shapes, r"downsamples\.(\d+)\.")
        down = [shapes[f"downsamples.{i}.downsample.weight"] for i in range(levels)]
        up = [shapes.get(f"upsamples.{levels - 1 - i}.upsample.weight") for i in range(levels)]
        nearest = any(f"upsamples.{i}.upsample.1.weight" in shapes for i in range(levels))
        if nearest and not {"factors", "kernel_multiplier_downsample"} & known.keys():
            raise InputError(
                "nearest-neighbour upsampling does not tell the factors: give unet={'factors': [...]}"
            )
        # kernels: 2 * factor of a transposed convolution, 3 of any other, multiplier * factor + 1 on the way down
        multiplier = known.get("kernel_multiplier_downsample", 2)
        factors = [
            (k[2] // 2 if k[2] % 2 == 0 else 1) if k else (d[2] - 1) // multiplier
            for d, k in zip(down, up, strict=True)
        ]
        channels = 2 * shapes["to_time.0.0.weights"][0]
        patched = shapes["to_in.module_list.0.block.block1.project.weight"]
        out_channels = shapes["to_out.module_list.0.block.block2.project.weight"][0]
        arguments = {
            "in_channels": patched[1],
            "channels": channels,
            "patch_factor": down[0][1] // patched[0],
            "multipliers": [w // channels for w in (down[0][1], *(d[0] for d in down))],
            "factors": factors,
            "num_blocks": [
                _count(shapes, rf"downsamples\.{i}\.blocks\.(\d+)\.") for i in range(levels)
            ],
            "attentions": [
                _count(shapes, rf"{level}\.transformer\.blocks\.(\d+)\.")
                for level in (*(rf"downsamples\.{i}" for i in range(levels)), "bottleneck")
            ],
            "kernel_multiplier_downsample": (down[0][2] - 1) // factors[0],
            "use_nearest_upsample": nearest,
            "out_channels": None if out_channels == patched[1] else out_channels,
        }
        queries = next(
            (shape for key, shape in shapes.items() if key.endswith("attention.to_q.weight")), None
        )
        if queries is not None:
            arguments |= _infer_heads(queries[0], channels, known)
            wide = next(
                shape for key, shape in shapes.items() if key.endswith("feed_forward.0.weight")
            )
            arguments["attention_multiplier"] = wide[0] // wide[1]
        return arguments | known
    except (KeyError, IndexError, StopIteration, ZeroDivisionError) as error:
        if {
            "in_channels",
            "channels",
            "multipliers",
            "factors",
            "num_blocks",
            "attentions",
        } <= known.keys():
            return known  # enough to compare every key with
        raise InputError(f"not the original's UNet, or incomplete: {error} is missing") from error
    except TypeError as error:
        raise InputError(f"arguments that no UNet takes: {known}: {error}") from error


def _infer_heads(total: int, channels: int, known: Mapping[str, Any]) -> dict[str, int]:
    heads, features = known.get("attention_heads"), known.get("attention_features")
    if heads is None and features is None and (total, channels) != _PUBLISHED:
        raise InputError(
            f"the checkpoint's shapes tell attention_heads * attention_features = {total}, not how many heads: say "
            "so with unet={'attention_heads': N} (scripts/convert_checkpoint.py: --unet attention_heads=N)"
        )
    heads = heads or total // (features or _HEAD_FEATURES)
    return {"attention_heads": heads, "attention_features": features or total // heads}


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """1 + the highest number that `pattern` finds at the names' start, 0 where it finds none."""
    return 1 + max(
        (int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1
    )


def _state(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    state = content.get("state_dict", content)
    state = state if isinstance(state, Mapping) else {}
    return {
        key: value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _groups(content: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Prefix -> the UNet's tensors under it."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in _state(content).items():
        if match := _UNET_KEY.fullmatch(key):
            groups.setdefault(match[1], {})[match[2]] = value
    return groups


def _architecture(
    content: Mapping[str, Any], path: str | Path, given: Mapping[str, Any] | None
) -> dict[str, Any]:
    groups = _groups(content)
    if not groups:
        raise InputError(
            f"{path} is no checkpoint of the original: no key starts with model.unet. or its like"
        )
    names = UNet1d.__init__.__annotations__.keys()
    hyper = (
        _find(
            content.get("hyper_parameters"), lambda part: {"multipliers", "factors"} <= part.keys()
        )
        or {}
    )
    known = {key: value for key, value in hyper.items() if key in names} | dict(given or {})
    shapes = {key: value.shape for key, value in max(groups.values(), key=len).items()}
    try:
        return infer_unet(shapes, known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _unet_state(
    content: Mapping[str, Any], path: str | Path, weights: Weights, unet: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The UNet's tensors of one kind, copied, after every group in the file has been compared with the architecture."""
    if weights not in _ROOTS:
        raise InputError(
            f'weights={weights!r}: "ema" for the averaged weights, "raw" for the ones they follow'
        )
    groups, state = _groups(content), _state(content)
    prefix = next(
        (root + alias for root in _ROOTS[weights] for alias in _ALIASES if root + alias in groups),
        None,
    )
    if prefix is None:
        other = "raw" if weights == "ema" else "ema"
        kind = "averaged (EMA)" if weights == "ema" else "raw"
        raise InputError(f'{path} has no {kind} weights: use weights="{other}"')
    try:
        with torch.device("meta"):
            net = UNet1d(**unet)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: no UNet can be built with {dict(unet)}: {error}") from error
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    expected = {group + key: shape for group in groups for key, shape in shapes.items()}
    found = {
        k: value
        for k, value in state.items()
        if k not in _EMA_COUNTERS and not k.startswith(CODEC_PREFIX)
    }
    check_keys(found, expected, str(path), finite=False)
    check_keys(groups[prefix], shapes, f"{path}, {prefix}*")
    return {key: value.to(torch.float32, copy=True) for key, value in groups[prefix].items()}


def _statistics(
    mean_path: str | Path | None, std_path: str | Path | None, channels: int, path: str | Path
) -> tuple[Tensor, Tensor]:
    if mean_path is None or std_path is None:
        raise InputError(
            f"{path} is one of the original's checkpoints, which hold no statistics: give mean_path and std_path to "
            "load_instrument, or convert it with scripts/convert_checkpoint.py --mean FILE --std FILE"
        )
    statistics = []
    for file in (mean_path, std_path):
        value = load_tensor(file).flatten()
        if len(value) != channels:
            raise InputError(
                f"{file} holds {len(value)} values, the model {path} has {channels} channels"
            )
        statistics.append(value)
    mean, std = statistics
    if not torch.isfinite(mean).all() or not torch.isfinite(std).all() or (std <= 0).any():
        raise InputError(
            f"{mean_path} and {std_path} must hold finite numbers, and positive ones in {std_path}"
        )
    return mean, std


def _hyper_spec(content: Mapping[str, Any]) -> dict[str, float]:
    """Fields of `InstrumentSpec` that the checkpoint's hyper-parameters tell."""
    found = {}
    for field, names in _SPEC_KEYS.items():
        for name in names:
            part = _find(
                content.get("hyper_parameters"),
                lambda part, name=name: isinstance(part.get(name), int | float),
            )
            if part is not None:
                found.setdefault(field, float(part[name]))
    return found


def _find(part: Any, wanted) -> Mapping[str, Any] | None:
    """The first mapping in nested ones that `wanted` accepts."""
    if not isinstance(part, Mapping):
        return None
    return (
        part
        if wanted(part)
        else next((hit for value in part.values() if (hit := _find(value, wanted))), None)
    )
