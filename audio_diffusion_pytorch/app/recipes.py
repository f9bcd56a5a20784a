"""Arguments of a transfer, and the command line and the Python lines that repeat the transfer."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.paths import CONFIGS

FORMATS = ("wav", "flac", "mp3")


@dataclass(frozen=True)
class Request:
    """One transfer as a visitor asks for it.

    Args:
        source: model of the recording's instrument, or "auto".
        target: model of the output's instrument.
        sigma: hand-off noise level; None: the default of the two models.
        quality: "instant", "draft", "normal" or "high".
        octaves: octaves by which the recording moves first, or "auto".
    """

    source: str
    target: str
    sigma: float | None = None
    quality: str = "normal"
    octaves: int | Literal["auto"] = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of `transfer.py` that differ from their defaults."""
        given = {"sigma": self.sigma, "quality": self.quality, "transpose": self.octaves}
        return {key: value for key, value in given.items() if value != defaults()[key]}

    def arguments(self, source: str, output: str) -> dict[str, Any]:
        """Return all arguments of `transfer.py`.

        Args:
            source: file of the recording.
            output: file to write.
        """
        named = {"source": self.source, "target": self.target, "input": source, "output": output}
        return {**defaults(), **named, **self.settings}


@lru_cache
def _config(command: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    config = OmegaConf.load(CONFIGS / f"{command}.yaml")
    for key in ("defaults", "hydra"):
        config.pop(key)
    values: Any = OmegaConf.to_container(config)
    return values


def defaults(command: str = "transfer") -> dict[str, Any]:
    """Return the settings of a command with their default values."""
    return dict(_config(command))


def output_name(stem: str, request: Request, several: bool = False) -> str:
    """Return the name of an output without its ending: `take_as_violin`, `take_as_violin_sigma4`.

    Args:
        stem: safe stem of the recording's name.
        request: the transfer.
        several: whether outputs differ in sigma.
    """
    target = request.target.rstrip("/").replace("\\", "/").split("/")[-1]
    target = target.removeprefix("all:").removesuffix(".safetensors").removesuffix(".ckpt")
    name = f"{stem}_as_{target.replace(' ', '_').replace(':', '_')}"
    return f"{name}_sigma{request.sigma:g}" if several else name


def command_line(request: Request, source: str, output: str) -> str:
    """Return the command line that writes the same file.

    Args:
        request: the transfer.
        source: name of the recording.
        output: name of the output.
    """
    values = {"source": request.source, "target": request.target}
    values |= {"input": source, "output": output, **request.settings}
    parts = [
        f"{key}={f'{value:g}' if isinstance(value, float) else value}"
        for key, value in values.items()
    ]
    return f"{typed('transfer')} {shlex.join(parts)}"


def python_lines(request: Request, source: str, output: str) -> str:
    """Return the Python lines that write the same sound, without the tags of the recording.

    Args:
        request: the transfer, with a named source.
        source: name of the recording.
        output: name of the output.
    """
    options = {key: value for key, value in request.settings.items() if key != "transpose"}
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    octaves = "" if request.octaves == "auto" else f", octaves={request.octaves}"
    return f"""\
from audio_diffusion_pytorch import Bridge
from audio_diffusion_pytorch.audio import AudioReader, write

bridge = Bridge({request.source!r}, {request.target!r}{given})
with AudioReader({source!r}) as file:
    wav = bridge(file.read(), file.info.sample_rate{octaves})
write({output!r}, wav, file.info.sample_rate, file.info.subtype)
"""
