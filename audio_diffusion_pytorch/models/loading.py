"""Load models of instruments by name, file or run folder."""

import json
import multiprocessing
import re
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.fitted_schedules import schedules_of
from audio_diffusion_pytorch.models.instrument import (
    FORMAT,
    InstrumentModel,
    InstrumentSpec,
    build_model,
    select_condition,
    select_instrument,
)
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS, Labels
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors

ALL = "all"  # the shipped model of all instruments
# The EMA of the weights averages about 1000 steps (`ema_beta` 0.999 of the small models): with
# fewer, it still contains the initial weights. The shipped models were trained for 4000 steps and
# more.
FEW_STEPS = 1000


def require_one_codec(source: InstrumentModel, target: InstrumentModel) -> None:
    """Check that two models were trained on the same codec.

    Raises:
        InputError: the codecs differ.
    """
    if source.spec.codec != target.spec.codec:
        raise InputError(
            f"{source.spec.name} was trained on codec {source.spec.codec!r}, {target.spec.name} on "
            f"{target.spec.codec!r}: choose two models of the same codec"
        )


def require_one_instrument(model: InstrumentModel) -> None:
    """Check that a model is a model of one instrument, or one of its instruments.

    Raises:
        InputError: the model holds several instruments.
    """
    instruments = Labels(model.spec.labels).instruments
    if instruments:
        raise InputError(
            f"the model holds {', '.join(instruments)}: name one, for example all:{instruments[0]}"
        )


def shared_codec(source: InstrumentModel, target: InstrumentModel, **options: Any) -> Codec:
    """Return the codec of two models: one stored with either model, otherwise the named codec.

    Args:
        source: one model.
        target: the other model.
        options: arguments of `load_codec`; with any, the codec is loaded by name.

    Raises:
        InputError: the models name different codecs, or store different weights, or loading fails.
    """
    require_one_codec(source, target)
    own = [model.codec for model in (source, target) if model.codec is not None]
    if options or not own:
        return load_codec(source.spec.codec, **options)
    first, last = own[0].state_dict(), own[-1].state_dict()
    if first.keys() != last.keys() or not all(
        torch.equal(value.cpu(), last[key].cpu()) for key, value in first.items()
    ):
        raise InputError(
            f"{source.spec.name} and {target.spec.name} contain different codecs: choose two "
            "models of the same codec"
        )
    return own[0]


def shipped_instruments() -> list[str]:
    """List the names of the shipped single-instrument models."""
    return sorted(
        path.stem for path in (ASSETS / "instruments").glob("*.safetensors") if path.stem != ALL
    )


def load_instrument(
    source: InstrumentModel | str | Path,
    device: str | torch.device = "cpu",
    *,
    mean_path: str | Path | None = None,
    std_path: str | Path | None = None,
    weights: Literal["ema", "raw"] = "ema",
    whole: bool = False,
    **original: Any,
) -> InstrumentModel:
    """Load a model by a shipped name, or from a .safetensors file, a checkpoint or a run folder.

    A run folder yields its export, or its last checkpoint if training has not ended. A checkpoint
    yields its EMA weights. Checkpoints of the original system (Mancusi et al. 2025) are detected by
    their keys.

    Args:
        source: name, path, or `MODEL:NAME` to select one instrument of a model of several
            (`all:flute`); a loaded model is returned unchanged.
        device: device of the result.
        mean_path: file with the mean of the latents; for checkpoints of the original only.
        std_path: file with the standard deviation of the latents; for checkpoints of the original
            only.
        weights: "ema", or "raw" for the weights before averaging; for checkpoints of the original
            only.
        whole: return a model of several instruments with all of them.
        original: `unet` and fields of the spec, for checkpoints of the original only; see
            `original_checkpoint.load_original`.

    Raises:
        InputError: the source is missing, damaged or not a model; the message names the cause.
    """
    if isinstance(source, InstrumentModel):
        return source.to(device)
    name, label = _split_label(source)
    path = Path(name)
    if name.lower() in (*shipped_instruments(), ALL) and not path.exists():
        name = name.lower()
    shipped = ASSETS / "instruments" / f"{name}.safetensors"
    original |= {
        "mean_path": mean_path,
        "std_path": std_path,
        "weights": None if weights == "ema" else weights,
    }
    original = {key: value for key, value in original.items() if value is not None}
    if path.suffix == ".ckpt" and not path.is_dir():
        model = _load_checkpoint(path, original)
    elif original:
        raise InputError(
            f"{', '.join(original)} can be used with a checkpoint of the original system (.ckpt) "
            f"only, not with {source}"
        )
    elif name in (*shipped_instruments(), ALL) and shipped.is_file() and not path.is_file():
        model = _load_safetensors(shipped)
    elif path.is_dir():
        model = _load_run_folder(path)
    elif path.suffix == ".safetensors":
        model = _load_safetensors(path)
    else:
        raise InputError(_unknown(str(source)))
    if not whole:
        _warn_of_few_steps(model, source)
    if not whole or label is not None:
        model = _choose(model, label, source)
    return model.eval().requires_grad_(False).to(device)


