"""Translate keys and `_target_` names of the original system to those of this package.

The module operates on containers and OmegaConf only. A key without a counterpart is an error that
names a replacement.
"""

import ast
import importlib.util
import operator
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.errors import InputError

Node = dict[str, Any]

_PACKAGE = "audio_diffusion_pytorch"
_ORIGINAL = re.compile(r"main\.(?:\w+\.)*(\w+)")
# Arguments of Lightning 1 that Lightning 2 lacks -> replacement.
_TRAINER = {
    "amp_backend": "trainer.precision",
    "amp_level": "trainer.precision",
    "auto_lr_find": "model.lr",
    "auto_scale_batch_size": "datamodule.batch_size",
    "auto_select_gpus": "trainer.gpus",
    "checkpoint_callback": "trainer.enable_checkpointing",
    "flush_logs_every_n_steps": "trainer.log_every_n_steps",
    "ipus": "trainer.accelerator",
    "move_metrics_to_cpu": "nothing",
    "multiple_trainloader_mode": "nothing",
    "num_processes": "trainer.devices",
    "prepare_data_per_node": "nothing",
    "process_position": "callbacks.progress",
    "progress_bar_refresh_rate": "callbacks.progress.refresh_rate",
    "replace_sampler_ddp": "trainer.use_distributed_sampler",
    "resume_from_checkpoint": "ckpt=FILE",
    "stochastic_weight_avg": "model.ema_beta",
    "terminate_on_nan": "trainer.detect_anomaly",
    "tpu_cores": "trainer.accelerator",
    "track_grad_norm": "nothing",
    "weights_save_path": "ckpt_dir",
    "weights_summary": "callbacks.summary",
}
_SOLVERS = {"KarrasSampler": "heun", "ADPM2Sampler": "heun", "AEulerSampler": "euler"}
_UNUSED = (
    "latent",
    "cond",
    "latent_lenght",
)  # keys of the original's experiments without effect here


def adapt(cfg: DictConfig) -> DictConfig:
    """Translate a composed training configuration to the names of this package.

    A configuration with these names is returned unchanged. Interpolations are preserved; the string
    "None" means null.

    Args:
        cfg: the composed configuration.

    Raises:
        InputError: a key or a `_target_` lacks a counterpart; the message names the replacement.
    """
    root = _without_none(OmegaConf.to_container(cfg, resolve=False))
    idle = _root_keys(root)
    for key, node in root.items():
        root[key] = node if key in _UNUSED else _translate(node, key, idle)
    text = str(root)
    for key in _UNUSED:  # keep keys that a user's group file interpolates
        if f"${{{key}}}" not in text:
            root.pop(key, None)
    if idle:
        warnings.warn(f"settings without effect: {', '.join(sorted(idle))}", stacklevel=2)
    return OmegaConf.create(root)


