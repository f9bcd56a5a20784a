"""Resume a run from its checkpoint, or start a run from the weights of another model."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import select_condition
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.original_checkpoint import (
    Weights,
    has_ema,
    is_original,
    load_unet_state,
)
from audio_diffusion_pytorch.models.unet import fold_melody
from audio_diffusion_pytorch.training.base_module import TrainingModule
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint, read_checkpoint

_STEP_SETTINGS = (
    "lr",
    "ema_",
    "label_",
    "melody_",
    "keyed_by",
    "codec_share",
)  # prefixes: they change a step's result
_EXPORT_FIELDS = {"level_db", "handoff_sigma", "steps"}  # describe the exported model only


@dataclass
class SavedRun:
    """Description of the run that wrote a checkpoint.

    Args:
        shapes: shapes of the module's tensors, by name.
        instrument: description of the model, see `TrainingModule.describe`; empty: unknown.
        data: state of the datamodule; empty: unknown.
        settings: settings of module and trainer that change the result of a step; empty: unknown.
    """

    shapes: dict[str, torch.Size]
    instrument: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def check_resumable(ckpt: str) -> SavedRun:
    """Check, before the run is built, that training can resume from a checkpoint.

    Args:
        ckpt: path of the checkpoint.

    Returns:
        The description of the run, for `check_compatible`.

    Raises:
        InputError: the checkpoint is missing, damaged, of the original system, or without optimiser
            state.
    """
    content = load_checkpoint(ckpt, mmap=True)
    if is_original(content):
        raise InputError(
            f"{ckpt} is a checkpoint of the original system, whose optimiser state is "
            "incompatible: start from its weights with init_from=FILE instead of ckpt=FILE"
        )
    state = content.get("state_dict")
    if not isinstance(state, dict) or not {"optimizer_states", "loops"} <= content.keys():
        raise InputError(
            f"{ckpt} has no optimiser state: use it for transfer, or start from its weights with "
            f"init_from={ckpt}"
        )
    settings = _step_settings(content.get("hyper_parameters") or {})
    return SavedRun(
        shapes={key: value.shape for key, value in state.items()},
        instrument=content.get("instrument") or {},
        data=content.get("Datamodule") or content.get("PackedDatamodule") or {},
        settings=settings | content.get("trainer", {}),
    )


def _step_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Select the arguments of a module that change the result of a step."""
    return {key: value for key, value in hparams.items() if key.startswith(_STEP_SETTINGS)}


def check_compatible(
    saved: SavedRun,
    module: TrainingModule,
    datamodule: pl.LightningDataModule,
    ckpt: str,
    trainer: Mapping[str, Any] | None = None,
) -> None:
    """Check that a run can resume from a checkpoint; warn if it will not reproduce the saved run.

    Args:
        saved: description of the saved run, from `check_resumable`.
        module: module of this run.
        datamodule: data of this run.
        ckpt: path of the checkpoint, for messages.
        trainer: settings of the trainer, from `settings_of`.

    Raises:
        InputError: the architecture, the codec or the instrument differs.
    """
    described = module.describe()
    _check_shapes(saved.shapes, module.state_dict(), ckpt)
    _check_model(saved.instrument, described, ckpt)
    there = saved.instrument | saved.data | saved.settings
    here = described | datamodule.state_dict() | _step_settings(module.hparams)
    here |= dict(trainer or {})
    changed = [
        key
        for key in sorted(there.keys() & here.keys() - _EXPORT_FIELDS)
        if there[key] != here[key]
    ]

    def listing(keys: list[str]) -> str:
        return ", ".join(f"{key} {there[key]} there, {here[key]} here" for key in keys)

    optimiser = [key for key in changed if key.startswith("lr")]
    others = [key for key in changed if key not in optimiser]
    if others:
        warnings.warn(
            f"{ckpt} was saved with different settings ({listing(others)}): training continues but "
            "will not reproduce that run",
            stacklevel=2,
        )
    if optimiser:
        warnings.warn(
            "training continues with the optimiser of the checkpoint, not of the configuration "
            f"({listing(optimiser)}); to start a new one from these weights, set init_from={ckpt} "
            "instead of ckpt",
            stacklevel=2,
        )


