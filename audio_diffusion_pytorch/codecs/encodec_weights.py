"""EnCodec's 24 kHz weights from wherever they lie, under the `encodec` package's names or under `transformers`'."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.checkpoint_io import (
    check_keys,
    read_checkpoint,
)

if TYPE_CHECKING:
    pass


PACKAGE_FILE = "encodec_24khz-d7cc33bc.th"  # the digits begin its SHA-256
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SAMPLE_RATE = 24000

# `transformers`' config.json: what must be so, and what must agree with the weights' shapes
_HUB_FIXED = {
    "sampling_rate": SAMPLE_RATE,
    "audio_channels": 1,
    "norm_type": "weight_norm",
    "normalize": False,
}
_HUB_SIZES = {
    "num_filters": "n_filters",
    "hidden_size": "dimension",
    "num_lstm_layers": "lstm",
    "num_residual_layers": "n_residual_layers",
    "upsampling_ratios": "ratios",
    "kernel_size": "kernel_size",
    "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size",
    "compress": "compress",
}
_HUB_SETTINGS = {
    "use_causal_conv": "causal",
    "pad_mode": "pad_mode",
    "dilation_growth_rate": "dilation_base",
}


def load_weights(
    weights: str | Path | Mapping[str, Tensor] | None, repository: str | Path | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Find, check and read EnCodec's weights without running any code in them.

    Args:
        weights: a folder or file, or tensors by name; None: `repository`, or where that is None too the `encodec`
            package's own download (its URL, its place in torch.hub's folder).
        repository: a folder. It holds the package's file, or `config.json` with one of `HUB_FILES`.

    A file is the package's, one of the hub's, or a checkpoint of the original that holds its codec.

    Returns:
        Tensors under the package's names (encoder.*, decoder.* and, where the source has them, quantizer.*), and the
        arguments of SEANetEncoder and SEANetDecoder.

    Raises:
        InputError: nothing there, damaged, holds code, another model; the message says which and what to do.
    """
    settings: dict[str, Any] = {}
    if isinstance(weights, Mapping):
        where, state = "the given tensors", dict(weights)
    else:
        if weights is not None and repository is not None:
            raise InputError("give codec.weights or codec.repository, not both")
        source = Path(weights or repository) if weights or repository else _downloaded()
        where = str(source)
        state, settings = _read(source)
    state = to_package(state, where)
    sizes = infer_sizes(state, where)
    for key, (name, said) in settings.pop("sizes", {}).items():
        if said != sizes[name]:
            raise InputError(
                f"{where}: config.json says {key}={said}, the weights' shapes say {sizes[name]}"
            )
    return state, sizes | settings


def load_into(
    modules: Mapping[str, nn.Module], state: Mapping[str, Tensor], where: str = "the weights"
) -> None:
    """Load tensors under the package's names into {"encoder": ..., "decoder": ...}; quantizer.* is not needed.

    Raises:
        InputError: names every key that is missing, unexpected or of another shape; nothing has been loaded then.
    """
    for part, module in modules.items():
        # the package's own weight norm may change its spelling one day
        own = {_plain_norm(key): key for key in module.state_dict()}
        shapes = {key: module.state_dict()[name].shape for key, name in own.items()}
        found = {
            key[len(part) + 1 :]: value
            for key, value in state.items()
            if key.startswith(part + ".")
        }
        check_keys(found, shapes, f"{where}, EnCodec's {part}")
        module.load_state_dict({own[key]: value.float() for key, value in found.items()})


def to_package(state: Mapping[str, Tensor], where: str = "the weights") -> dict[str, Tensor]:
    """Rename tensors of either flavour to the `encodec` package's names, weight norm as weight_g and weight_v.

    Raises:
        InputError: they are of neither flavour.
    """
    if any(key.startswith("encoder.model.") for key in state):
        return {_plain_norm(key): value for key, value in state.items()}
    if not any(key.startswith("encoder.layers.") for key in state):
        raise InputError(
            f"{where}: no EnCodec weights (neither encoder.model.* nor encoder.layers.* among the names)"
        )
    outer = sorted(
        {int(m[1]) for key in state if (m := re.match(r"decoder\.layers\.(\d+)\.conv\.", key))}
    )
    renamed = {}
    for key, value in state.items():
        name = _plain_norm(key)
        if name.startswith("quantizer."):
            name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(
                ".codebook.", "._codebook."
            )
        else:
            match = re.match(r"decoder\.layers\.(\d+)\.conv\.", name)
            transposed = match is not None and int(match[1]) in outer[1:-1]
            name = name.replace(".conv.", ".convtr.convtr." if transposed else ".conv.conv.")
            name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        renamed[name] = value
    return renamed


def to_transformers(state: Mapping[str, Tensor], parametrized: bool = False) -> dict[str, Tensor]:
    """Rename tensors from the `encodec` package's names to `transformers`'.

    `parametrized` spells weight norm as newer versions do: parametrizations.weight.original0 and 1.
    """
    renamed = {}
    for key, value in state.items():
        name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", _plain_norm(key))
        name = name.replace(".convtr.convtr.", ".conv.").replace(".conv.conv.", ".conv.")
        name = name.replace("quantizer.vq.layers.", "quantizer.layers.").replace(
            "._codebook.", ".codebook."
        )
        if parametrized:
            name = re.sub(
                r"weight_([gv])$",
                lambda m: f"parametrizations.weight.original{'gv'.index(m[1])}",
                name,
            )
        renamed[name] = value
    return renamed


