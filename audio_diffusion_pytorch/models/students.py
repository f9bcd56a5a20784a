"""Students of instrument models: denoisers for few noise levels, in a folder beside the models.

`students/NAME.safetensors` belongs to `NAME.safetensors`. `training.distill_module` trains it.
"""

from __future__ import annotations

import json
import multiprocessing
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import DIRECTIONS, weights_digest
from audio_diffusion_pytorch.models.instrument import InstrumentModel, NoInitialValues
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS
from audio_diffusion_pytorch.models.networks import build_network
from audio_diffusion_pytorch.models.unet import fold_label
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors

FORMAT = "audio_diffusion_pytorch.student.1"
# The label of a bridge's source is "varied" and that of its target "plain".
CONDITIONS = dict(zip(DIRECTIONS, ("varied", "plain"), strict=True))
_known: WeakKeyDictionary[InstrumentModel, Student | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class StudentSpec:
    """Metadata of a student.

    Args:
        name: name of the instrument.
        teacher: digest of the teacher's weights, see `weights_digest`.
        network: name of the network's class in `NETWORKS`.
        unet: arguments of the network.
        sigma_data: standard deviation of the clean latents.
        levels: noise levels of each direction, falling, without the hand-off.
        sigmas: lowest and highest hand-off level of the training.
        labels: labels of the network, those of the teacher.
        steps: training steps.
        guidance: weight of the melody in the solutions to data, see `bridge.melody_use.MelodyUse`.
        label_guidance: weight of the label in these solutions.
    """

    name: str
    teacher: str
    network: str
    unet: Mapping[str, Any]
    sigma_data: float
    levels: Mapping[str, tuple[float, ...]]
    sigmas: tuple[float, float]
    labels: tuple[str, ...] = ()
    steps: int | None = None
    guidance: float = 1.0
    label_guidance: float = 1.0

    def covers(self, sigma: float) -> bool:
        """Return whether the student was trained for the hand-off level `sigma`."""
        low, high = self.sigmas
        return low * (1 - 1e-6) <= sigma <= high * (1 + 1e-6)

    def schedule(self, direction: str, sigma: float) -> Tensor:
        """Return the falling noise levels of a direction, from the hand-off on, float64."""
        return torch.tensor([sigma, *self.levels[direction]], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Student:
    """A trained student.

    Args:
        spec: its metadata.
        digest: digest of its weights.
        denoisers: denoiser of each direction; both end at a given noise level.
    """

    spec: StudentSpec
    digest: str
    denoisers: Mapping[str, Denoiser]


def student_file(model: Path) -> Path:
    """Return the file of the student of a model file."""
    return model.parent / "students" / model.name


def student_of(model: InstrumentModel) -> Student | None:
    """Load the student of a model; ignore an unusable one with one warning.

    Args:
        model: a model; one from a checkpoint has no student.

    Returns:
        The student; None without one, or if it is damaged or belongs to other weights.
    """
    if model not in _known:
        _known[model] = _find(model.file) if model.file is not None else None
    return _known[model]


def _find(model: Path) -> Student | None:
    path = student_file(model)
    if not path.is_file():
        return None
    try:
        student = load_student(path)
    except InputError as error:
        _warn(f"{error}: the student is not used")
        return None
    if student.spec.teacher != weights_digest(model):
        _warn(
            f"{path} is the student of other weights than those of {model.name}, and is not "
            "used: distil the model again, with train.py exp=distill_small"
        )
        return None
    return student


def load_student(path: Path) -> Student:
    """Load a student.

    Args:
        path: an existing file.

    Raises:
        InputError: the file is damaged or no student.
    """
    with open_safetensors(path, "a student of an instrument model", FORMAT) as (header, tensors):
        content = json.loads(header["spec"])
        tuples = {key: tuple(content[key]) for key in ("sigmas", "labels")}
        levels = {direction: tuple(content["levels"][direction]) for direction in DIRECTIONS}
        spec = StudentSpec(**content | tuples | {"levels": levels})
        state = {key: value.float() for key, value in tensors.items()}
        denoisers = {direction: _denoiser(spec, state, direction) for direction in DIRECTIONS}
    return Student(spec, weights_digest(path), denoisers)


def save_student(path: Path, spec: StudentSpec, state: Mapping[str, Tensor]) -> None:
    """Write the half-precision weights of a student.

    Args:
        path: file to write.
        spec: metadata.
        state: state of the network.

    Raises:
        InputError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "spec": json.dumps(asdict(spec))}
    write_safetensors(path, {key: value.half() for key, value in state.items()}, header)


def _denoiser(spec: StudentSpec, state: dict[str, Tensor], direction: str) -> Denoiser:
    """Build the denoiser of one direction: its label is folded into the weights."""
    unet = dict(spec.unet)
    if spec.labels == RECORDING_CONDITIONS:
        state = fold_label(state, RECORDING_CONDITIONS.index(CONDITIONS[direction]))
        unet["num_labels"] = 0
    with NoInitialValues():
        denoiser = Denoiser(build_network(spec.network, unet), spec.sigma_data)
    denoiser.net.load_state_dict(state, assign=True)
    return denoiser.eval().requires_grad_(False)


def _warn(text: str) -> None:
    if multiprocessing.parent_process() is None:  # once, not in each worker
        warnings.warn(text, stacklevel=4)
