"""Model of an instrument: denoiser, latent statistics and metadata; save, and select labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.fitted_schedules import FittedSchedules
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS, Labels, statistics_of
from audio_diffusion_pytorch.models.networks import DEFAULT, build_network
from audio_diffusion_pytorch.models.unet import choose_labels, fold_label
from audio_diffusion_pytorch.utils.safetensors_io import write_safetensors

FORMAT = "audio_diffusion_pytorch.instrument.1"


@dataclass(frozen=True)
class InstrumentSpec:
    """Metadata of a model: everything except its tensors.

    Args:
        name: name of the instrument, for display.
        unet: arguments of the network, of `UNet1d` by default.
        codec: name of the codec of the latents.
        sigma_data: standard deviation of the normalised latents.
        sigma_min: lowest noise level in training.
        sigma_max: highest noise level in training.
        rho: spacing of the noise levels (Karras et al. 2022, eq. 5).
        level_db: RMS of the active parts of the training recordings in dB of full scale; None:
            unknown.
        frames: length of training crops and of a bridge's windows in latent frames.
        handoff_sigma: default noise level of a bridge's hand-off.
        labels: names of the network's labels, see `Labels`; empty: an unconditional network.
        handoff_sigmas: source instrument -> default noise level of the hand-off from that
            instrument.
        handoffs: source instrument -> hand-off from that instrument, "plain" or "matched";
            "matched" by default.
        pitch_range: lowest and highest MIDI pitch in training; None: the range of the instrument's
            name.
        noise: mean and deviation of each channel after the source ODE maps the instrument's own
            recordings to noise, see `bridge.noise_statistics`; a model of several instruments maps
            each instrument to its values; empty: not measured.
        steps: training steps, including those of the model that training started from; None:
            unknown.
        label_guidance: weight of the instrument's label in the guidance of bridges to the model,
            see `models.unlabelled`; 1: none; None: the usual one.
        network: name of the network's class in `NETWORKS`.
    """

    name: str
    unet: Mapping[str, Any]
    codec: str
    sigma_data: float = 1.0
    sigma_min: float = 0.001
    sigma_max: float = 100.0
    rho: float = 9.0
    level_db: float | None = None
    frames: int = 1280
    handoff_sigma: float = 4.0
    labels: tuple[str, ...] = ()
    handoff_sigmas: Mapping[str, float] = field(default_factory=dict)
    handoffs: Mapping[str, str] = field(default_factory=dict)
    pitch_range: tuple[int, int] | None = None
    noise: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = field(default=None, repr=False)  # does not affect transfers
    label_guidance: float | None = field(default=None, repr=False)
    # Not in the representation, which old transfer records contain as a hash.
    network: str = field(default=DEFAULT, repr=False)

    @property
    def melody_channels(self) -> int:
        """Channels of the network's melody input; 0: no such input."""
        return int(self.unet.get("melody_channels", 0))

    def handoff_from(self, source: str) -> float:
        """Return the default noise level of the hand-off from the instrument `source`."""
        return self.handoff_sigmas.get(source, self.handoff_sigma)


class InstrumentModel(nn.Module):
    """Denoiser with the statistics of its latents.

    Args:
        spec: metadata of the model.
        mean: mean of each latent channel, [D], or [instruments, D] for several instruments.
        std: standard deviation of each latent channel, [D] or [instruments, D].
        denoiser: the denoiser; None: a new one, untrained.
        codec: codec stored with the model; None: the codec that the spec names.

    Attributes:
        file: .safetensors file that the model was loaded from; None: another origin.
        fitted: solvers fitted to the weights, from beside the file; None: not fitted.
        unlabelled: of one instrument of a model of several, the denoiser without a label; else
            None, see `models.unlabelled`.

    Raises:
        InputError: the shape of the statistics does not match.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: InstrumentSpec,
        mean: Tensor,
        std: Tensor,
        denoiser: Denoiser | None = None,
        codec: Codec | None = None,
    ):
        super().__init__()
        self.spec = spec
        self.codec = codec
        self.file: Path | None = None
        self.fitted: FittedSchedules | None = None
        self.unlabelled: Denoiser | None = None
        self.denoiser = denoiser or Denoiser(
            build_network(spec.network, spec.unet), spec.sigma_data
        )
        channels = cast(int, self.denoiser.net.in_channels)
        shape = Labels(spec.labels).statistics_shape(channels)
        self.register_buffer("mean", statistics_of(mean, shape))
        self.register_buffer("std", statistics_of(std, shape))

    def normalise(self, latents: Tensor) -> Tensor:
        """Normalise codec latents [B, D, L] to zero mean and unit variance per channel."""
        return (latents - self.mean[:, None]) / self.std[:, None]

    def denormalise(self, latents: Tensor) -> Tensor:
        """Invert `normalise`."""
        return latents * self.std[:, None] + self.mean[:, None]

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write half-precision weights and statistics as .safetensors, with the spec as metadata.

        Args:
            path: file to write.
            metadata: further entries of the metadata.

        Raises:
            InputError: the file cannot be written.
        """
        net = self.denoiser.net.state_dict()
        tensors = {f"net.{key}": value.half() for key, value in net.items()}
        tensors |= {"mean": self.mean, "std": self.std}
        header = {"format": FORMAT, "spec": json.dumps(asdict(self.spec)), **(metadata or {})}
        write_safetensors(path, tensors, header)


