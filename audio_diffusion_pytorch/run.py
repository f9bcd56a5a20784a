"""The run's folder."""

import warnings
from pathlib import Path

import torch
from torch import Size, nn

from audio_diffusion_pytorch.checkpoint import load_checkpoint
from audio_diffusion_pytorch.errors import InputError, replacing
from audio_diffusion_pytorch.instrument import load_instrument
from audio_diffusion_pytorch.original import has_ema, is_original, load_unet_state, read_checkpoint


def check_resumable(ckpt: str) -> tuple[dict[str, Size], str | None]:
    """Fail early where `ckpt` is no checkpoint that training can resume from.

    Returns:
        Shapes of its tensors, and the name of the codec it was trained on (None: not said).

    Raises:
        InputError: it is missing, damaged, of the original system, or has no optimiser state.
    """
    content = load_checkpoint(ckpt)
    if is_original(content):
        raise InputError(
            f"{ckpt} is a checkpoint of the original system, whose optimiser state does not fit here: start from its "
            "weights with init_from=FILE instead of ckpt=FILE"
        )
    state = content.get("state_dict")
    if not isinstance(state, dict) or not {"optimizer_states", "loops"} <= content.keys():
        raise InputError(f"{ckpt} has no optimiser state: it cannot be resumed from, only used for transfer")
    return {key: value.shape for key, value in state.items()}, (content.get("instrument") or {}).get("codec")


def check_fits(saved: tuple[dict[str, Size], str | None], module: nn.Module, ckpt: str) -> None:
    """Fail where what `check_resumable` found does not fit `module`.

    Raises:
        InputError: another architecture or another codec; the message gives an example.
    """
    shapes, codec = saved
    own = {key: value.shape for key, value in module.state_dict().items()}
    differing = sorted(key for key in own.keys() | shapes.keys() if own.get(key) != shapes.get(key))
    if differing:
        key = differing[0]
        there, here = (list(s[key]) if key in s else "absent" for s in (shapes, own))
        raise InputError(
            f"{ckpt} comes from another model: {len(differing)} tensors differ, for example {key}, {there} there, "
            f"{here} here. Resume with the experiment and the model.* values of that run (its config.yaml)"
        )
    if codec is not None and codec != module.codec.name:
        raise InputError(
            f"{ckpt} was trained on the codec {codec}, not on {module.codec.name}: set codec= as in that run"
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
        state = load_unet_state(source, weights, net.config, content)
    else:
        other = load_instrument(source)
        if other.spec.codec != module.codec.name:
            raise InputError(
                f"init_from={source} was trained on the codec {other.spec.codec}, not on {module.codec.name}: choose "
                "an experiment on that codec"
            )
        state = other.denoiser.net.state_dict()
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


def check_unused(ckpt_dir: Path) -> None:
    """Fail where a new run would write over another one's checkpoints.

    Raises:
        InputError: there are some.
    """
    last = ckpt_dir / "last.ckpt"
    if last.exists():
        raise InputError(
            f"another run's checkpoints are in {ckpt_dir}: resume it with ckpt={last}, or choose another exp_tag"
        )


def prepare_run_folder(run_dir: Path, ckpt_dir: Path, config: str) -> None:
    """Create the folder, write the resolved configuration into it, and remove what a killed run left half-written."""
    with replacing(run_dir / "config.yaml") as temporary:
        temporary.write_text(config, encoding="utf-8")
    for temporary in ckpt_dir.glob(".*.tmp.ckpt"):
        temporary.unlink()