def _check_shapes(shapes: Mapping[str, torch.Size], state: Mapping[str, Tensor], ckpt: str) -> None:
    own = {key: value.shape for key, value in state.items()}
    differing = sorted(key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key))
    if not differing:
        return
    key = differing[0]
    there, here = (list(found[key]) if key in found else "absent" for found in (shapes, own))
    raise InputError(
        f"{ckpt} was saved by another model: {len(differing)} tensors differ, for example {key}, "
        f"{there} there, {here} here. Resume with the experiment and the model.* values of that "
        "run (its config.yaml)"
    )


def _check_model(there: Mapping[str, Any], here: Mapping[str, Any], ckpt: str) -> None:
    codec = here.get("codec")
    name = here.get("name")
    if there.get("codec", codec) != codec:
        raise InputError(
            f"{ckpt} was trained on the codec {there['codec']}, not {codec}: set codec= as in that "
            "run"
        )
    if there.get("name", name) != name:
        raise InputError(
            f"{ckpt} is a model of the {there['name']}, but this run trains the {name}: to start "
            "from its weights set init_from=FILE instead of ckpt=FILE"
        )


def initialise_from(module: nn.Module, source: str) -> None:
    """Copy the averaged weights of another model into a module that has not been trained.

    The copy covers the network only: latent statistics, noise levels and optimiser are those of the
    new run.

    Args:
        module: an `InstrumentModule`.
        source: a checkpoint of the original system, or any source that `load_instrument` accepts.

    Raises:
        InputError: the source is unreadable, was trained on another codec, or has another
            architecture.
    """
    if not isinstance(module, InstrumentModule):
        raise InputError("init_from needs an experiment that trains an instrument")
    net = module.denoiser.net
    state, steps = _network_state(module, source)
    own = {key: value.shape for key, value in net.state_dict().items()}
    if net.num_labels:  # a model without labels equals a model whose labels have no effect
        state = {"to_label.weight": torch.zeros_like(net.to_label.weight), **state}
    if module.melody_channels and "to_melody.weight" not in state:
        initial = net.state_dict()
        state = {**state, **{key: initial[key] for key in own if key.startswith("to_melody.")}}
        print(f"init_from={source} has no melody input: this input starts with its initial values")
    if (
        not module.melody_channels
        and "to_melody.weight" in state
        and net.config.get("patch_factor") == 1
    ):
        state = fold_melody(state)
        print(f"init_from={source} has a melody input, which the new model leaves out")
    differing = sorted(
        key
        for key in own.keys() | state.keys()
        if key not in state or own.get(key) != state[key].shape
    )
    if differing:
        raise InputError(
            f"init_from={source} has another architecture: {len(differing)} tensors differ, for "
            f"example {differing[0]}; set model.model.* as in that model"
        )
    for target in (net, module.ema.model.net):
        target.load_state_dict(state)
    module.steps_before = steps


def _network_state(module: InstrumentModule, source: str) -> tuple[dict[str, Tensor], int | None]:
    """Read the tensors of a source's network, and its number of training steps; None: unknown."""
    content = {}
    if Path(source).suffix == ".ckpt" and Path(source).is_file():
        content = read_checkpoint(source)
    if is_original(content):
        weights: Weights = "ema" if has_ema(content) else "raw"
        if weights == "raw":
            warnings.warn(
                f"{source} has no averaged weights: the run starts from the raw weights",
                stacklevel=3,
            )
        return load_unet_state(source, weights, module.denoiser.net.config, content), None
    other = load_instrument(source, whole=True)
    if other.spec.labels != module.labels:
        other = select_condition(load_instrument(source), "plain")
    if other.spec.codec != module.codec.name:
        raise InputError(
            f"init_from={source} was trained on the codec {other.spec.codec}, not "
            f"{module.codec.name}: choose an experiment on that codec"
        )
    return other.denoiser.net.state_dict(), other.spec.steps
