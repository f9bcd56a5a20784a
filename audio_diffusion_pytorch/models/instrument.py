"""One instrument's model as a bridge needs it: denoiser, latent statistics, codec name; load and save."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS, Labels, statistics_of
from audio_diffusion_pytorch.models.unet import UNet1d, choose_labels, fold_label
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


FORMAT = "audio_diffusion_pytorch.instrument.1"


@dataclass(frozen=True)
class InstrumentSpec:
    """Everything about a model but its tensors.

    Args:
        name: the instrument, for people.
        unet: arguments of `UNet1d`.
        codec: name of the codec that the latents come from.
        sigma_data: standard deviation of the normalised latents.
        sigma_min, sigma_max, rho: range and spacing of the noise levels in training; for schedules.
        level_db: RMS of the training recordings' sounding parts in dB of full scale; None: unknown.
        frames: length of the training crops in latent frames, and of the bridge's windows.
        handoff_sigma: default noise level at which a bridge hands over.
        labels: what the network tells apart, see `Labels`; none: one instrument.
        handoff_sigmas: source instrument -> another default of the bridges from it.
        handoffs: source instrument -> how a bridge from it hands over, "plain" or "matched"; the others are matched.
        pitch_range: lowest and highest MIDI pitch that the model knows; None: that of the instrument's name.
        noise: what its own recordings are like as noise, see `handoff.noise_statistics`; of several instruments, a
            mapping from each to its own; none: not measured.
        steps: of training, with those of the model that it started from; None: unknown.
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
    steps: int | None = field(default=None, repr=False)  # no part of what a transfer depends on

    def handoff_from(self, source: str) -> float:
        """Default hand-off noise level of a bridge from the instrument `source`."""
        return self.handoff_sigmas.get(source, self.handoff_sigma)


class InstrumentModel(nn.Module):
    """A denoiser with the statistics of its latents.

    Args:
        spec: see `InstrumentSpec`.
        mean, std: [D] per latent channel; of several instruments [instruments, D], each its own.
        codec: the codec that came with the model; None: the one that the spec names.
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
        self.denoiser = denoiser or Denoiser(UNet1d(**spec.unet), spec.sigma_data)
        shape = Labels(spec.labels).statistics_shape(self.denoiser.net.in_channels)
        self.register_buffer("mean", statistics_of(mean, shape))
        self.register_buffer("std", statistics_of(std, shape))

    def normalise(self, latents: Tensor) -> Tensor:
        """Codec latents [B, D, L] -> zero mean and unit variance per channel."""
        return (latents - self.mean[:, None]) / self.std[:, None]

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self.std[:, None] + self.mean[:, None]

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write weights in half precision and statistics as .safetensors; the rest goes into its metadata."""
        from safetensors.torch import save_file

        tensors = {
            key: value.half().contiguous().cpu()
            for key, value in self.denoiser.net.state_dict().items()
        }
        tensors = {f"net.{key}": value for key, value in tensors.items()}
        tensors |= {"mean": self.mean.cpu(), "std": self.std.cpu()}
        header = {"format": FORMAT, "spec": json.dumps(asdict(self.spec)), **(metadata or {})}
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, header)


def select_instrument(model: InstrumentModel, instrument: str) -> InstrumentModel:
    """The model of one of the instruments that `model` tells apart, sharing all but the labels' tensors."""
    spec, labels = model.spec, Labels(model.spec.labels)
    number = labels.instruments.index(instrument)
    spec = replace(
        spec,
        name=instrument,
        labels=RECORDING_CONDITIONS if labels.takes else (),
        noise=spec.noise.get(instrument, {}),
    )
    state, mean, std = model.denoiser.net.state_dict(), model.mean[number], model.std[number]
    if not labels.takes:
        return _relabelled(model, spec, fold_label(state, number), mean, std)
    rows = [labels.index(number, varied) for varied in (False, True)]
    return _relabelled(model, spec, choose_labels(state, rows), mean, std)


def select_condition(model: InstrumentModel, take: str) -> InstrumentModel:
    """Select the model of one of `RECORDING_CONDITIONS`; it shares all tensors but one.

    A model without such labels is returned as it is.
    """
    if model.spec.labels != RECORDING_CONDITIONS:
        return model
    state = fold_label(model.denoiser.net.state_dict(), RECORDING_CONDITIONS.index(take))
    return _relabelled(model, replace(model.spec, labels=()), state, model.mean, model.std).eval()


def _relabelled(
    model: InstrumentModel,
    spec: InstrumentSpec,
    state: dict[str, Tensor],
    mean: Tensor,
    std: Tensor,
) -> InstrumentModel:
    spec = replace(spec, unet={**spec.unet, "num_labels": Labels(spec.labels).count})
    with _NoInitialValues():
        denoiser = Denoiser(UNet1d(**spec.unet), spec.sigma_data)
    denoiser.net.load_state_dict(state, assign=True)
    return InstrumentModel(spec, mean, std, denoiser, model.codec).requires_grad_(False)


class _NoInitialValues(TorchFunctionMode):
    """Modules built inside are not initialised. (The meta device does it, but imports torch's compiler: a second.)"""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def _build(spec: InstrumentSpec, tensors: dict[str, Tensor]) -> InstrumentModel:
    spec = replace(spec, unet=dict(spec.unet), labels=tuple(spec.labels))
    with _NoInitialValues():
        denoiser = Denoiser(UNet1d(**spec.unet), spec.sigma_data)
    weights = {
        key[len("net.") :]: value.float()
        for key, value in tensors.items()
        if key.startswith("net.")
    }
    denoiser.net.load_state_dict(weights, assign=True)
    return InstrumentModel(spec, tensors["mean"], tensors["std"], denoiser)


def pitch_range(spec: InstrumentSpec) -> tuple[int, int] | None:
    """Lowest and highest MIDI pitch of a model's instrument: its own, else the one known for the name; or None."""
    if spec.pitch_range is not None:
        low, high = spec.pitch_range
        return low, high
    return PITCH_RANGES.get(spec.name.replace("_", " "))
