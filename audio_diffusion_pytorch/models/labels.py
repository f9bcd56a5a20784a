"""Labels of a conditional network: instruments and recording conditions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# "plain": unchanged recordings; "varied": recordings that training augmented
RECORDING_CONDITIONS = ("plain", "varied")


class Labels:
    """Labels of a network: instruments, and optionally `RECORDING_CONDITIONS` after them.

    ("plain", "varied") is one instrument with two labels; ("flute", "violin", "plain", "varied") is
    two instruments with four labels.

    Args:
        names: names of the instruments, then `RECORDING_CONDITIONS` if labels encode them.

    Attributes:
        instruments: names of the instruments; empty for one unnamed instrument.
        has_conditions: whether labels encode the recording condition.
        count: number of labels.
    """

    def __init__(self, names: Iterable[str] = ()):
        names = tuple(names)
        conditions = len(RECORDING_CONDITIONS)
        self.has_conditions = names[-conditions:] == RECORDING_CONDITIONS
        self.instruments = names[:-conditions] if self.has_conditions else names
        if self.has_conditions:
            self.count = max(len(self.instruments), 1) * conditions
        else:
            self.count = len(self.instruments)

    @property
    def takes(self) -> bool:
        """Alias of `has_conditions`, the old name."""
        return self.has_conditions

    def index(self, instrument: int, varied: bool) -> int:
        """Return the label of an instrument in a recording condition.

        Args:
            instrument: index of the instrument; 0 for one unnamed instrument.
            varied: the condition; ignored if labels do not encode it.
        """
        return instrument + (self.has_conditions and varied) * max(len(self.instruments), 1)

    def statistics_shape(self, channels: int) -> tuple[int, ...]:
        """Return the shape of a model's latent statistics: [D] or [instruments, D]."""
        return (len(self.instruments), channels) if self.instruments else (channels,)

    def instrument(self, label: Tensor) -> Tensor:
        """Map labels [B] to indices of instruments [B]."""
        return label % max(len(self.instruments), 1)


def statistics_of(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring latent statistics to a model's shape; statistics [D] apply to all instruments.

    Args:
        values: [D] or [instruments, D], in any shape with as many elements.
        shape: [D] or [instruments, D], see `Labels.statistics_shape`.

    Raises:
        InputError: the number of values does not match.
    """
    if values.numel() not in (shape[-1], math.prod(shape)):
        raise InputError(
            f"latent statistics have {values.numel()} values, expected "
            f"{' x '.join(map(str, shape))}"
        )
    rows = -1 if len(shape) == 1 else shape[0]
    return values.float().reshape(-1, shape[-1]).expand(rows, -1).reshape(shape).clone()
