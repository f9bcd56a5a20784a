"""Resume a run, or start from other weights."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import select_condition
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.original_checkpoint import has_ema, is_original, load_unet_state
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint, read_checkpoint


def check_resumable(ckpt: str) -> dict[str, Any]:
    """Fail early where `ckpt` is no checkpoint that training can resume from.

    Returns:
        For `check_compatible`:
        the `shapes` of its tensors, and what it says of its model and its data, `instrument` and
        `data`, and of its training, `settings` (empty: nothing).

    Raises:
        InputError: it is missing, damaged, of the original system, or has no optimiser state.
    """
    content = load_checkpoint(ckpt, mmap=True)
    if is_original(content):
        raise InputError(
            f"{ckpt} is a checkpoint of the original system, whose optimiser state does not fit here: start from its "
            "weights with init_from=FILE instead of ckpt=FILE"
        )
    state = content.get("state_dict")
    if not isinstance(state, dict) or not {"optimizer_states", "loops"} <= content.keys():
        raise InputError(
            f"{ckpt} has no optimiser state: it cannot be resumed from, only used for transfer"
        )
    shapes = {key: value.shape for key, value in state.items()}
    settings = {**_settings(content.get("hyper_parameters") or {}), **content.get("trainer", {})}
    return {
        "shapes": shapes,
        "instrument": content.get("instrument") or {},
        "data": content.get("Datamodule") or {},
        "settings": settings,
    }


def _settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a module's arguments on which the result of a step depends."""
    return {
        key: value
        for key, value in hparams.items()
        if key.startswith(("lr", "ema_", "label_", "codec_share"))
    }


def check_compatible(
    saved: dict[str, Any],
    module: nn.Module,
    datamodule: Any,
    ckpt: str,
    trainer: Mapping[str, Any] | None = None,
) -> None:
    """Fail where what `check_resumable` found does not fit the run, and warn where the run will be another one.

    Args:
        trainer: its `settings_of`.

    Raises:
        InputError: another architecture, codec or instrument; the message gives an example.
    """
    shapes, there = saved["shapes"], saved["instrument"]
    own = {key: value.shape for key, value in module.state_dict().items()}
    differing = sorted(key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key))
    if differing:
        key = differing[0]
        had, has = (list(s[key]) if key in s else "absent" for s in (shapes, own))
        raise InputError(
            f"{ckpt} comes from another model: {len(differing)} tensors differ, for example {key}, {had} there, {has} "
            "here. Resume with the experiment and the model.* values of that run (its config.yaml)"
        )
    here = asdict(module.spec) if hasattr(module, "spec") else {}
    if there.get("codec", here.get("codec")) != here.get("codec"):
        raise InputError(
            f"{ckpt} was trained on the codec {there['codec']}, not on {here['codec']}: set codec= as in that run"
        )
    if there.get("name", here.get("name")) != here.get("name"):
        raise InputError(
            f"{ckpt} is a model of {there['name']}, this run trains {here['name']}: to start from its weights give "
            "init_from=FILE instead of ckpt=FILE"
        )
    there = there | saved["data"] | saved["settings"]
    here = (
        here
        | datamodule.state_dict()
        | _settings(getattr(module, "hparams", {}))
        | dict(trainer or {})
    )
    trained = here.keys() - {
        "level_db",
        "handoff_sigma",
        "steps",
    }  # those describe the exported model
    changed = {
        key: f"{key} {there[key]} there, {here[key]} here"
        for key in sorted(there.keys() & trained)
        if there[key] != here[key]
    }
    kept = {key for key in changed if key.startswith("lr")}
    if changed.keys() - kept:
        listing = ", ".join(text for key, text in changed.items() if key not in kept)
        warnings.warn(
            f"{ckpt} comes from a run with other settings ({listing}): training goes on, but not as there",
            stacklevel=2,
        )
    if kept:
        listing = ", ".join(text for key, text in changed.items() if key in kept)
        warnings.warn(
            f"{ckpt} goes on with its own optimiser, not with the one given ({listing}); to start anew from its "
            f"weights use init_from={ckpt} instead of ckpt",
            stacklevel=2,
        )


def initialise_from(module: nn.Module, source: str) -> None:
    """Give an `InstrumentModule` that has not been trained the averaged weights of another model.

    Args:
        source: a checkpoint of the original system, or whatever `load_instrument` takes. Only the network comes from
            there: latent statistics, noise levels and optimiser are this run's own.

    Raises:
        InputError: it cannot be read, was trained on another codec, or has another architecture; the message says so.
    """
    if not hasattr(module, "denoiser"):
        raise InputError("init_from goes with an instrument's experiment, not with that of a codec")
    net = module.denoiser.net
    content = (
        read_checkpoint(source) if Path(source).suffix == ".ckpt" and Path(source).is_file() else {}
    )
    if is_original(content):
        weights = "ema" if has_ema(content) else "raw"
        if weights == "raw":
            warnings.warn(
                f"{source} has no averaged weights: starting from the raw ones", stacklevel=2
            )
        state, steps = load_unet_state(source, weights, net.config, content), None
    else:
        other = load_instrument(source, whole=True)
        if other.spec.labels != module.labels:
            other = select_condition(load_instrument(source), "plain")
        if other.spec.codec != module.codec.name:
            raise InputError(
                f"init_from={source} was trained on the codec {other.spec.codec}, not on {module.codec.name}: choose "
                "an experiment on that codec"
            )
        state, steps = other.denoiser.net.state_dict(), other.spec.steps
    own = {key: value.shape for key, value in net.state_dict().items()}
    if net.num_labels:  # a model without labels is one whose labels make no difference
        state = {"to_label.weight": torch.zeros_like(net.to_label.weight), **state}
    differing = sorted(
        key
        for key in own.keys() | state.keys()
        if key not in state or own.get(key) != state[key].shape
    )
    if differing:
        raise InputError(
            f"init_from={source} has another architecture: {len(differing)} tensors differ, for example "
            f"{differing[0]}; set model.model.* as there"
        )
    for target in (net, module.ema.model.net):
        target.load_state_dict(state)
    module.steps_before = steps
