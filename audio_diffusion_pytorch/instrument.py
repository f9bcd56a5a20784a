"""One instrument's model as a bridge needs it: denoiser, latent statistics, codec name; load and save."""

import json
import multiprocessing
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audio_diffusion_pytorch.codec import ASSETS, Codec, load_codec
from audio_diffusion_pytorch.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError, replacing
from audio_diffusion_pytorch.labels import TAKES, Labels, statistics_of
from audio_diffusion_pytorch.transpose import PITCH_RANGES
from audio_diffusion_pytorch.unet import UNet1d, choose_labels, fold_label

ALL = "all"  # the shipped model of all instruments
# The averaged weights look back over about 1000 steps (`ema_beta` 0.999 of the small models): before, they are partly
# the initial ones. The models that ship took 4000 and more.
FEW_STEPS = 1000
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

        tensors = {key: value.half().contiguous().cpu() for key, value in self.denoiser.net.state_dict().items()}
        tensors = {f"net.{key}": value for key, value in tensors.items()}
        tensors |= {"mean": self.mean.cpu(), "std": self.std.cpu()}
        header = {"format": FORMAT, "spec": json.dumps(asdict(self.spec)), **(metadata or {})}
        with replacing(path) as temporary:
            save_file(tensors, temporary, header)


def require_one_codec(source: InstrumentModel, target: InstrumentModel) -> None:
    """
    Raises:
        InputError: the models were trained on different codecs.
    """
    if source.spec.codec != target.spec.codec:
        raise InputError(
            f"{source.spec.name} was trained on codec {source.spec.codec!r}, {target.spec.name} on "
            f"{target.spec.codec!r}: a bridge needs two models of one codec"
        )


def shared_codec(source: InstrumentModel, target: InstrumentModel, **options: Any) -> Codec:
    """The codec of two models: the one that came with either, else, or with `options` for it, the one that they name.

    Raises:
        InputError: they name different codecs, or each brought one and the weights differ, or it cannot be loaded.
    """
    require_one_codec(source, target)
    own = [model.codec for model in (source, target) if model.codec is not None]
    if options or not own:
        return load_codec(source.spec.codec, **options)
    first, last = own[0].state_dict(), own[-1].state_dict()
    if first.keys() != last.keys() or not all(
        torch.equal(value.cpu(), last[key].cpu()) for key, value in first.items()
    ):
        raise InputError(f"{source.spec.name} and {target.spec.name} came with different codecs: a bridge needs one")
    return own[0]


def shipped_instruments() -> list[str]:
    """Names of the instruments whose models ship with the package."""
    return sorted(path.stem for path in (ASSETS / "instruments").glob("*.safetensors") if path.stem != ALL)


def load_instrument(
    source: InstrumentModel | str | Path,
    device: str | torch.device = "cpu",
    *,
    mean_path: str | Path | None = None,
    std_path: str | Path | None = None,
    weights: Literal["ema", "raw"] = "ema",
    whole: bool = False,
    **original: Any,
) -> InstrumentModel:
    """Load a model by a shipped name, or from an exported .safetensors, a training checkpoint, or a run folder.

    A model that is loaded already comes back as it is. Of a model of several instruments, `MODEL:NAME` gives the one
    named: `all:flute`.

    A run folder gives its export, or where training has not ended its last checkpoint; checkpoints give the averaged
    (EMA) weights. Checkpoints of the original system are known by their keys.

    Args:
        mean_path, std_path: files with the latents' statistics, for a checkpoint of the original system.
        weights: "raw" for the weights that the averaged ones follow, likewise.
        whole: a model of several instruments as it is, all of them.
        original: `unet` and fields of the spec, likewise; see `original.load_original`.

    Raises:
        InputError: nothing there, damaged, or another kind of file; the message says which.
    """
    if isinstance(source, InstrumentModel):
        return source.to(device)
    name, label = _split_label(source)
    path = Path(name)
    if name.lower() in (*shipped_instruments(), ALL) and not path.exists():
        name = name.lower()
    shipped = ASSETS / "instruments" / f"{name}.safetensors"
    original |= {"mean_path": mean_path, "std_path": std_path, "weights": None if weights == "ema" else weights}
    original = {key: value for key, value in original.items() if value is not None}
    if path.suffix == ".ckpt" and not path.is_dir():
        model = _load_checkpoint(path, original)
    elif original:
        raise InputError(
            f"{', '.join(original)} go with a checkpoint of the original system (.ckpt), not with {source}"
        )
    elif name in (*shipped_instruments(), ALL) and shipped.is_file() and not path.is_file():
        model = _load_safetensors(shipped)
    elif path.is_dir():
        model = _load_run_folder(path)
    elif path.suffix == ".safetensors":
        model = _load_safetensors(path)
    else:
        raise InputError(_unknown(str(source)))
    if not whole:
        _warn_of_few_steps(model, source)
    if not whole or label is not None:
        model = _choose(model, label, source)
    return model.eval().requires_grad_(False).to(device)


def _unknown(source: str) -> str:
    """What to say of a name that is no model: the nearest one, and all that ship."""
    shipped, name = shipped_instruments(), _plain(source)
    near = get_close_matches(name, [*shipped, *(known for known in PITCH_RANGES if known not in shipped)], 1)
    meant = near[0] if near and near[0] in shipped else f"{ALL}:{near[0]}" if near else ""
    return (
        f"no instrument {source!r}: {f'did you mean {meant}? ' if meant else ''}Those that ship are "
        f"{', '.join(shipped) or 'none'}, and {ALL}:NAME, NAME one of {', '.join(PITCH_RANGES)}; or give the path of "
        "a .safetensors file, of a .ckpt file, or of a run folder"
    )