def _unknown(source: str) -> str:
    """Error message for an unknown name: the nearest name, and all shipped names."""
    shipped = shipped_instruments()
    name = _plain(source)
    near = get_close_matches(
        name, [*shipped, *(known for known in PITCH_RANGES if known not in shipped)], 1
    )
    meant = near[0] if near and near[0] in shipped else f"{ALL}:{near[0]}" if near else ""
    return (
        f"unknown instrument {source!r}: {f'did you mean {meant}? ' if meant else ''}Shipped "
        f"models: {', '.join(shipped) or 'none'}, and {ALL}:NAME with NAME one of "
        f"{', '.join(PITCH_RANGES)}; or give the path of a .safetensors file, a .ckpt file or a "
        "run folder"
    )


def _plain(name: str) -> str:
    """`Double_Bass` -> `double bass`."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _warn_of_few_steps(model: InstrumentModel, source: str | Path) -> None:
    steps = model.spec.steps
    in_worker = multiprocessing.parent_process() is not None  # warn once, not in each worker
    if steps is None or steps >= FEW_STEPS or in_worker:
        return
    warnings.warn(
        f"{source} was trained for only {steps} {'step' if steps == 1 else 'steps'}: outputs "
        f"resemble the instrument after {FEW_STEPS} steps at the earliest, better after several "
        "thousand",
        stacklevel=3,
    )


def _split_label(source: str | Path) -> tuple[str, str | None]:
    """Split `MODEL:NAME` into (MODEL, NAME); an existing path is not split."""
    name, colon, label = str(source).rpartition(":")
    if not colon or Path(source).exists() or "/" in label or "\\" in label:
        return str(source), None
    return name, label


def _choose(model: InstrumentModel, label: str | None, source: str | Path) -> InstrumentModel:
    """Select one instrument of a model of several, or one recording condition."""
    names = model.spec.labels
    several = Labels(names).instruments
    if label is None and not several:
        return model
    if not names:
        raise InputError(
            f"{source}: the model has only one instrument, {model.spec.name}: remove :{label}"
        )
    known = several or RECORDING_CONDITIONS
    if label is not None and label not in known:
        label = _plain(label)
    if label not in known:
        example = f"{source if label is None else _split_label(source)[0]}:{known[0]}"
        raise InputError(
            f"{source}: the model contains {', '.join(known)}: choose one, for example {example}"
        )
    return select_instrument(model, label) if several else select_condition(model, label)


def _load_run_folder(folder: Path) -> InstrumentModel:
    # A model of several instruments may lie beside the export, see `unlabelled`.
    for export in sorted(folder.glob("*.safetensors"), key=lambda path: (path.stem == ALL, path)):
        if export.is_file():
            return _load_safetensors(export)
    for name in ("last", "best"):
        checkpoint = folder / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_file():
            return _load_checkpoint(checkpoint)
    raise InputError(
        f"folder {folder} does not contain a model: expected a .safetensors file or "
        "checkpoints/last.ckpt"
    )


def _load_safetensors(path: Path) -> InstrumentModel:
    if not path.is_file():
        raise InputError(f"model file not found: {path}")
    with open_safetensors(path, "an instrument model", FORMAT) as (header, tensors):
        model = build_model(InstrumentSpec(**json.loads(header["spec"])), tensors)
    model.file, model.fitted = path, schedules_of(path)
    return model


def _load_checkpoint(path: Path, original: Mapping[str, Any] | None = None) -> InstrumentModel:
    from audio_diffusion_pytorch.models.original_checkpoint import is_original, load_original
    from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

    content = read_checkpoint(path)
    if is_original(content):
        return load_original(path, content=content, **(original or {}))
    if original:
        raise InputError(
            f"{', '.join(original)} can be used with a checkpoint of the original system only: "
            f"{path} is not one"
        )
    try:
        spec = InstrumentSpec(**content["instrument"])
        state = content["state_dict"]
        prefix = "ema.model.net."
        # Copy: the tensors read are mapped to the file.
        tensors = {
            "net." + key[len(prefix) :]: v.clone()
            for key, v in state.items()
            if key.startswith(prefix)
        }
        return build_model(
            spec, tensors | {"mean": state["mean"].clone(), "std": state["std"].clone()}
        )
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is not a checkpoint of an instrument's training: {error!r}"
        ) from error


def other_shipped(name: str, codec: str) -> InstrumentModel | None:
    """Load a shipped model of another instrument on the same codec, preferably the violin.

    Returns:
        The model; None: no shipped model matches.
    """
    violin_first = sorted(shipped_instruments(), key=lambda other: other != "violin")
    for other in violin_first:
        if other != name:
            model = load_instrument(other)
            if model.spec.codec == codec:
                return model
    return None


def load_others(model: InstrumentModel, names: Sequence[str] | None) -> list[InstrumentModel]:
    """Load the models at the other ends of a model's bridges, onto its device.

    Args:
        model: model at one end.
        names: names or paths; None: the other shipped models on the same codec.

    Raises:
        InputError: a model cannot be loaded.
    """
    device = model.mean.device
    if names is not None:
        return [load_instrument(name, device) for name in names]
    shipped = [load_instrument(name) for name in shipped_instruments()]
    return [
        other.to(device)
        for other in shipped
        if other.spec.name != model.spec.name and other.spec.codec == model.spec.codec
    ]
