"""Checkpoints of the original system (Mancusi et al. 2025, arXiv 2409.06096).

Their Lightning layout stores one UNet under three names, `unet.*`, `diffusion.net.*` and
`diffusion.diffusion.net.*`, each under three prefixes: `model.` and `model_ema.online_model.` for
the raw weights, `model_ema.ema_model.` for the averaged ones. The codec is stored under
`encodec_model.`; latent statistics are in separate files.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.encodec_weights import CODEC_PREFIX
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.original_architecture import infer_unet
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.utils.checkpoint_io import check_keys, load_tensor, read_checkpoint
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from audio_diffusion_pytorch.codecs.base import Codec
    from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec

Weights = Literal["ema", "raw"]
_ALIASES = ("unet.", "diffusion.net.", "diffusion.diffusion.net.")
_ROOTS = {"ema": ("model_ema.ema_model.",), "raw": ("model.", "model_ema.online_model.", "")}
_EMA_COUNTERS = ("model_ema.initted", "model_ema.step")
_UNET_KEY = re.compile(
    r"((?:model_ema\.ema_model\.|model_ema\.online_model\.|model\.)?(?:unet|diffusion\.net|diffusion\.diffusion\.net)\.)(.+)"
)
_UNET_ARGUMENTS = frozenset(inspect.signature(UNet1d).parameters)
_SPEC_KEYS = {  # field of InstrumentSpec: names in the original's configuration
    "sigma_data": ("diffusion_sigma_data", "sigma_data"),
    "sigma_min": ("sigma_min",),
    "sigma_max": ("sigma_max",),
    "rho": ("rho",),
}


def is_original(content: Mapping[str, Any]) -> bool:
    """Whether the content of a checkpoint has the keys of the original."""
    state = _state(content)
    return "instrument" not in content and any(_UNET_KEY.fullmatch(str(key)) for key in state)


def has_ema(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of the original contains averaged weights."""
    return any(prefix.startswith(_ROOTS["ema"]) for prefix in _groups(content))


