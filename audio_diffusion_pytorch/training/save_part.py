"""Write one part of a checkpoint to a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

# Attributes of the original's module: their names in checkpoints of this package.
_ATTRIBUTES = {
    "model": "denoiser",
    "model.unet": "denoiser.net",
    "model_ema": "ema",
    "model_ema.ema_model": "ema.model",
}


def save_part(cfg: DictConfig) -> Path:
    """Write the part `cfg.save` of the checkpoint `cfg.ckpt` into the run folder.

    Returns:
        The path of the file.

    Raises:
        InputError: no checkpoint is given, or the part does not exist.
    """
    from audio_diffusion_pytorch.training.run_folder import find_checkpoint

    ckpt = find_checkpoint(cfg.ckpt, Path(cfg.ckpt_dir))
    if ckpt is None:
        raise InputError(f"save={cfg.save} needs ckpt=FILE, the checkpoint that contains the part")
    return save_attribute(ckpt, cfg.save, cfg.run_dir)


def save_attribute(checkpoint: str, attribute: str, folder: str | Path) -> Path:
    """Write the tensors of one part of a checkpoint's module to `folder`/`attribute`.pt.

    Args:
        checkpoint: path of a checkpoint of this package or of the original.
        attribute: dotted name of the part, for example `denoiser.net`; the names `model` and
            `model_ema` of the original are accepted.
        folder: folder of the new file.

    Returns:
        The path of the file, which holds a state dict or a single tensor.

    Raises:
        InputError: the checkpoint is unreadable, or has no such part; the message lists its parts.
    """
    import torch

    from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

    state = read_checkpoint(checkpoint).get("state_dict") or {}
    found = _part(state, attribute)
    if found is None:
        found = _part(state, _ATTRIBUTES.get(attribute, attribute))
    if found is None:
        names = sorted({key.partition(".")[0] for key in state})
        raise InputError(
            f"save={attribute}: {checkpoint} has no such part, only "
            f"{', '.join(names) or 'no tensors'}"
        )
    path = Path(folder) / f"{attribute}.pt"
    with atomic_write(path) as temporary:
        torch.save(found, temporary)
    return path


def _part(state: "dict[str, Tensor]", name: str) -> "Tensor | dict[str, Tensor] | None":
    """Copy the tensor `name`, or all below `name`, by their remaining names; None: no tensor."""
    if name in state:
        return state[name].clone()
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value.clone()
        for key, value in state.items()
        if key.startswith(prefix)
    } or None
