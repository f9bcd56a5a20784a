"""The run's folder, what it can be resumed from, and what goes wrong in it."""

import math
import os
import shlex
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from audio_diffusion_pytorch.checkpoint import load_checkpoint
from audio_diffusion_pytorch.codec import Codec
from audio_diffusion_pytorch.errors import InputError, replacing
from audio_diffusion_pytorch.files import lock
from audio_diffusion_pytorch.instrument import load_instrument, take_of
from audio_diffusion_pytorch.original import has_ema, is_original, load_unet_state, read_checkpoint

_NUMBERS = {  # setting: whole, lowest, highest
    "seed": (True, 0, 2**32 - 1),
    "length": (True, 1, math.inf),
    "log_every_n_steps": (True, 1, math.inf),
    "ckpt_every_n_steps": (True, 1, math.inf),
    "model.lr": (False, 0, math.inf),
    "model.lr_weight_decay": (False, 0, math.inf),
    "model.ema_beta": (False, 0, 1),
}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made; the system frees it when this process ends, however it ends.

    In the end it is removed where nothing has been written into it.

    Raises:
        InputError: another run is in there; the message names it.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another logs_dir or free space"
        ) from error
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=file.close)  # a loader's process that outlives this one holds no lock
    with file:
        if not lock(file):
            file.seek(0)
            raise InputError(
                f"another run ({file.read().strip() or 'just started'}) is at work in {folder}: wait until it has "
                "ended, or choose another exp_tag"
            )
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                if list(folder.iterdir()) == [path]:
                    if os.name == "nt":  # where no open file can be removed
                        file.close()
                    path.unlink()
                    folder.rmdir()


def find_checkpoint(ckpt: str | None, ckpt_dir: Path) -> str | None:
    """The file to resume from: `ckpt` itself, or what last, best or auto mean in the run's folder.

    auto is last.ckpt, best.ckpt where an early kill left only that, and None (a new run) where there is neither.

    Raises:
        InputError: it is not there.
    """
    if ckpt == "auto":
        found = [ckpt_dir / name for name in ("last.ckpt", "best.ckpt") if (ckpt_dir / name).is_file()]
        return str(found[0]) if found else None
    if ckpt is None:
        return None
    if ckpt not in ("last", "best"):
        if not Path(str(ckpt)).is_file():
            raise InputError(f"no such checkpoint: {ckpt}; give a file, or last, best or auto with exp_tag=NAME")
        return str(ckpt)
    path = ckpt_dir / f"{ckpt}.ckpt"
    if not path.is_file():
        if (ckpt_dir / "last.ckpt").is_file():
            raise InputError(f"ckpt={ckpt}: {ckpt_dir.parent} has had no validation yet: use ckpt=last")
        raise InputError(f"ckpt={ckpt}: there is no {path}; name the run to resume with exp_tag=NAME, or give a file")
    return str(path)