def select_instrument(model: InstrumentModel, instrument: str) -> InstrumentModel:
    """Select one instrument of a model of several; the result shares all but the labels' tensors.

    Raises:
        ValueError: the model does not contain the instrument.
    """
    labels = Labels(model.spec.labels)
    number = labels.instruments.index(instrument)
    spec = replace(
        model.spec,
        name=instrument,
        labels=RECORDING_CONDITIONS if labels.has_conditions else (),
        noise=model.spec.noise.get(instrument, {}),
    )
    state = model.denoiser.net.state_dict()
    if labels.has_conditions:
        state = choose_labels(state, [labels.index(number, varied) for varied in (False, True)])
    else:
        state = fold_label(state, number)
    made = _relabelled(model, spec, state, model.mean[number], model.std[number])
    made.unlabelled = unlabelled_denoiser(model)
    return made


def unlabelled_denoiser(model: InstrumentModel) -> Denoiser:
    """Return the denoiser of a model of several instruments without a label."""
    state = fold_label(model.denoiser.net.state_dict(), Labels(model.spec.labels).count)
    return _denoiser(replace(model.spec, labels=()), state)


def select_condition(model: InstrumentModel, condition: str) -> InstrumentModel:
    """Select one of `RECORDING_CONDITIONS`; the result shares all but the folded label's tensor.

    A model without labels of recording conditions is returned unchanged.
    """
    if model.spec.labels != RECORDING_CONDITIONS:
        return model
    state = fold_label(model.denoiser.net.state_dict(), RECORDING_CONDITIONS.index(condition))
    return _relabelled(model, replace(model.spec, labels=()), state, model.mean, model.std).eval()


def _relabelled(
    model: InstrumentModel,
    spec: InstrumentSpec,
    state: dict[str, Tensor],
    mean: Tensor,
    std: Tensor,
) -> InstrumentModel:
    spec = _with_labels(spec)
    made = InstrumentModel(spec, mean, std, _denoiser(spec, state), model.codec)
    made.file, made.fitted, made.unlabelled = model.file, model.fitted, model.unlabelled
    return made.requires_grad_(False)


def _with_labels(spec: InstrumentSpec) -> InstrumentSpec:
    """Set the network's number of labels to that of the names."""
    return replace(spec, unet={**spec.unet, "num_labels": Labels(spec.labels).count})


def _denoiser(spec: InstrumentSpec, state: dict[str, Tensor]) -> Denoiser:
    spec = _with_labels(spec)
    with NoInitialValues():
        denoiser = Denoiser(build_network(spec.network, spec.unet), spec.sigma_data)
    denoiser.net.load_state_dict(state, assign=True)
    return denoiser.eval().requires_grad_(False)


class NoInitialValues(TorchFunctionMode):
    """Skip the initialisation of modules.

    The meta device would import torch's compiler, which takes a second.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def build_model(spec: InstrumentSpec, tensors: Mapping[str, Tensor]) -> InstrumentModel:
    """Build a model from the content of a file.

    Args:
        spec: metadata of the model.
        tensors: `net.*`, `mean` and `std`.

    Raises:
        KeyError: the statistics are missing.
        RuntimeError: the weights do not fit the network.
    """
    spec = replace(spec, unet=dict(spec.unet), labels=tuple(spec.labels))
    with NoInitialValues():
        denoiser = Denoiser(build_network(spec.network, spec.unet), spec.sigma_data)
    weights = {
        key[len("net.") :]: value.float()
        for key, value in tensors.items()
        if key.startswith("net.")
    }
    denoiser.net.load_state_dict(weights, assign=True)
    return InstrumentModel(spec, tensors["mean"], tensors["std"], denoiser)


def pitch_range(spec: InstrumentSpec) -> tuple[int, int] | None:
    """Return the lowest and highest MIDI pitch of a model, by its spec or name; None: unknown."""
    if spec.pitch_range is not None:
        low, high = spec.pitch_range
        return low, high
    return PITCH_RANGES.get(spec.name.replace("_", " "))