def _without_none(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_none(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_none(value) for value in node]
    return None if isinstance(node, str) and node.strip() == "None" else node


def _root_keys(root: Node) -> set[str]:
    """Translate the root keys of the original in place; return the keys without effect."""
    idle = set()
    if isinstance(root.get("instruments"), str) and not root["instruments"].startswith("${"):
        root["instruments"] = [root["instruments"]]
    for key in ("callbacks", "loggers"):
        root[key] = root.get(key) or {}
    codec = root.get("codec") or {}
    if "_target_" not in codec:  # the original supports one codec
        root["codec"] = {
            "_target_": f"{_PACKAGE}.codecs.loading.load_codec",
            "name": "encodec",
            **codec,
        }
    if root.get("latent") is False:
        raise InputError(
            "latent=false: models of waveforms are not supported; choose the latents with codec="
        )
    if root.get("cond"):
        idle.add("cond (the networks are not conditioned)")
    frames, length = root.get("latent_lenght"), root.get("length")
    if isinstance(frames, int) and isinstance(length, int) and frames != -(-length // 320):
        idle.add(f"latent_lenght={frames} (length={length} has {-(-length // 320)} frames)")
    encodec = root.pop("encodec_model", None)
    if isinstance(encodec, str) and not encodec.endswith("encodec_24khz"):
        if not Path(encodec).exists():
            raise InputError(
                f"encodec_model={encodec}: use codec.weights=PATH with a folder or a file of "
                "EnCodec's weights"
            )
        root["codec"]["weights"] = encodec
    return idle


def _translate(node: Any, path: str, idle: set[str]) -> Any:
    """Translate the targets of `node` and of all its children."""
    if isinstance(node, list):
        return [_translate(value, f"{path}.{index}", idle) for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    rule = _rule(str(node.get("_target_", "")), path)
    node = rule(dict(node), path, idle) if rule else node
    return {key: _translate(value, f"{path}.{key}", idle) for key, value in node.items()}


def _rule(target: str, path: str) -> Callable[[Node, str, set[str]], Node] | None:
    original = _ORIGINAL.fullmatch(target)
    if original:
        rules = {"Model": _model, "Datamodule": _datamodule, "SampleLogger": _sample_logger}
        if original[1] not in rules:
            raise InputError(
                f"{path}._target_={target} is not supported: "
                "see the files in exp/ for a replacement"
            )
        return rules[original[1]]
    if target == "audio_data_pytorch.WAVDataset":
        return _dataset
    if target in (
        "pytorch_lightning.Trainer",
        f"{_PACKAGE}.training.trainer.make_trainer",
        f"{_PACKAGE}.trainer.make_trainer",  # of 0.1.0
    ):
        return _trainer
    if re.fullmatch(r"pytorch_lightning\.callbacks\.Rich(ProgressBar|ModelSummary)", target):
        return _rich
    return None


def _model(node: Node, path: str, idle: set[str]) -> Node:
    _drop(
        node,
        path,
        idle,
        "encodec_model",
        "latent",
        "cond",
        "latent_lenght",
        "sign",
        "sampling_rate",
        "channels",
    )
    net = dict(node.pop("model", None) or {})
    for name, value in _one_value().items():
        if net.pop(name, value) != value:
            raise InputError(
                f"{path}.model.{name} must be {value!r}: this package supports no other value"
            )
    distribution = net.pop("diffusion_sigma_distribution", None) or {
        "_target_": f"{_PACKAGE}.KDistribution",
        **{key: f"${{{key}}}" for key in ("sigma_min", "sigma_max", "rho")},
    }
    own = {key: f"${{{key}}}" for key in ("length", "seed", "mean_path", "std_path", "total_steps")}
    return {
        "name": "${instrument_name}",
        "sigma_data": net.pop("diffusion_sigma_data", "${diffusion_sigma_data}"),
        "sigma_distribution": distribution,
        **own,
        **node,
        "_target_": f"{_PACKAGE}.training.instrument_module.InstrumentModule",
        "model": {**net, "_target_": f"{_PACKAGE}.models.unet.UNet1d"},
    }


def _one_value() -> dict[str, Any]:
    from audio_diffusion_pytorch.compat.api import _ONE_VALUE

    return _ONE_VALUE


def _datamodule(node: Node, path: str, idle: set[str]) -> Node:
    _drop(
        node,
        path,
        idle,
        "latent",
        "cond",
        "sampling_rate",
        "length",
        "channels",
        "persistent_workers",
    )
    _rename(node, "val_split", "valid_split")
    own = {"seed": "${seed}", "cache_dir": "${logs_dir}/cache/latents"}
    return {**own, **node, "_target_": f"{_PACKAGE}.data.datamodule.Datamodule"}


def _dataset(node: Node, path: str, idle: set[str]) -> Node:
    """Translate the original's WAVDataset and AllTransform.

    Crops, rate and channels move to the data set.
    """
    transforms = node.get("transforms")
    if isinstance(transforms, dict) and str(transforms.get("_target_")).endswith("AllTransform"):
        transforms = dict(node.pop("transforms"))
        _rename(transforms, "crop_size", "random_crop_size")
        _rename(transforms, "target_rate", "sample_rate")
        _drop(transforms, f"{path}.transforms", set(), "source_rate")
        for key in ("instruments", "sign", "random_crop_size", "sample_rate", "mono", "stereo"):
            value = transforms.pop(key, None)
            if value is not None and node.get(key) is None:
                node[key] = value
        rest = {key: value for key, value in transforms.items() if value is not None}
        if rest.keys() - {"_target_"}:
            node["transforms"] = {
                **rest,
                "target_rate": node.get("sample_rate", "${sampling_rate}"),
            }
    if node.pop("stereo", None) is True:
        raise InputError(
            f"{path}: stereo=true is not supported, the codecs are mono: "
            "use mono=true to average the channels"
        )
    _drop(node, path, idle, "mono", "with_ID3", "latent", "cond")
    _rename(node, "random_crop_size", "length")
    if node.pop("check_silence", True) is False:
        node["silence_db"] = None
    sign = node.pop("sign", "${sign}")
    own: Node = {"sample_rate": "${sampling_rate}", "length": "${length}", "seed": "${seed}"}
    own["pitch_shift"] = {
        "_target_": f"{_PACKAGE}.data.pitch_shift.make_pitch_shift",
        "sign": sign,
        "cache": "${logs_dir}/cache/pitch",
    }
    if isinstance(node.get("instruments"), str) and not node["instruments"].startswith("${"):
        node["instruments"] = [node["instruments"]]
    return {**own, **node, "_target_": f"{_PACKAGE}.data.dataset.InstrumentDataset"}


def _sample_logger(node: Node, path: str, idle: set[str]) -> Node:
    sampler = node.pop("diffusion_sampler", None) or {}
    name = str(sampler.get("_target_", "")).rpartition(".")[2]
    if name in _SOLVERS:
        node.setdefault("solver", _SOLVERS[name])
    elif name:
        raise InputError(
            f"{path}.diffusion_sampler: unknown sampler {name}: "
            f"use {path}.solver=heun, euler or dpmpp_2m"
        )
    _drop(
        node,
        path,
        idle,
        "channels",
        "sampling_rate",
        "use_ema_model",
        "diffusion_schedule",
        "mean_path",
        "std_path",
    )
    _drop(node, path, idle, "latent", "cond", "latent_lenght", "encodec_model")
    if "latent_lenght" in str(node.get("length")):  # in frames; ours is in samples
        del node["length"]
    return {
        "length": "${length}",
        **node,
        "_target_": f"{_PACKAGE}.training.callbacks.samples.SampleLogger",
    }


def _trainer(node: Node, path: str, idle: set[str]) -> Node:
    for key, successor in _TRAINER.items():
        if node.pop(key, None) is not None:
            raise InputError(f"{path}.{key} is not an argument of Lightning 2: use {successor}")
    for key in ("accelerator", "devices", "strategy"):
        if key in node and node[key] is None:  # null: the default in Lightning 1
            del node[key]
    if "gpus" in node:
        node["_target_"] = f"{_PACKAGE}.training.trainer.make_trainer"
    return node


def _rich(node: Node, path: str, idle: set[str]) -> Node:
    if importlib.util.find_spec("rich") is None:
        plain = "ModelSummary" if node["_target_"].endswith("ModelSummary") else "TQDMProgressBar"
        kept: Node = {key: node[key] for key in ("max_depth", "refresh_rate") if key in node}
        return {**kept, "_target_": f"pytorch_lightning.callbacks.{plain}"}
    return node


def _drop(node: Node, path: str, idle: set[str], *keys: str) -> None:
    """Remove keys that this package derives itself; report `cond` as idle if it is set."""
    for key in keys:
        value = node.pop(key, None)
        if key == "cond" and value:
            idle.add(f"{path}.{key}")


def _rename(node: Node, old: str, new: str) -> None:
    if old in node:
        value = node.pop(old)
        node.setdefault(new, value)


_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
}


def arithmetic(expression: str) -> float:
    """Evaluate an arithmetic expression such as `81920 // 320`, as the original's `eval` resolver.

    Args:
        expression: numbers, + - * / // % and parentheses.

    Raises:
        InputError: the expression contains anything else.
    """

    def value(node: ast.AST) -> float:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return cast(float, node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        raise ValueError("only numbers, + - * / // % and parentheses are supported")

    try:
        return value(ast.parse(str(expression).strip(), mode="eval"))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise InputError(f"${{eval:{expression}}}: {error}; write the value instead") from error
