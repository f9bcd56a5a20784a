"""Models that the page offers, each with a card: shipped ones, run folders, exported models."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from audio_diffusion_pytorch.app.runs import Run, find_runs
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.paths import ASSETS

Kind = Literal["shipped", "shipped, one of thirteen", "exported file", "run folder", "in training"]

SHIPPED = ("violin", "flute", "trumpet", "bassoon", "cello")  # in the order of the page
ALL = "all"
MOST = 200  # own models in the page
_DEPTH = 3  # folders below the given one
_FRESH = 5.0  # seconds for which a list of models is valid
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_DATA = (
    "Bach chorales, played by two SoundFonts and by recorded notes of the Philharmonia Orchestra; "
    "studies with these notes, and short phrases of the orchestra's players (docs/models.md)"
)
_LIMITS = (
    "One voice at a time: chords and mixtures give wrong notes. A note that is rare for the "
    "instrument may come out an octave off."
)
_STEPS = {  # docs/models.md
    "violin": 13000,
    "flute": 24800,
    "trumpet": 23000,
    "bassoon": 11300,
    "cello": 9800,
    ALL: 32000,
}
_SCORES = (  # docs/results.md
    "On 20 pairs of the five instruments: 99.8 % of the outputs sound like the target, melody "
    "distance (DPD) 0.000, right notes (RCA) 98.5 %. From real recordings: 93.8 %"
)
_SCORES_ALL = (
    "Weaker than the five single models: on their 20 pairs, 93 % of the outputs sound like the "
    "target, right notes (RCA) 97.8 %. From real recordings: 78 %"
)


@dataclass(frozen=True)
class Model:
    """A model with its card.

    Args:
        value: name for `source=` and `target=` of the commands.
        title: name for display.
        kind: origin of the model.
        card: rows of the card, heading -> text.
    """

    value: str
    title: str
    kind: Kind
    card: Mapping[str, str] = field(default_factory=dict)


class Catalog:
    """List the models of the page.

    Args:
        folder: folder that is searched for run folders and exported models.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._shipped: list[Model] = []
        self._own: list[Model] = []
        self._time = -_FRESH

    @property
    def shipped(self) -> list[Model]:
        """The single models."""
        if not self._shipped:
            self._shipped = list(_shipped_models())
        return [model for model in self._shipped if model.kind == "shipped"]

    @property
    def of_thirteen(self) -> list[Model]:
        """Instruments of the model of thirteen that have no single model."""
        names = {model.value for model in self.shipped}
        return [
            model
            for model in self._shipped
            if model.kind != "shipped" and model.title.lower() not in names
        ]

    @property
    def own(self) -> list[Model]:
        """Run folders and exported models, as they are now."""
        if time.monotonic() - self._time >= _FRESH:
            self._own = list(_own_models(self.folder))[:MOST]
            self._time = time.monotonic()
        return self._own

    @property
    def models(self) -> list[Model]:
        """All models."""
        return [*self.shipped, *self.of_thirteen, *self.own]

    def choices(self) -> list[tuple[str, str]]:
        """Return title and value of every model, for a list of choices."""
        return [(model.title, model.value) for model in self.models]

    def check(self, value: str) -> None:
        """Refuse files that are not in the list; unknown names are left to `load_instrument`.

        Args:
            value: model as a visitor or a script names it; not trusted.

        Raises:
            InputError: the value is a path of another file.
        """
        if value in {model.value for model in self.models} or value == "auto":
            return
        name = value.rpartition(":")[0] or value
        if name != os.path.basename(name) or Path(name).suffix or Path(name).exists():
            raise InputError(
                f"{value} is not in the list of models: choose a shipped model, or a model below "
                f"{self.folder}"
            )