def _plain(name: str) -> str:
    """`Double_Bass` -> `double bass`."""
    return re.sub(r"[\s_-]+", " ", name.strip().lower())


def _warn_of_few_steps(model: InstrumentModel, source: str | Path) -> None:
    steps = model.spec.steps
    if steps is not None and steps < FEW_STEPS and multiprocessing.parent_process() is None:  # once, not in each worker
        warnings.warn(
            f"{source} was trained for {steps} {'step' if steps == 1 else 'steps'} only: do not expect it to sound "
            f"like its instrument before {FEW_STEPS}, better several thousand",
            stacklevel=3,
        )


def _split_label(source: str | Path) -> tuple[str, str | None]:
    """`MODEL:NAME` -> (MODEL, NAME); a path that is there is no such thing."""
    name, colon, label = str(source).rpartition(":")
    if not colon or Path(source).exists() or "/" in label or "\\" in label:
        return str(source), None
    return name, label


def _choose(model: InstrumentModel, label: str | None, source: str | Path) -> InstrumentModel:
    """The model of one of the instruments that `model` knows, or of one take."""
    names, several = model.spec.labels, Labels(model.spec.labels).instruments
    if label is None and not several:
        return model
    if not names:
        raise InputError(f"{source}: the model is of one instrument only, {model.spec.name}")
    known = several or TAKES
    if label is not None and label not in known:
        label = _plain(label)
    if label not in known:
        example = f"{source if label is None else _split_label(source)[0]}:{known[0]}"
        raise InputError(f"{source}: the model knows {', '.join(known)}: say which, for example {example}")
    return one_of(model, label) if several else take_of(model, label)


def one_of(model: InstrumentModel, instrument: str) -> InstrumentModel:
    """The model of one of the instruments that `model` tells apart, sharing all but the labels' tensors."""
    spec, labels = model.spec, Labels(model.spec.labels)
    number = labels.instruments.index(instrument)
    spec = replace(spec, name=instrument, labels=TAKES if labels.takes else (), noise=spec.noise.get(instrument, {}))
    state, mean, std = model.denoiser.net.state_dict(), model.mean[number], model.std[number]
    if not labels.takes:
        return _relabelled(model, spec, fold_label(state, number), mean, std)
    rows = [labels.index(number, varied) for varied in (False, True)]
    return _relabelled(model, spec, choose_labels(state, rows), mean, std)


def take_of(model: InstrumentModel, take: str) -> InstrumentModel:
    """The model of one of `TAKES`, sharing all but one of its tensors; a model that does not tell them apart itself."""
    if model.spec.labels != TAKES:
        return model
    state = fold_label(model.denoiser.net.state_dict(), TAKES.index(take))
    return _relabelled(model, replace(model.spec, labels=()), state, model.mean, model.std).eval()


def _relabelled(
    model: InstrumentModel, spec: InstrumentSpec, state: dict[str, Tensor], mean: Tensor, std: Tensor
) -> InstrumentModel:
    spec = replace(spec, unet={**spec.unet, "num_labels": Labels(spec.labels).count})
    with _NoInitialValues():
        denoiser = Denoiser(UNet1d(**spec.unet), spec.sigma_data)
    denoiser.net.load_state_dict(state, assign=True)
    return InstrumentModel(spec, mean, std, denoiser, model.codec).requires_grad_(False)


def _load_run_folder(folder: Path) -> InstrumentModel:
    for candidate in (
        *sorted(folder.glob("*.safetensors")),
        *(folder / "checkpoints" / f"{n}.ckpt" for n in ("last", "best")),
    ):
        if candidate.is_file():
            return _load_safetensors(candidate) if candidate.suffix == ".safetensors" else _load_checkpoint(candidate)
    raise InputError(f"no model in the folder {folder}: neither a .safetensors file nor checkpoints/last.ckpt")


def _load_safetensors(path: Path) -> InstrumentModel:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such model file: {path}")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(f"{path} is no instrument model (its metadata lacks format={FORMAT})")
            spec = InstrumentSpec(**json.loads(header["spec"]))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _build(spec, tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {path} as an instrument model: {error}") from error


def _load_checkpoint(path: Path, original: Mapping[str, Any] | None = None) -> InstrumentModel:
    from audio_diffusion_pytorch.original import is_original, load_original, read_checkpoint

    content = read_checkpoint(path)
    if is_original(content):
        return load_original(path, content=content, **(original or {}))
    if original:
        raise InputError(f"{', '.join(original)} go with a checkpoint of the original system, {path} is none")
    try:
        spec = InstrumentSpec(**content["instrument"])
        state = content["state_dict"]
        prefix = "ema.model.net."
        # copies: what was read is mapped to the file
        tensors = {"net." + key[len(prefix) :]: v.clone() for key, v in state.items() if key.startswith(prefix)}
        return _build(spec, tensors | {"mean": state["mean"].clone(), "std": state["std"].clone()})
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of an instrument's training: {error!r}") from error


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
    weights = {key[len("net.") :]: value.float() for key, value in tensors.items() if key.startswith("net.")}
    denoiser.net.load_state_dict(weights, assign=True)
    return InstrumentModel(spec, tensors["mean"], tensors["std"], denoiser)
