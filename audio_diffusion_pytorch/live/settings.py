"""Settings of the command `live`, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import (
    check_number,
    check_switch,
    check_text,
    check_transpose,
    wrong,
)

AUTO = "auto"
PIPE = "-"
PIPE_RATE = 48000  # Hz
BRIDGE_KEYS = ("sigma", "quality", "num_steps", "handoff")
ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")
_MISSING = "???"  # OmegaConf's mark of a value that the user must give


@dataclass(frozen=True)
class LiveSettings:
    """Settings of the command, see `configs/live.yaml`.

    Args:
        source: name or file of a model; "auto": chosen on the first second of sound.
        target: name or file of a model.
        input: number or part of the name of a microphone, a file, "-" for standard input, or None
            for the default microphone.
        output: likewise a loudspeaker or a file.
        pace: read a file in real time.
        rate: sample rate in Hz; None: that of the file or the device.
        block: samples of a block.
        latency: largest delay from sound in to sound out in seconds.
        wet: share of the bridged sound.
        transpose: octaves, or "auto".
        record_input: file that receives the input.
        record_output: file that receives the output.
        seconds: length of the session; None: to the end of the input.
        bridge: arguments of `Bridge`.
        device: torch device of the networks.
    """

    source: str
    target: str
    input: str | int | None = None
    output: str | int | None = None
    pace: bool = True
    rate: int | None = None
    block: int = 512
    latency: float = 0.95
    wet: float = 1.0
    transpose: int | str = AUTO
    record_input: Path | None = None
    record_output: Path | None = None
    seconds: float | None = None
    bridge: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    @classmethod
    def from_arguments(cls, values: Mapping[str, Any]) -> LiveSettings:
        """Check the arguments of `live.py`.

        Args:
            values: argument -> value, as in `configs/live.yaml`.

        Raises:
            InputError: an argument is missing or wrong.
        """
        missing = [f"{key}=..." for key in ("source", "target") if values[key] == _MISSING]
        if missing:
            raise InputError(f"missing: {' '.join(missing)}; see {typed('live')} --help")
        for key in ("source", "target", "device"):
            check_text(key, values[key])
        for key in ("input", "output"):
            if not isinstance(values[key], int) or isinstance(values[key], bool):
                check_text(key, values[key], allowed=(None,))
        _check_numbers(values)
        return cls(
            **{key: values[key] for key in ("source", "target", "input", "output", "pace")},
            **{key: values[key] for key in ("rate", "block", "latency", "wet", "transpose")},
            record_input=_recording("record_input", values["record_input"]),
            record_output=_recording("record_output", values["record_output"]),
            seconds=values["seconds"],
            bridge={key: values[key] for key in BRIDGE_KEYS},
            device=values["device"],
        )

    def check_files(self) -> None:
        """Check the files, before models are loaded.

        Raises:
            InputError: the input is missing, or two settings name one file.
        """
        path = self.input_file
        if path is not None and not path.is_file():
            raise InputError(f"input={path}: no such file; devices=true lists microphones")
        named = [path, self.output_file, self.record_input, self.record_output]
        places = [p.absolute() for p in named if p is not None]
        if len(set(places)) < len(places):
            raise InputError(
                "input, output, record_input and record_output must be different files"
            )

    @property
    def input_file(self) -> Path | None:
        """File of the input; None for a device or a pipe."""
        return _file(self.input) if self.input != PIPE else None

    @property
    def output_file(self) -> Path | None:
        """File of the output; None for a device."""
        return _file(self.output)

    @property
    def from_microphone(self) -> bool:
        """Whether the input is an audio device."""
        return self.input != PIPE and self.input_file is None

    @property
    def to_loudspeaker(self) -> bool:
        """Whether the output is an audio device."""
        return self.output_file is None


def _check_numbers(values: Mapping[str, Any]) -> None:
    check_switch("pace", values["pace"])
    check_number("rate", values["rate"], whole=True, least=8000, most=192000, allowed=(None,))
    check_number("block", values["block"], whole=True, least=16, most=16384)
    check_number("latency", values["latency"], above=0, most=60)
    check_number("wet", values["wet"], least=0, most=1)
    check_number("seconds", values["seconds"], above=0, allowed=(None,))
    check_transpose(values["transpose"])


def _recording(key: str, value: Any) -> Path | None:
    check_text(key, value, allowed=(None,))
    if value is not None and Path(value).suffix.lower() not in ENDINGS:
        raise wrong(key, value, f"a file that ends in {', '.join(ENDINGS)}")
    return None if value is None else Path(value)


def _file(value: str | int | None) -> Path | None:
    """Return the path of a setting that names a file, or None for a device."""
    if not isinstance(value, str):
        return None
    path = Path(value)
    names_file = path.exists() or path.suffix.lower() in ENDINGS or len(path.parts) > 1
    return path if names_file else None
