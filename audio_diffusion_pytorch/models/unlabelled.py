"""Denoiser without a label, for the guidance of a bridge by the label of its target.

An instrument of a model of several has the network of that model. A single instrument has that of
the model of several in its folder, `all.safetensors`.
"""

from __future__ import annotations

import multiprocessing
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel, unlabelled_denoiser
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import ALL, load_instrument

LABEL_GUIDANCE = 5.0  # usual weight for one instrument of a model of several


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Denoiser of all instruments without a label.

    Args:
        denoiser: the denoiser.
        digest: digest of the weights of its file; empty: the weights are the model's own.
    """

    denoiser: Denoiser
    digest: str = ""


def label_weight(model: InstrumentModel) -> float:
    """Return the weight of the label in the guidance of bridges to a model of one instrument."""
    if model.spec.label_guidance is not None:
        return model.spec.label_guidance
    return 1.0 if model.unlabelled is None else LABEL_GUIDANCE


def unlabelled_of(model: InstrumentModel) -> Unlabelled | None:
    """Return the denoiser without a label of a model of one instrument.

    Args:
        model: one instrument of a model of several, or a single instrument.

    Returns:
        The denoiser; None for a model without a file, or with a warning if no file suits it.
    """
    if model.unlabelled is not None:
        return Unlabelled(model.unlabelled)
    if model.file is None:
        return None
    path = model.file.with_name(f"{ALL}.safetensors")
    try:
        return _read(model, path)
    except InputError as error:
        if multiprocessing.parent_process() is None:  # once, not in each worker
            warnings.warn(
                f"{error}: the guidance of {model.spec.name} does not include its label",
                stacklevel=4,
            )
        return None


def _read(model: InstrumentModel, path: Path) -> Unlabelled:
    """Read a model of several instruments, and check that it suits a model of one of them.

    Raises:
        InputError: the file is missing or damaged, or does not suit the model.
    """
    state = path.stat() if path.is_file() else None
    key = None if state is None else (state.st_mtime_ns, state.st_size)
    whole, found = _load(path, key, str(model.mean.device))
    own, other = model.spec, whole.spec
    differing = [
        name
        for name in ("codec", "sigma_data", "melody_channels")
        if getattr(own, name) != getattr(other, name)
    ]
    nets = model.denoiser.net, whole.denoiser.net
    if nets[0].downsample_factor != nets[1].downsample_factor:
        differing.append("downsample_factor")
    if differing:
        raise InputError(f"{path} differs from {own.name} in {', '.join(differing)}")
    if own.name.replace("_", " ") not in Labels(other.labels).instruments:
        raise InputError(f"{path} does not contain {own.name}")
    return found


@lru_cache(maxsize=2)  # the bridges of a process share the network
def _load(
    path: Path, state: tuple[int, int] | None, device: str
) -> tuple[InstrumentModel, Unlabelled]:
    whole = load_instrument(path, device, whole=True)
    try:
        denoiser = unlabelled_denoiser(whole)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path} has a network without labels: {error!r}") from error
    return whole, Unlabelled(denoiser, weights_digest(path))