def infer_sizes(state: Mapping[str, Tensor], where: str = "the weights") -> dict[str, Any]:
    """Arguments of SEANetEncoder and SEANetDecoder from the shapes of tensors under the package's names.

    Raises:
        InputError: a tensor is missing, or the layers do not follow each other as in EnCodec.
    """
    layers: dict[int, set[str]] = {}
    for key in state:
        if match := re.match(r"encoder\.model\.(\d+)\.(conv|block|shortcut|lstm)\b", key):
            layers.setdefault(int(match[1]), set()).add(match[2])
    convs = [f"encoder.model.{i}.conv.conv" for i in sorted(layers) if "conv" in layers[i]]
    blocks = [f"encoder.model.{i}" for i in sorted(layers) if "block" in layers[i]]
    try:
        if len(convs) < 3 or not blocks or len(blocks) % (len(convs) - 2):
            raise InputError(
                f"{where}: {len(convs)} convolutions and {len(blocks)} residual blocks are no EnCodec encoder"
            )
        first, *strided, last = [state[f"{name}.weight_v"].shape for name in convs]
        inner = state[f"{blocks[0]}.block.1.conv.conv.weight_v"].shape
        return {
            "channels": first[1],
            "n_filters": first[0],
            "dimension": last[0],
            "kernel_size": first[2],
            "last_kernel_size": last[2],
            "ratios": [shape[2] // 2 for shape in reversed(strided)],
            "n_residual_layers": len(blocks) // len(strided),
            "residual_kernel_size": inner[2],
            "compress": inner[1] // inner[0],
            "true_skip": not any("shortcut" in names for names in layers.values()),
            "lstm": sum(
                1 for key in state if re.match(r"encoder\.model\.\d+\.lstm\.weight_ih_l\d+$", key)
            ),
        }
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{where}: not EnCodec's weights with weight norm, or incomplete: {error} is missing"
        ) from error


def _plain_norm(name: str) -> str:
    return re.sub(
        r"parametrizations\.weight\.original([01])$", lambda m: f"weight_{'gv'[int(m[1])]}", name
    )


def _read(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A folder or file -> tensors under their own names, and settings from a config.json beside them."""
    if source.is_dir():
        names = (PACKAGE_FILE, *HUB_FILES)
        file = next((source / name for name in names if (source / name).is_file()), None)
        if file is None:
            raise InputError(
                f"no EnCodec weights in {source}: {PACKAGE_FILE} belongs there, or config.json with "
                f"{' or '.join(HUB_FILES)}"
            )
        if file.name in HUB_FILES and not (source / "config.json").is_file():
            raise InputError(
                f"{source} has {file.name} but no config.json: copy the hub's whole folder"
            )
    elif source.is_file():
        file = source
    else:
        raise InputError(f"no EnCodec weights at {source}: neither a folder nor a file")
    config = file.parent / "config.json"
    settings = _read_config(config) if file.name in HUB_FILES and config.is_file() else {}
    if match := re.fullmatch(r"encodec_24khz-([0-9a-f]{8,})\.th", file.name):
        _check_hash(file, match[1])
    return _read_tensors(file), settings


def _read_tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} is damaged or no .safetensors file: {error}") from error
    if zipfile.is_zipfile(file):
        content = read_checkpoint(file)
    else:  # PyTorch's format before 1.6
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            kind = (
                "holds Python objects, or is damaged"
                if isinstance(error, pickle.UnpicklingError)
                else "is damaged"
            )
            raise InputError(f"{file} {kind}: it is not loaded") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise InputError(f"{file} holds no tensors by name")
    codec = {
        key[len(CODEC_PREFIX) :]: value
        for key, value in state.items()
        if key.startswith(CODEC_PREFIX)
    }
    if "state_dict" in content and not codec:
        raise InputError(f"{file} holds no codec: none of its keys starts with {CODEC_PREFIX}")
    return codec or state


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        wrong = {
            key: config[key] for key, value in _HUB_FIXED.items() if config.get(key, value) != value
        }
        sizes = {key: (name, config[key]) for key, name in _HUB_SIZES.items() if key in config}
        settings = {name: config[key] for key, name in _HUB_SETTINGS.items() if key in config}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read {file} as a model's config.json: {error}") from error
    if wrong:
        expected = ", ".join(f"{key}={_HUB_FIXED[key]}" for key in wrong)
        raise InputError(f"{file} is of another model: {wrong}, the 24 kHz EnCodec has {expected}")
    return settings | {"sizes": sizes}


def _check_hash(file: Path, prefix: str) -> None:
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(prefix):
        raise InputError(
            f"{file} is damaged: its SHA-256 does not begin with {prefix}; get it again"
        )


def _downloaded() -> Path:
    """The package's file in torch.hub's folder, fetched where it is not there."""
    from encodec.model import ROOT_URL

    file = Path(torch.hub.get_dir()) / "checkpoints" / PACKAGE_FILE
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(ROOT_URL + PACKAGE_FILE, str(file), PACKAGE_FILE[14:22])
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no EnCodec weights ({error}). Put {PACKAGE_FILE} into {file.parent}, or name its folder with "
                "codec.repository=FOLDER, or a folder from the hub or one of the original's checkpoints with "
                "codec.weights=PATH; to go on without it use the small codec (an experiment ending in _small)"
            ) from error
    return file


CODEC_PREFIX = "encodec_model."
