"""Load instrument models by name, file or run folder."""

import json
import multiprocessing
import re
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.instrument import (
    FORMAT,
    InstrumentModel,
    InstrumentSpec,
    _build,
    select_condition,
    select_instrument,
)
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS, Labels
from audio_diffusion_pytorch.paths import ASSETS

ALL = "all"  # the shipped model of all instruments
# The averaged weights look back over about 1000 steps (`ema_beta` 0.999 of the small models): before, they are partly
# the initial ones. The models that ship took 4000 and more.
FEW_STEPS = 1000


def require_one_codec(source: InstrumentModel, target: InstrumentModel) -> None:
    """
    Raises:
        InputError: the models were trained on different codecs.
    """
    if source.spec.codec != target.spec.codec:
        raise InputError(
            f"{source.spec.name} was trained on codec {source.spec.codec!r}, {target.spec.name} on "
            f"{target.spec.codec!r}: a bridge needs two models of one codec"
        )


def shared_codec(source: InstrumentModel, target: InstrumentModel, **options: Any) -> Codec:
    """The codec of two models: the one that came with either, else, or with `options` for it, the one that they name.

    Raises:
        InputError: they name different codecs, or each brought one and the weights differ, or it cannot be loaded.
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
            f"{source.spec.name} and {target.spec.name} came with different codecs: a bridge needs one"
        )
    return own[0]


def shipped_instruments() -> list[str]:
    """Names of the instruments whose models ship with the package."""
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
    """Load a model by a shipped name, or from an exported .safetensors, a training checkpoint, or a run folder.

    A model that is loaded already comes back as it is. Of a model of several instruments, `MODEL:NAME` gives the one
    named: `all:flute`.

    A run folder gives its export, or where training has not ended its last checkpoint; checkpoints give the averaged
    (EMA) weights. Checkpoints of the original system are known by their keys.

    Args:
        mean_path, std_path: files with the latents' statistics, for a checkpoint of the original system.
        weights: "raw" for the weights that the averaged ones follow, likewise.
        whole: a model of several instruments as it is, all of them.
        original: `unet` and fields of the spec, likewise; see `original.load_original`.

    Raises:
        InputError: nothing there, damaged, or another kind of file; the message says which.
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
            f"{', '.join(original)} go with a checkpoint of the original system (.ckpt), not with {source}"
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
    """What to say of a name that is no model: the nearest one, and all that ship."""
    shipped, name = shipped_instruments(), _plain(source)
    near = get_close_matches(
        name, [*shipped, *(known for known in PITCH_RANGES if known not in shipped)], 1
    )
    meant = near[0] if near and near[0] in shipped else f"{ALL}:{near[0]}" if near else ""
    return (
        f"no instrument {source!r}: {f'did you mean {meant}? ' if meant else ''}Those that ship are "
        f"{', '.join(shipped) or 'none'}, and {ALL}:NAME, NAME one of {', '.join(PITCH_RANGES)}; or give the path of "
        "a .safetensors file, of a .ckpt file, or of a run folder"
    )


def _plain(name: str) -> str:
    """`Double_Bass` -> `double bass`."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _warn_of_few_steps(model: InstrumentModel, source: str | Path) -> None:
    steps = model.spec.steps
    if (
        steps is not None and steps < FEW_STEPS and multiprocessing.parent_process() is None
    ):  # once, not in each worker
        warnings.warn(
            f"{source} was trained for {steps} {'step' if steps == 1 else 'steps'} only: do not expect it to sound "
            f"like its instrument before {FEW_STEPS}, better several thousand",
            stacklevel=3,
        )


def _split_label(source: str | Path) -> tuple[str, str | None]:
    """`MODEL:NAME` -> (MODEL, NAME); a path that is there is no such thing."""
    name, colon, label = str(source).rpartition(":")
    if not colon or Path(source).exists() or "/" in label or "\\" in label:
        return str(source), None
    return name, label


def _choose(model: InstrumentModel, label: str | None, source: str | Path) -> InstrumentModel:
    """The model of one of the instruments that `model` knows, or of one take."""
    names, several = model.spec.labels, Labels(model.spec.labels).instruments
    if label is None and not several:
        return model
    if not names:
        raise InputError(f"{source}: the model is of one instrument only, {model.spec.name}")
    known = several or RECORDING_CONDITIONS
    if label is not None and label not in known:
        label = _plain(label)
    if label not in known:
        example = f"{source if label is None else _split_label(source)[0]}:{known[0]}"
        raise InputError(
            f"{source}: the model knows {', '.join(known)}: say which, for example {example}"
        )
    return select_instrument(model, label) if several else select_condition(model, label)


def _load_run_folder(folder: Path) -> InstrumentModel:
    for candidate in (
        *sorted(folder.glob("*.safetensors")),
        *(folder / "checkpoints" / f"{n}.ckpt" for n in ("last", "best")),
    ):
        if candidate.is_file():
            return (
                _load_safetensors(candidate)
                if candidate.suffix == ".safetensors"
                else _load_checkpoint(candidate)
            )
    raise InputError(
        f"no model in the folder {folder}: neither a .safetensors file nor checkpoints/last.ckpt"
    )


def _load_safetensors(path: Path) -> InstrumentModel:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such model file: {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(
                    f"{path} is no instrument model (its metadata lacks format={FORMAT})"
                )
            spec = InstrumentSpec(**json.loads(header["spec"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _build(spec, tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path} as an instrument model: {error}") from error


def _load_checkpoint(path: Path, original: Mapping[str, Any] | None = None) -> InstrumentModel:
    from audio_diffusion_pytorch.models.original_checkpoint import is_original, load_original
    from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

    content = read_checkpoint(path)
    if is_original(content):
        return load_original(path, content=content, **(original or {}))
    if original:
        raise InputError(
            f"{', '.join(original)} go with a checkpoint of the original system, {path} is none"
        )
    try:
        spec = InstrumentSpec(**content["instrument"])
        state = content["state_dict"]
        prefix = "ema.model.net."
        # copies: what was read is mapped to the file
        tensors = {
            "net." + key[len(prefix) :]: v.clone()
            for key, v in state.items()
            if key.startswith(prefix)
        }
        return _build(spec, tensors | {"mean": state["mean"].clone(), "std": state["std"].clone()})
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is no checkpoint of an instrument's training: {error!r}"
        ) from error


def other_shipped(name: str, codec: str) -> InstrumentModel | None:
    """A model that ships, of another instrument than `name`, on the codec of that name; None: there is none."""
    for other in sorted(
        shipped_instruments(), key=lambda other: other != "violin"
    ):  # the violin, where it is another
        if other != name:
            model = load_instrument(other)
            if model.spec.codec == codec:
                return model
    return None
