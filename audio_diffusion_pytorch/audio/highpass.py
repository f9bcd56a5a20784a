"""What lies below hearing (rumble, offsets that stay, drift or jump) is removed before anything else listens."""

import numpy as np
import torch
from torch import Tensor

_CUT = 18.0  # Hz: -6 dB
_SECONDS = 0.08  # half the filter's length: short, since it smears what jumps
_BETA = 4.0  # of its Kaiser window


class HighPass:
    """A linear-phase high-pass without delay for a recording in blocks; the blocks' borders leave no trace.

    Flat within 0.1 dB from 27 Hz up, 40 dB down at 8 Hz and below, at every rate. What is below hearing is taken to go
    on beyond the recording's ends: a constant gives zeros from end to end.

    Args:
        sample_rate: in Hz.

    Attributes:
        reach: samples that the filter sees before and after each.
    """

    def __init__(self, sample_rate: float):
        self.reach = reach = max(1, round(_SECONDS * sample_rate))
        time = np.arange(-reach, reach + 1) / sample_rate
        kernel = np.sinc(2 * _CUT * time) * np.kaiser(2 * reach + 1, _BETA)
        self._size = 1 << (8 * reach).bit_length()  # of the transforms
        self._step = (
            self._size - 2 * reach
        )  # samples that one gives: the same ones however the recording is cut
        self._spectrum = torch.fft.rfft(torch.from_numpy(kernel / kernel.sum()), self._size)
        self._held: Tensor | None = (
            None  # [C, n]; once `_begun`, from `reach` samples before the next output
        )
        self._begun = False

    def __call__(self, wav: Tensor, last: bool = False) -> Tensor:
        """Take a block [C, n], give what is ready, [C, m]; with `last` the rest: in all as many samples as came."""
        held = wav if self._held is None else torch.cat([self._held, wav], -1)
        if not self._begun and held.shape[-1] and (last or held.shape[-1] >= self._size):
            held, self._begun = torch.cat([self._beyond(held).flip(-1), held], -1), True
        left = held.shape[-1] - self.reach if last and self._begun else 0
        if left:
            held = torch.cat([held, self._beyond(held[:, self.reach :].flip(-1))], -1)
        parts = [wav[:, :0]]
        while self._begun and held.shape[-1] >= self._size:
            parts.append(self._filtered(held[:, : self._size]))
            held = held[:, self._step :]
        if left and held.shape[-1] > 2 * self.reach:
            rest = held.shape[-1] - 2 * self.reach
            held = torch.nn.functional.pad(held, (0, self._size - held.shape[-1]))
            parts.append(self._filtered(held)[:, :rest])
        self._held = held.clone()
        return torch.cat(parts, -1)

    def _filtered(self, wav: Tensor) -> Tensor:
        """[C, size] -> [C, step], without what comes `reach` samples before and after."""
        low = torch.fft.irfft(torch.fft.rfft(wav.double()) * self._spectrum, self._size)
        return (wav[:, self.reach : -self.reach] - low[:, 2 * self.reach :]).float()

    def _beyond(self, wav: Tensor) -> Tensor:
        """The `reach` samples [C, reach] that follow if wav [C, n] begins at an end and is read away from it.

        wav turned by half a circle around its low frequencies' value at the end: these go on, at their slope.
        """
        size = min(self.reach, wav.shape[-1])
        here = wav[:, :size].double()
        time = torch.linspace(0, 1, size, dtype=torch.float64)
        weights = (1 + (torch.pi * time).cos()).sqrt() + 1e-3
        basis = torch.stack([time**power for power in range(min(3, size))], -1)
        fit = torch.linalg.lstsq(weights[:, None] * basis, (weights * here).T).solution[0, :, None]
        turned = torch.nn.functional.pad(2 * fit - here, (0, self.reach - size), mode="replicate")
        return turned.to(wav.dtype)
