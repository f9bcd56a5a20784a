"""Weights of EnCodec 24 kHz, under the names of the `encodec` package or of `transformers`."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.checkpoint_io import check_keys, read_checkpoint

CODEC_PREFIX = "encodec_model."  # of the codec in checkpoints of the original
PACKAGE_FILE = "encodec_24khz-d7cc33bc.th"  # the digits are the start of its SHA-256
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SAMPLE_RATE = 24000

# Entries of config.json of `transformers`: fixed values, sizes that must match the weights, and
# settings.
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
    """Find, check and read the weights of EnCodec without execution of code in them.

    Args:
        weights: folder or file, or tensors by name; None: `repository`. A file is the `encodec`
            package's, one of the hub's, or a checkpoint of the original with its codec.
        repository: folder with the package's file, or with `config.json` and one of `HUB_FILES`;
            None: the package's own download (same URL, same location in the folder of torch.hub).

    Returns:
        Tensors under the package's names (encoder.*, decoder.* and, if the source has them,
        quantizer.*), and the arguments of SEANetEncoder and SEANetDecoder.

    Raises:
        InputError: the weights are missing, damaged, contain code or belong to another model; the
            message names the cause and the remedy.
    """
    settings: dict[str, Any] = {}
    if isinstance(weights, Mapping):
        where = "the given tensors"
        state = dict(weights)
    else:
        if weights is not None and repository is not None:
            raise InputError("codec.weights and codec.repository exclude each other: set only one")
        given = weights or repository
        source = Path(given) if given else _downloaded()
        where = str(source)
        state, settings = _read(source)
    state = to_package(state, where)
    sizes = infer_sizes(state, where)
    for key, (name, said) in settings.pop("sizes", {}).items():
        if said != sizes[name]:
            raise InputError(
                f"{where}: config.json has {key}={said}, but the shapes of the weights imply "
                f"{sizes[name]}"
            )
    return state, sizes | settings


def load_into(
    modules: Mapping[str, nn.Module], state: Mapping[str, Tensor], where: str = "the weights"
) -> None:
    """Load tensors into the encoder and the decoder; all tensors are checked before any is loaded.

    Args:
        modules: {"encoder": ..., "decoder": ...}.
        state: tensors under the package's names; quantizer.* is optional.
        where: name of the source in messages.

    Raises:
        InputError: a key is missing, unexpected or of another shape; the message names every such
            key.
    """
    for part, module in modules.items():
        # A later version of the package may use the new weight norm of torch.
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
    """Rename tensors of either library to the names of the `encodec` package.

    Weight norm has the names weight_g and weight_v.

    Args:
        state: tensors under the names of the package or of `transformers`.
        where: name of the source in messages.

    Raises:
        InputError: the names are of neither library.
    """
    if any(key.startswith("encoder.model.") for key in state):
        return {_plain_norm(key): value for key, value in state.items()}
    if not any(key.startswith("encoder.layers.") for key in state):
        raise InputError(
            f"{where}: not EnCodec's weights: neither encoder.model.* nor encoder.layers.* among "
            "the names"
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
    """Rename tensors from the names of the `encodec` package to those of `transformers`.

    Args:
        state: tensors under the package's names.
        parametrized: name weight norm as newer versions do: parametrizations.weight.original0 and
            1.
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
    """Infer the arguments of SEANetEncoder and SEANetDecoder from the shapes of the weights.

    Args:
        state: tensors under the package's names.
        where: name of the source in messages.

    Raises:
        InputError: a tensor is missing, or the order of the layers differs from EnCodec's.
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
                f"{where}: {len(convs)} convolutions and {len(blocks)} residual blocks do not form "
                "an EnCodec encoder"
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
    """Read the tensors of a folder or file, and settings from config.json in the same folder."""
    if source.is_dir():
        names = (PACKAGE_FILE, *HUB_FILES)
        file = next((source / name for name in names if (source / name).is_file()), None)
        if file is None:
            raise InputError(
                f"EnCodec's weights not found in {source}: expected {PACKAGE_FILE}, or config.json "
                f"with {' or '.join(HUB_FILES)}"
            )
        if file.name in HUB_FILES and not (source / "config.json").is_file():
            raise InputError(
                f"{source} has {file.name} but no config.json: copy the hub's whole folder"
            )
    elif source.is_file():
        file = source
    else:
        raise InputError(f"EnCodec's weights not found: {source} is neither a folder nor a file")
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
            raise InputError(f"{file} is damaged or not a .safetensors file: {error}") from error
    if zipfile.is_zipfile(file):
        content = read_checkpoint(file)
    else:  # PyTorch's format before 1.6
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            kind = (
                "contains Python objects or is damaged"
                if isinstance(error, pickle.UnpicklingError)
                else "is damaged"
            )
            raise InputError(f"{file} {kind}, and was not loaded") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise InputError(f"{file} does not contain tensors by name")
    codec = {
        key[len(CODEC_PREFIX) :]: value
        for key, value in state.items()
        if key.startswith(CODEC_PREFIX)
    }
    if "state_dict" in content and not codec:
        raise InputError(
            f"{file} does not contain a codec: none of its keys starts with {CODEC_PREFIX}"
        )
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
        raise InputError(f"{file} describes another model: {wrong}, EnCodec 24 kHz has {expected}")
    return settings | {"sizes": sizes}


def _check_hash(file: Path, prefix: str) -> None:
    if not hashlib.sha256(file.read_bytes()).hexdigest().startswith(prefix):
        raise InputError(
            f"{file} is damaged: its SHA-256 does not start with {prefix}; download it again"
        )


def _downloaded() -> Path:
    """Return the package's file in the folder of torch.hub; download it first if it is missing."""
    from encodec.model import ROOT_URL

    file = Path(torch.hub.get_dir()) / "checkpoints" / PACKAGE_FILE
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(ROOT_URL + PACKAGE_FILE, str(file), PACKAGE_FILE[14:22])
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"EnCodec's weights not found ({error}). Copy {PACKAGE_FILE} to {file.parent}, or "
                "pass its folder as codec.repository=FOLDER, or a folder from the hub or a "
                "checkpoint of the original as codec.weights=PATH; otherwise use the small codec "
                "(an experiment ending in _small)"
            ) from error
    return file
