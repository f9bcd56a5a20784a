"""Choose the source model of a live session on its first second of sound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from audio_diffusion_pytorch.bridge.inputs import FIRST_SOUND
from audio_diffusion_pytorch.live.engine import Transfer
from audio_diffusion_pytorch.transfer.listening import Analysis, instrument_probabilities

_SECONDS = 1.0  # of sound


class Listener:
    """Collect the first second of sound, then make the bridge of its instrument.

    Args:
        make: function from the name of a source model to a bridge.
        sample_rate: in Hz.
        tell: callback for the choice, as a sentence.
    """

    def __init__(
        self, make: Callable[[str], Transfer], sample_rate: int, tell: Callable[[str], None]
    ):
        self._make = make
        self._sample_rate = sample_rate
        self._tell = tell
        self._sound: list[Tensor] = []

    def __call__(self, block: Tensor) -> Transfer | None:
        """Add a block [C, n]; return the bridge after the first second of sound, before it None."""
        if self._sound or block.abs().max() > FIRST_SOUND:
            self._sound.append(block)
        length = sum(part.shape[-1] for part in self._sound)
        if length < _SECONDS * self._sample_rate:
            return None
        wav = torch.cat(self._sound, -1).mean(0, keepdim=True)
        self._sound = []
        found = instrument_probabilities(wav, self._sample_rate)
        source = Analysis(instruments=found).source()
        if source is None:
            return None
        best, probability = next(iter(found.items()))
        self._tell(f"source: {source} (it sounds like {best}, {probability:.0%})")
        return self._make(source)