def load_unet_state(
    path: str | Path,
    weights: Weights = "ema",
    unet: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Read the weights of a checkpoint of the original for `UNet1d.load_state_dict`.

    Args:
        path: the checkpoint.
        weights: "ema" or "raw", see `load_original`.
        unet: arguments of `UNet1d`, see `load_original`.
        content: result of `read_checkpoint` for `path`; None: read it.

    Returns:
        Copies in float32 by name; none is mapped to the file.

    Raises:
        InputError: the checkpoint is missing, damaged, of another architecture, or lacks the
            requested weights.
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
    """Load a checkpoint of the original as an `InstrumentModel`, with its codec if it contains one.

    Args:
        path: the checkpoint.
        mean_path: file with one tensor [D] or [D, 1]: the mean of each latent channel.
        std_path: file with one tensor [D] or [D, 1]: the standard deviation of each latent channel.
        weights: "ema" for the averaged weights, "raw" for the weights before averaging.
        unet: arguments of `UNet1d`, some or all. Missing ones are read from the checkpoint's
            hyper-parameters, then inferred from its shapes. Shapes do not encode `attention_heads`
            (required, except for the published width: 8), `resnet_groups` (default 8) and
            `use_skip_scale` (default True).
        content: result of `read_checkpoint` for `path`; None: read it.
        spec: fields of `InstrumentSpec`, or arguments of `UNet1d` as in `unet`. Missing fields are
            read from the hyper-parameters, then have their defaults (sigma_max is 100, as for the
            published flute and violin; 5 for bassoon, cello, trumpet and pitch-shifted flute).

    Raises:
        InputError: an input is missing, damaged, contains code or does not fit; the message names
            it.
    """
    from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
    from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec

    content = read_checkpoint(path) if content is None else content
    given = {key: value for key, value in spec.items() if key in _UNET_ARGUMENTS}
    fields = {key: value for key, value in spec.items() if key not in _UNET_ARGUMENTS}
    unknown = fields.keys() - {field.name for field in dataclasses.fields(InstrumentSpec)}
    if unknown:
        raise InputError(
            "neither arguments of UNet1d nor fields of InstrumentSpec: "
            f"{', '.join(sorted(unknown))}"
        )
    arguments = _architecture(content, path, {**(unet or {}), **given})
    state = _unet_state(content, path, weights, arguments)
    with torch.device("meta"):  # skip the initialisation
        net = UNet1d(**arguments)
    mean, std = _statistics(mean_path, std_path, net.in_channels, path)
    fields = {"name": Path(path).stem, "codec": "encodec", **_hyper_spec(content), **fields}
    try:
        model_spec = InstrumentSpec(unet=net.config, **fields)
        denoiser = Denoiser(net, model_spec.sigma_data)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    net.load_state_dict(state, assign=True)
    return InstrumentModel(model_spec, mean, std, denoiser, _codec(content, model_spec, path))


def _codec(content: Mapping[str, Any], spec: InstrumentSpec, path: str | Path) -> Codec | None:
    from audio_diffusion_pytorch.codecs.encodec import EncodecCodec

    state = codec_state(content)
    if not state or spec.codec != "encodec":
        return None
    try:
        return EncodecCodec(state).freeze()
    except InputError as error:
        raise InputError(f"{path}: the EnCodec in it cannot be used: {error}") from error


def codec_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the codec's tensors in a checkpoint, named as in `transformers`; may be empty."""
    return {
        key[len(CODEC_PREFIX) :]: value
        for key, value in _state(content).items()
        if key.startswith(CODEC_PREFIX)
    }


def save_original(
    model: InstrumentModel, path: str | Path, codec: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model in the layout of the original, in float32, as both raw and averaged weights.

    Args:
        model: the model.
        path: file to write.
        codec: EnCodec's tensors under the names of `transformers`, including the quantizer. Without
            them the original's Lightning module loads the file with strict=False only; the
            original's AudioDiffusionModel loads it anyway.

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
        torch.save(content, temporary)  # torch writes a storage once, even under several names


def _state(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    state = content.get("state_dict", content)
    state = state if isinstance(state, Mapping) else {}
    return {
        key: value
        for key, value in state.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _groups(content: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Map each prefix to the UNet's tensors under it."""
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
            f"{path} is not a checkpoint of the original: no key starts with model.unet. or an "
            "equivalent prefix"
        )
    hyper = _find(
        content.get("hyper_parameters"), lambda part: {"multipliers", "factors"} <= part.keys()
    )
    known = {key: value for key, value in (hyper or {}).items() if key in _UNET_ARGUMENTS}
    known |= given or {}
    shapes = {key: value.shape for key, value in max(groups.values(), key=len).items()}
    try:
        return infer_unet(shapes, known)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _unet_state(
    content: Mapping[str, Any], path: str | Path, weights: Weights, unet: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Copy the UNet's tensors of one kind; check every group in the file for the architecture."""
    if weights not in _ROOTS:
        raise InputError(
            f'weights={weights!r}: use "ema" for the averaged weights, "raw" for the weights '
            "before averaging"
        )
    groups = _groups(content)
    prefixes = [root + alias for root in _ROOTS[weights] for alias in _ALIASES]
    prefix = next((prefix for prefix in prefixes if prefix in groups), None)
    if prefix is None:
        other = "raw" if weights == "ema" else "ema"
        kind = "averaged (EMA)" if weights == "ema" else "raw"
        raise InputError(f'{path} lacks {kind} weights: use weights="{other}"')
    try:
        with torch.device("meta"):
            net = UNet1d(**unet)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot build a UNet with {dict(unet)}: {error}") from error
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    expected = {group + key: shape for group in groups for key, shape in shapes.items()}
    found = {
        key: value
        for key, value in _state(content).items()
        if key not in _EMA_COUNTERS and not key.startswith(CODEC_PREFIX)
    }
    check_keys(found, expected, str(path), finite=False)
    check_keys(groups[prefix], shapes, f"{path}, {prefix}*")
    return {key: value.to(torch.float32, copy=True) for key, value in groups[prefix].items()}


def _statistics(
    mean_path: str | Path | None, std_path: str | Path | None, channels: int, path: str | Path
) -> tuple[Tensor, Tensor]:
    if mean_path is None or std_path is None:
        raise InputError(
            f"{path} is a checkpoint of the original, which stores latent statistics in separate "
            "files: pass mean_path and std_path to load_instrument, or convert it with "
            "scripts/convert_checkpoint.py --mean FILE --std FILE"
        )
    statistics = []
    for file in (mean_path, std_path):
        value = load_tensor(file).flatten()
        if len(value) != channels:
            raise InputError(
                f"{file} has {len(value)} values, the model {path} has {channels} channels"
            )
        statistics.append(value)
    mean, std = statistics
    if not torch.isfinite(mean).all() or not torch.isfinite(std).all() or (std <= 0).any():
        raise InputError(
            f"{mean_path} and {std_path} must contain finite numbers, and {std_path} positive ones"
        )
    return mean, std


def _hyper_spec(content: Mapping[str, Any]) -> dict[str, float]:
    """Fields of `InstrumentSpec` in the checkpoint's hyper-parameters."""
    found: dict[str, float] = {}
    for field, names in _SPEC_KEYS.items():
        for name in names:
            part = _find(
                content.get("hyper_parameters"),
                lambda part, name=name: isinstance(part.get(name), int | float),  # type: ignore[misc]
            )
            if part is not None:
                found.setdefault(field, float(part[name]))
    return found


def _find(part: Any, matches: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any] | None:
    """Return the first of nested mappings that `matches`; None: no match."""
    if not isinstance(part, Mapping):
        return None
    if matches(part):
        return part
    for value in part.values():
        hit = _find(value, matches)
        if hit is not None:
            return hit
    return None
