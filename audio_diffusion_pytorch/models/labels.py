"""What a network with labels tells apart: instruments, and how a recording was made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

RECORDING_CONDITIONS = (
    "plain",
    "varied",
)  # labels of recordings as they are, and of those that were varied for training


class Labels:
    """Labels of a network: instruments, and with `RECORDING_CONDITIONS` at the end their recording condition.

    ("plain", "varied") is one instrument and two labels; ("flute", "violin", "plain", "varied") two and four.

    Attributes:
        instruments: their names; none: one instrument, which needs no name.
        takes: labels also tell plain from varied recordings.
        count: labels of the network.
    """

    def __init__(self, names: Iterable[str] = ()):
        names = tuple(names)
        self.takes = names[-len(RECORDING_CONDITIONS) :] == RECORDING_CONDITIONS
        self.instruments = names[: -len(RECORDING_CONDITIONS)] if self.takes else names
        self.count = (len(self.instruments) or int(self.takes)) * (
            len(RECORDING_CONDITIONS) if self.takes else 1
        )

    def index(self, instrument: int, varied: bool) -> int:
        """Label of the instrument of this number, 0 where there is one, in a take."""
        return instrument + (self.takes and varied) * max(len(self.instruments), 1)

    def statistics_shape(self, channels: int) -> tuple[int, ...]:
        """Of a model's latent statistics: [D], or [instruments, D]."""
        return (len(self.instruments), channels) if self.instruments else (channels,)

    def instrument(self, label: Tensor) -> Tensor:
        """Numbers of the instruments that labels [B] belong to."""
        return label % max(len(self.instruments), 1)


def statistics_of(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Latent statistics in a model's shape, [D] or [instruments, D]; those of one serve all of its instruments.

    Raises:
        InputError: another number of values.
    """
    if values.numel() not in (shape[-1], math.prod(shape)):
        raise InputError(
            f"statistics have {values.numel()} values, {' x '.join(map(str, shape))} are needed"
        )
    return (
        values.float()
        .reshape(-1, shape[-1])
        .expand(-1 if len(shape) == 1 else shape[0], -1)
        .reshape(shape)
        .clone()
    )
