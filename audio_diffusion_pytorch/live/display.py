"""Show a live session on a terminal: levels, delay, load and dropouts."""

from __future__ import annotations

import math
import sys
from typing import TextIO

from audio_diffusion_pytorch.live.engine import EngineState

_WIDTH = 16  # characters of a level meter
_SOFTEST = -60.0  # dB at the left end of a level meter


class Display:
    """Write one line that is replaced, on a terminal only; messages get lines of their own.

    Args:
        delay: delay from sound in to sound out in seconds.
        stream: where to write; None: standard error.
    """

    def __init__(self, delay: float, stream: TextIO | None = None):
        self._delay = delay
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()

    def show(self, state: EngineState) -> None:
        """Replace the line."""
        if self._shown:
            self._write(f"\r{status_line(state, self._delay)}")

    def tell(self, message: str) -> None:
        """Write a message on a line of its own."""
        self._write(("\r\033[K" if self._shown else "") + f"{message}\n")

    def close(self) -> None:
        """End the line."""
        if self._shown:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def status_line(state: EngineState, delay: float) -> str:
    """Return the line of a state: levels, delay, load and dropouts."""
    return (
        f"{state.seconds:6.0f} s  in {meter(state.level_in)}  out {meter(state.level_out)}  "
        f"delay {delay:.2f} s  load {state.load:4.0%}  dropouts {state.dropouts}"
    )


def meter(level: float) -> str:
    """Draw an RMS level as a bar from -60 to 0 dB."""
    decibels = 20 * math.log10(max(level, 1e-6))
    filled = round(_WIDTH * min(1.0, max(0.0, 1 - decibels / _SOFTEST)))
    return f"[{'#' * filled}{'-' * (_WIDTH - filled)}]"
