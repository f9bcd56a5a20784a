"""Denoiser of all instruments without a label, for the guidance of a bridge to one of them."""

from __future__ import annotations

import multiprocessing
import warnings
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel, unlabelled_denoiser
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.models.loading import ALL, load_instrument


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Denoiser of all instruments without a label.

    Args:
        denoiser: the denoiser.
        digest: digest of the weights of its file; empty if they are those of the model itself.
    """

    denoiser: Denoiser
    digest: str = ""


_known: WeakKeyDictionary[InstrumentModel, Unlabelled | None] = WeakKeyDictionary()


def unlabelled_of(model: InstrumentModel) -> Unlabelled | None:
    """Return the denoiser without a label, for one instrument of several or for a single one.

    The denoiser of a single instrument comes from the model of several instruments in the same
    folder, `all.safetensors`.

    Args:
        model: model of one instrument.

    Returns:
        The denoiser; None without one, or with a warning if the file does not suit the model.
    """
    if model.unlabelled is not None:
        return Unlabelled(model.unlabelled)
    if model not in _known:
        _known[model] = _beside(model)
    return _known[model]


def _beside(model: InstrumentModel) -> Unlabelled | None:
    if model.file is None:
        return None
    path = model.file.with_name(f"{ALL}.safetensors")
    try:
        whole = load_instrument(path, whole=True)
        _check(model, whole, path)
    except InputError as error:
        if multiprocessing.parent_process() is None:  # once, not in each worker
            warnings.warn(
                f"{error}: the guidance of {model.spec.name} does not include its label",
                stacklevel=4,
            )
        return None
    return Unlabelled(unlabelled_denoiser(whole), weights_digest(path))


def _check(model: InstrumentModel, whole: InstrumentModel, path: Path) -> None:
    """Check that a model of several instruments suits a model of one of them.

    Raises:
        InputError: it does not.
    """
    own, other = model.spec, whole.spec
    differing = [
        name
        for name in ("codec", "sigma_data", "melody_channels")
        if getattr(own, name) != getattr(other, name)
    ]
    if differing:
        raise InputError(f"{path} differs from {own.name} in {', '.join(differing)}")
    if own.name not in Labels(other.labels).instruments:
        raise InputError(f"{path} does not contain {own.name}")