def _shipped_models() -> Iterator[Model]:
    folder = ASSETS / "instruments"
    found = sorted(path.stem for path in folder.glob("*.safetensors") if path.stem != ALL)
    for name in sorted(found, key=lambda name: (name not in SHIPPED, _place(name))):
        spec = read_spec(folder / f"{name}.safetensors")
        fixed = {"Trained on": _DATA, "Scores": _SCORES, "Limits": _LIMITS}
        rows = {**_rows({**spec, "steps": _STEPS.get(name)}), **fixed}
        yield Model(name, name.capitalize(), "shipped", rows)
    path = folder / f"{ALL}.safetensors"
    if path.is_file():
        spec = read_spec(path)
        fixed = {"Trained on": _DATA, "Scores": _SCORES_ALL, "Limits": _LIMITS}
        for name in PITCH_RANGES:
            rows = {**_rows({**spec, "name": name, "steps": _STEPS[ALL]}), **fixed}
            yield Model(f"{ALL}:{name}", name.capitalize(), "shipped, one of thirteen", rows)


def _place(name: str) -> int:
    return SHIPPED.index(name) if name in SHIPPED else len(SHIPPED)


def _own_models(folder: Path) -> Iterator[Model]:
    """Yield run folders with weights, then exported files outside of run folders."""
    runs = [run for run in find_runs(folder) if run.has_weights]
    for run in runs:
        kind: Kind = "in training" if run.is_training else "run folder"
        yield Model(str(run.path), _title(run.path, folder), kind, _rows_of_run(run))
    folders = {run.path for run in runs}
    for path in _exports(folder):
        if path.parent not in folders:
            rows = {**_rows(read_spec(path)), "File": str(path)}
            yield Model(str(path), _title(path, folder), "exported file", rows)


def _title(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _exports(folder: Path) -> Iterator[Path]:
    """Yield the instrument models below a folder."""
    for depth in range(_DEPTH):
        for path in sorted(folder.glob("*/" * depth + "*.safetensors")):
            if path.is_file() and read_spec(path):
                yield path


def read_spec(path: Path) -> dict[str, Any]:
    """Read the metadata of an exported model without torch.

    Args:
        path: .safetensors file.

    Returns:
        Fields of `InstrumentSpec`; empty for other files.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
        spec = json.loads(header["spec"]) if ".instrument." in header.get("format", "") else {}
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}
    return spec if isinstance(spec, dict) else {}


def _rows(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of a card from a model's metadata."""
    rows = {}
    if limits := spec.get("pitch_range") or PITCH_RANGES.get(spec.get("name", "")):
        rows["Range"] = f"{note_name(limits[0])} to {note_name(limits[1])}"
    if steps := spec.get("steps"):
        rows["Training steps"] = f"{steps:,}"
    if sigma := spec.get("handoff_sigma"):
        others = spec.get("handoff_sigmas") or {}
        named = ", ".join(f"from {name} {level:g}" for name, level in others.items())
        rows["Usual amount of change (sigma)"] = f"{sigma:g}{f' ({named})' if named else ''}"
    if highest := spec.get("sigma_max"):
        rows["Largest sigma"] = f"{highest:g}"
    if codec := spec.get("codec"):
        rows["Codec"] = Path(str(codec)).name
    return rows


def _rows_of_run(run: Run) -> dict[str, str]:
    rows = {"Trained on": run.data, "Experiment": run.experiment}
    exports = sorted(run.path.glob("*.safetensors"))
    if exports:
        rows |= _rows(read_spec(exports[0]))
        rows["Weights"] = f"export of {time.strftime('%d %b %H:%M', time.localtime(run.saved))}"
    else:
        rows["Weights"] = (
            f"newest checkpoint, {time.strftime('%d %b %H:%M', time.localtime(run.saved))}"
        )
    rows["Folder"] = str(run.path)
    return {key: value for key, value in rows.items() if value}


def note_name(pitch: float) -> str:
    """Return the name of a MIDI pitch: 69 -> A4."""
    octave, key = divmod(round(pitch), 12)
    return f"{_NOTES[key]}{octave - 1}"
