"""Write one part of a checkpoint to a file."""

from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

# Attributes of the original's module, as checkpoints of this package name them.
_ATTRIBUTES = {
    "model": "denoiser",
    "model.unet": "denoiser.net",
    "model_ema": "ema",
    "model_ema.ema_model": "ema.model",
}


def save_attribute(checkpoint: str, attribute: str, folder: str | Path) -> Path:
    """Write the tensors of one part of a checkpoint's module to `folder`/`attribute`.pt: a state dict, or one tensor.

    Args:
        checkpoint: of this package or of the original.
        attribute: the part's name with dots, `denoiser.net`; the original's `model` and `model_ema` are known, too.

    Raises:
        InputError: no such checkpoint, or no such part in it; the message names those that there are.
    """
    import torch

    from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

    state = read_checkpoint(checkpoint).get("state_dict") or {}

    def part(name: str) -> Any:
        return state.get(
            name,
            {k[len(name) + 1 :]: value for k, value in state.items() if k.startswith(f"{name}.")},
        )

    found = part(attribute)
    if isinstance(found, dict) and not found:
        found = part(_ATTRIBUTES.get(attribute, attribute))
    if isinstance(found, dict) and not found:
        names = sorted({key.partition(".")[0] for key in state})
        raise InputError(
            f"save={attribute}: {checkpoint} has no such part, only {', '.join(names) or 'no tensors'}"
        )
    path = Path(folder) / f"{attribute}.pt"
    copies = (
        {key: value.clone() for key, value in found.items()}
        if isinstance(found, dict)
        else found.clone()
    )
    with atomic_write(path) as temporary:
        torch.save(copies, temporary)
    return path