def check_resumable(ckpt: str) -> dict[str, Any]:
    """Fail early where `ckpt` is no checkpoint that training can resume from.

    Returns:
        For `check_fits`: the `shapes` of its tensors, and what it says of its model and its data, `instrument` and
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
        raise InputError(f"{ckpt} has no optimiser state: it cannot be resumed from, only used for transfer")
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
    return {key: value for key, value in hparams.items() if key.startswith(("lr", "ema_", "label_", "codec_share"))}


def check_fits(
    saved: dict[str, Any], module: nn.Module, datamodule: Any, ckpt: str, trainer: Mapping[str, Any] | None = None
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
    here = here | datamodule.state_dict() | _settings(getattr(module, "hparams", {})) | dict(trainer or {})
    trained = here.keys() - {"level_db", "handoff_sigma", "steps"}  # those describe the exported model
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


def start_from(module: nn.Module, source: str) -> None:
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
    content = read_checkpoint(source) if Path(source).suffix == ".ckpt" and Path(source).is_file() else {}
    if is_original(content):
        weights = "ema" if has_ema(content) else "raw"
        if weights == "raw":
            warnings.warn(f"{source} has no averaged weights: starting from the raw ones", stacklevel=2)
        state, steps = load_unet_state(source, weights, net.config, content), None
    else:
        other = load_instrument(source, whole=True)
        if other.spec.labels != module.labels:
            other = take_of(load_instrument(source), "plain")
        if other.spec.codec != module.codec.name:
            raise InputError(
                f"init_from={source} was trained on the codec {other.spec.codec}, not on {module.codec.name}: choose "
                "an experiment on that codec"
            )
        state, steps = other.denoiser.net.state_dict(), other.spec.steps
    own = {key: value.shape for key, value in net.state_dict().items()}
    if net.num_labels:  # a model without labels is one whose labels make no difference
        state = {"to_label.weight": torch.zeros_like(net.to_label.weight), **state}
    differing = sorted(key for key in own.keys() | state.keys() if key not in state or own.get(key) != state[key].shape)
    if differing:
        raise InputError(
            f"init_from={source} has another architecture: {len(differing)} tensors differ, for example "
            f"{differing[0]}; set model.model.* as there"
        )
    for target in (net, module.ema.model.net):
        target.load_state_dict(state)
    module.steps_before = steps


def check_numbers(cfg: DictConfig) -> None:
    """Fail early where a number of the configuration makes no sense.

    Raises:
        InputError: the message says which, and what it may be.
    """
    for key, (whole, lowest, highest) in _NUMBERS.items():
        value = OmegaConf.select(cfg, key)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if value is not None and not (fits and lowest <= value <= highest):
            limit = f"from {lowest}" if highest == math.inf else f"from {lowest} to {highest}"
            raise InputError(f"{key}={value}: give a {'whole ' if whole else ''}number {limit}")


def check_rate(datamodule: Any, codec: Codec) -> None:
    """Fail where crops have another sample rate than the codec.

    Raises:
        InputError: they have.
    """
    rate = getattr(datamodule.train_set, "sample_rate", codec.sample_rate)
    if rate != codec.sample_rate:
        raise InputError(
            f"sampling_rate={rate}: the codec works at {codec.sample_rate} Hz, to which recordings of any rate are "
            f"resampled; leave it out, or set sampling_rate={codec.sample_rate}"
        )


def check_unused(ckpt_dir: Path) -> None:
    """Fail where a run from elsewhere would write over another one's checkpoints.

    Raises:
        InputError: there are some.
    """
    found = find_checkpoint("auto", ckpt_dir)
    if found is not None:
        raise InputError(
            f"another run's checkpoints are in {ckpt_dir}: resume it with ckpt=last, or choose another exp_tag"
        )


def resume_arguments(run_dir: Path, ckpt_dir: Path, logs_dir: Path) -> str:
    """What to add to a run's command, so that it goes on in the same folder: "exp_tag=NAME ckpt=last"."""
    run, logs = (Path(os.path.abspath(path)) for path in (run_dir, logs_dir))
    usual = logs in run.parents and Path(os.path.abspath(ckpt_dir)) == run / "checkpoints"
    if not usual:  # run_dir or ckpt_dir was given
        return shlex.quote(f"ckpt={ckpt_dir / 'last.ckpt'}")
    arguments = [f"exp_tag={run.relative_to(logs)}", "ckpt=last"]
    default = os.environ.get("DIR_LOGS", os.path.join(os.environ.get("PROJECT_ROOT", ""), "logs"))
    if logs != Path(os.path.abspath(default)):
        arguments.append(f"logs_dir={logs_dir}")
    return shlex.join(arguments)


def prepare_run_folder(run_dir: Path, ckpt_dir: Path, config: str) -> None:
    """Write the resolved configuration into the folder, and remove what a killed run left half-written."""
    with replacing(run_dir / "config.yaml") as temporary:
        temporary.write_text(config, encoding="utf-8")
    for folder in (run_dir, ckpt_dir):
        for temporary in folder.glob(".*.tmp.*"):
            temporary.unlink()
