"""Read `configs/evaluate.yaml` and check every setting of an evaluation, without torch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import shipped_clips
from audio_diffusion_pytorch.utils.settings import (
    as_typed,
    check_choice,
    check_number,
    check_single,
    check_switch,
    check_text,
    check_transpose,
    wrong,
)

if TYPE_CHECKING:
    import torch

Models = str | Path | Mapping[str, str] | None
REFERENCES = ("identity", "codec", "warm", "melody", "truth")  # values of `references=`
# Names of the reference points in tables and files.
IDENTITY = "identity"
MOVED = "moved input"
CODEC = "codec only"
WARM = "warm start"
MELODY = "melody alone"
TRUTH = "true performance"


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation; `configs/evaluate.yaml` explains each.

    Attributes:
        bridges: name of each bridge in the tables -> its models; empty if `outputs` are scored.
        sigmas: noise levels of the hand-off; empty for each pair's default.
        system: name of the finished `outputs` in the tables.
        plugins: modules that workers import first.
    """

    pairs: str | Sequence[str]
    data: Path
    output: Path
    outputs: Path | None = None
    system: str = "outputs"
    bridges: Mapping[str, Models] = field(default_factory=dict)
    references: Sequence[str] = REFERENCES
    sigmas: Sequence[float] = ()
    quality: str = "normal"
    num_steps: int | None = None
    solver: str | None = None
    handoff: str = "auto"
    melody: bool | str = "auto"
    melody_guidance: float | str = "auto"
    vibrato: bool = True
    transpose: str | int = "auto"
    clips: int = 40
    seconds: float = 12.0
    cycle_clips: int = 4
    batch_size: int = 8
    seed: int = 0
    device: "str | torch.device" = "cpu"
    codec: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    tracker: str = "basic_pitch"
    plugins: Sequence[str] = ()
    engine: Engine = field(default_factory=Engine)

    @property
    def sweeps_sigma(self) -> bool:
        """Whether several noise levels are compared."""
        return len(self.sigmas) > 1

    @property
    def roots(self) -> list[Path]:
        """Folders to which the paths in the results are relative."""
        return [self.data] if self.outputs is None else [self.data, self.outputs]


def read_settings(values: Mapping[str, Any], device: "str | torch.device") -> EvaluationSettings:
    """Convert checked values of the configuration.

    Args:
        values: the configuration as plain containers, after `check_settings`.
        device: device that computes.

    Returns:
        The settings.
    """
    finished = values["outputs"] is not None
    system = _system_name(values)
    sigma = values["sigma"]
    compared = {str(name): models for name, models in (values["compare"] or {}).items()}
    return EvaluationSettings(
        pairs=values["pairs"],
        data=Path(values["data"] or shipped_clips()),
        output=Path(values["output"]),
        outputs=Path(values["outputs"]) if finished else None,
        system=system,
        bridges={} if finished else {system: values["models"], **compared},
        references=_as_list(values["references"]),
        sigmas=[] if sigma is None else [float(level) for level in _as_list(sigma)],
        quality=values["quality"],
        num_steps=values["num_steps"],
        solver=values["solver"],
        handoff=values["handoff"],
        melody=values["melody"],
        melody_guidance=values["melody_guidance"],
        vibrato=values["vibrato"],
        transpose=values["transpose"],
        clips=values["clips"] or (2 if values["data"] is None else 40),
        seconds=float(values["seconds"]),
        cycle_clips=values["cycle_clips"],
        batch_size=values["batch_size"],
        seed=values["seed"],
        device=device,
        codec={key: value for key, value in values["codec"].items() if value is not None},
        metrics=_as_list(values["metrics"]),
        tracker=values["tracker"],
        plugins=values["plugins"],
        engine=Engine.from_arguments(values),
    )


def check_settings(values: Mapping[str, Any]) -> None:
    """Check every setting that needs no model and no recording.

    Args:
        values: the configuration as plain containers.

    Raises:
        InputError: a setting is wrong.
    """
    _check_numbers(values)
    for key in ("targets", "vibrato"):
        check_switch(key, values[key])
    check_switch("melody", values["melody"], ("auto",))
    _check_texts(values)
    Engine.from_arguments(values)
    _check_models(values)
    for name in _as_list(values["references"]):
        check_choice("references", name, REFERENCES)
    if values["outputs"] is not None and (values["models"] is not None or values["compare"]):
        raise InputError(
            "outputs= scores finished files: leave out models= and compare=, or run twice"
        )
    _check_system_names(_system_name(values), map(str, values["compare"] or ()))
    _check_folders(values)


def _system_name(values: Mapping[str, Any]) -> str:
    return str(values["system"] or ("outputs" if values["outputs"] else "bridge"))


def _check_numbers(values: Mapping[str, Any]) -> None:
    for key in ("num_steps", "clips"):
        check_number(key, values[key], whole=True, least=1, allowed=(None,))
    check_number("batch_size", values["batch_size"], whole=True, least=1)
    check_number("seconds", values["seconds"], above=0)
    check_number("melody_guidance", values["melody_guidance"], least=0, allowed=("auto",))
    for key in ("cycle_clips", "report_clips", "seed"):
        check_number(key, values[key], whole=True, least=0)
    check_transpose(values["transpose"])
    sigmas = [] if values["sigma"] is None else _as_list(values["sigma"])
    for sigma in sigmas:
        check_number("sigma", sigma, above=0)
    if len({f"{sigma:g}" for sigma in sigmas}) < len(sigmas):
        raise InputError(
            f"sigma={as_typed(sigmas)}: two levels are equal in the six digits that the tables "
            "show: remove one"
        )


def _check_texts(values: Mapping[str, Any]) -> None:
    for key in ("output", "embedder", "quality", "handoff", "tracker"):
        check_text(key, values[key])
    for key in ("data", "outputs", "classifier", "solver"):
        check_text(key, values[key], (None,))
    check_single("system", values["system"])
    for name in _as_list(values["metrics"]):
        check_text("metrics", name)


def _check_models(values: Mapping[str, Any]) -> None:
    compared = values["compare"]
    if not isinstance(compared, dict | None):
        raise wrong("compare", compared, "{NAME: models, ...}", (None,))
    if not isinstance(values["codec"], dict):
        raise wrong("codec", values["codec"], "{weights: FILE} or {repository: NAME}")
    named = {f"compare.{name}": models for name, models in (compared or {}).items()}
    for key, models in {"models": values["models"], **named}.items():
        if isinstance(models, dict):
            for instrument, model in models.items():
                check_text(f"{key}.{instrument}", model)
        else:
            check_text(key, models, (None,))


def _check_system_names(system: str, compared: Iterable[str]) -> None:
    """Refuse equal names: two systems of one name would share a row of the tables."""
    references = {IDENTITY, MOVED, CODEC, WARM, MELODY, TRUTH}
    if system in references:
        raise InputError(f"system={system} is the name of a reference point: choose another name")
    repeated = references.union([system]).intersection(compared)
    if repeated:
        raise InputError(
            f"compare: {min(repeated)} is the name of another system in the tables: "
            "choose another name, or name the first system with system=NAME"
        )


def _check_folders(values: Mapping[str, Any]) -> None:
    for key in ("data", "outputs"):
        if values[key] is not None and not Path(values[key]).is_dir():
            raise wrong(key, values[key], "a folder that exists")
    output = Path(values["output"])
    folder = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"cannot write to output={output}: {folder} is not a writable folder")


def _as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]
