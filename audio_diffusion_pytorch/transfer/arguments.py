"""Check the arguments of `transfer.py` before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import (
    check_choice,
    check_number,
    check_single,
    check_switch,
    check_text,
    check_transpose,
    wrong,
)

if TYPE_CHECKING:
    from audio_diffusion_pytorch.transfer.jobs import Job

PICTURES = (".png", ".pdf", ".svg")
REQUIRED = ("source", "target", "input", "output")
SWITCHES = ("overwrite", "report", "dry_run", "compile", "listen", "vibrato")
NOT_SINGLE = ("input", "sigma", "codec", "plugins", "ray", "slurm")  # lists or mappings
MISSING = "???"  # OmegaConf's mark of a value that the user must give


def check_arguments(values: Mapping[str, Any]) -> None:
    """Check the kinds and ranges of all arguments.

    Args:
        values: argument -> value, as in `configs/transfer.yaml`.

    Raises:
        InputError: an argument is missing or wrong.
    """
    missing = [f"{key}=..." for key in REQUIRED if values[key] == MISSING]
    if missing:
        raise InputError(f"missing: {' '.join(missing)}; see {typed('transfer')} --help")
    if not isinstance(values["codec"], Mapping):
        raise wrong("codec", values["codec"], "given as codec.weights or codec.repository")
    for key, value in values.items():
        if key not in NOT_SINGLE:
            check_single(key, value)
    for key in SWITCHES:
        check_switch(key, values[key])
    _check_texts(values)
    _check_numbers(values)
    check_choice("channels", values["channels"], ("each", "mid"))
    check_switch("melody", values["melody"], ("auto",))
    Engine.from_arguments(values)


def check_plot(plot: str | None, jobs: Sequence[Job]) -> None:
    """Check that a picture can be drawn for the jobs.

    Args:
        plot: file of the picture; None: no picture.
        jobs: jobs of the command line.

    Raises:
        InputError: there are several jobs, or the file has an unknown ending or cannot be written.
    """
    if plot is None:
        return
    from audio_diffusion_pytorch.transfer.jobs import check_output

    if len(jobs) > 1:
        raise InputError("plot is for one file: use report=true to draw a picture for each file")
    if Path(plot).suffix.lower() not in PICTURES:
        raise InputError(f"plot={plot} must end in {', '.join(PICTURES)}")
    check_output(Path(plot), jobs[0].input, "plot")


def _check_texts(values: Mapping[str, Any]) -> None:
    for key in ("source", "target", "output", "device"):
        check_text(key, values[key])
    check_text("plot", values["plot"], allowed=(None,))
    inputs = values["input"]
    if isinstance(inputs, Mapping) or inputs == []:
        raise wrong("input", inputs, "a file, a folder, a glob or a list of these")
    for one in inputs if isinstance(inputs, list) else [inputs]:
        check_text("input", one)


def _check_numbers(values: Mapping[str, Any]) -> None:
    sigma = values["sigma"]
    if isinstance(sigma, Mapping) or sigma == []:
        raise wrong("sigma", sigma, "a number above 0 or a list of such numbers")
    if isinstance(sigma, list):
        for one in sigma:
            check_number("sigma", one, above=0)
    else:
        check_number("sigma", sigma, above=0, allowed=(None,))
    check_number("batch_size", values["batch_size"], whole=True, least=1)
    check_number("num_steps", values["num_steps"], whole=True, least=2, allowed=(None,))
    check_number("melody_guidance", values["melody_guidance"], least=0, allowed=("auto",))
    check_transpose(values["transpose"])
