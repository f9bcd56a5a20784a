"""Remove inaudible frequencies: rumble, and constant, drifting or jumping offsets."""

import numpy as np
import scipy.fft  # half a busy processor slows torch's transforms to a tenth: their threads spin
import torch
from torch import Tensor

_CUT = 18.0  # Hz: -6 dB
_SECONDS = 0.08  # half the filter's length: short, since a filter smears jumps
_BETA = 4.0  # of the Kaiser window


class HighPass:
    """Filter a recording in blocks with a linear-phase high-pass without delay.

    At every rate the filter is flat within 0.1 dB from 27 Hz up and attenuates by 40 dB at 8 Hz and
    below. The output does not depend on the block size. Low frequencies are extrapolated beyond
    both ends of the recording: a constant becomes zeros from end to end.

    Args:
        sample_rate: in Hz.

    Attributes:
        reach: samples of context that the filter needs before and after each sample.
    """

    def __init__(self, sample_rate: float):
        self.reach = reach = max(1, round(_SECONDS * sample_rate))
        time = np.arange(-reach, reach + 1) / sample_rate
        kernel = np.sinc(2 * _CUT * time) * np.kaiser(2 * reach + 1, _BETA)
        self._size = 1 << (8 * reach).bit_length()  # of the transforms
        # Output of a transform: the same samples for every block size.
        self._step = self._size - 2 * reach
        self._spectrum = scipy.fft.rfft(kernel / kernel.sum(), self._size)
        # [C, n]; once `_begun`, the samples from `reach` before the next output on.
        self._held: Tensor | None = None
        self._begun = False

    def __call__(self, wav: Tensor, last: bool = False) -> Tensor:
        """Filter the next block.

        Args:
            wav: [C, n].
            last: no block follows.

        Returns:
            [C, m]; the output has as many samples as the input in total.
        """
        held = wav if self._held is None else torch.cat([self._held, wav], -1)
        if not self._begun and held.shape[-1] and (last or held.shape[-1] >= self._size):
            held = torch.cat([self._beyond(held).flip(-1), held], -1)
            self._begun = True
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
        """Filter [C, size] without its context: [C, step]."""
        spectrum = scipy.fft.rfft(wav.double().numpy()) * self._spectrum
        low = torch.from_numpy(scipy.fft.irfft(spectrum, self._size))
        return (wav[:, self.reach : -self.reach] - low[:, 2 * self.reach :]).float()

    def _beyond(self, wav: Tensor) -> Tensor:
        """Extrapolate wav [C, n] beyond its first sample: [C, reach], read away from wav.

        Point reflection about the low frequencies' value at the end continues their slope.
        """
        size = min(self.reach, wav.shape[-1])
        here = wav[:, :size].double()
        time = torch.linspace(0, 1, size, dtype=torch.float64)
        weights = (1 + (torch.pi * time).cos()).sqrt() + 1e-3
        basis = torch.stack([time**power for power in range(min(3, size))], -1)
        fit = torch.linalg.lstsq(weights[:, None] * basis, (weights * here).T).solution[0, :, None]
        turned = torch.nn.functional.pad(2 * fit - here, (0, self.reach - size), mode="replicate")
        return turned.to(wav.dtype)


class CausalHighPass:
    """Filter a stream with a high-pass of the second order, without look-ahead: -3 dB at 18 Hz.

    Args:
        sample_rate: in Hz.
        channels: channels of every block.
    """

    def __init__(self, sample_rate: float, channels: int):
        import scipy.signal  # a second and 50 MB, which a transfer of files saves

        self._filter = scipy.signal.sosfilt
        self._sections = scipy.signal.butter(2, _CUT, "high", fs=sample_rate, output="sos")
        self._state = np.zeros((len(self._sections), channels, 2))

    def __call__(self, wav: Tensor) -> Tensor:
        """Filter the next block [C, n]; return as many samples."""
        if not wav.shape[-1]:
            return wav
        out, self._state = self._filter(self._sections, wav.numpy(), zi=self._state)
        return torch.from_numpy(out).float()
