"""Choose the octaves of a stream on its first sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import first_sound, octaves_for, pitches_of

if TYPE_CHECKING:
    from torch import Tensor

    from audio_diffusion_pytorch.models.instrument import InstrumentSpec
    from audio_diffusion_pytorch.pitch.octaves import Octaves

_TRIES = 8  # hops without a clear pitch after which the sound stays in its register


class HopOctaves:
    """Octaves by which a stream moves before it is bridged.

    Args:
        octaves: octaves; "auto": into the target's range, decided once.
        spec: specification of the target model.
        sample_rate: rate of the sound in Hz.
    """

    def __init__(self, octaves: Octaves, spec: InstrumentSpec, sample_rate: int):
        self._limits = pitch_range(spec)
        self._sample_rate = sample_rate
        self._octaves = 0 if octaves == "auto" else octaves
        self._tries = _TRIES if octaves == "auto" and self._limits is not None else 0

    def decide(self, wav: Tensor, end: int, threshold: float) -> int:
        """Return the octaves for a window; decide as soon as sound appears before sample `end`.

        Args:
            wav: window [C, samples].
            end: last sample of the hop; sound after it is also analysed.
            threshold: peak from which a sample counts as sound.
        """
        loud = (wav.abs() >= threshold).any(0)
        if self._tries and loud[:end].any():
            self._tries -= 1
            sound = first_sound([wav[:, int(loud.int().argmax()) :]], self._sample_rate, mid=True)
            pitches = [] if sound is None else pitches_of(sound, self._sample_rate)
            if pitches and self._limits is not None:
                self._octaves = octaves_for(pitches, *self._limits)
                self._tries = 0
        return self._octaves
