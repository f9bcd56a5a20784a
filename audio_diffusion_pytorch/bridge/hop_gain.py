"""Gain of a stream's input: it follows the level of the input without a jump."""

import math

import torch
from torch import Tensor

_GLIDE = 6.0  # dB per second: fastest change while sound is audible
_PAUSE = 1.0  # seconds of silence after which the gain may jump


class HopGain:
    """Gain of each frame of a window that moves by hops.

    Args:
        window: frames of a window.
        hop: frames from one window to the next.
        seconds: length of a frame.
    """

    def __init__(self, window: int, hop: int, seconds: float):
        self._hop = hop
        self._step = _GLIDE * seconds
        self._pause = math.ceil(_PAUSE / seconds)
        self._gains: Tensor | None = None
        self._window = window

    def next(self, target: float, done: int, silent: Tensor) -> Tensor:
        """Move to the next window.

        Args:
            target: gain for the present level of the input.
            done: frames at the start of the window whose gain cannot change any more.
            silent: [L] whether each frame of the window is silent.

        Returns:
            [L] gain of each frame.
        """
        if self._gains is None:  # no sound was emitted yet
            self._gains = torch.full((self._window,), target)
            return self._gains
        gains = torch.cat([self._gains[self._hop :], self._gains[-1:].expand(self._hop)])
        if silent[max(0, done - self._pause) : done].all():
            gains[done:] = target
        else:
            last = float(gains[done - 1])
            span = 20 * math.log10(target / last)
            glide = self._step * torch.arange(1, len(gains) - done + 1)
            change = math.copysign(1, span) * glide.clamp(max=abs(span))
            gains[done:] = last * 10 ** (change / 20)
        self._gains = gains
        return gains
