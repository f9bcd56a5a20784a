"""Resample a stream at a ratio that may glide, and back without drift."""

import numpy as np
import torch
from torch import Tensor

_LOBES = 16  # of the sinc kernel, on each side
_BETA = 9.0  # of its Kaiser window: -90 dB
_ROLLOFF = 0.94  # cutoff as a share of the lower rate's half
_PHASES = 512  # of the kernel's table, which is interpolated
_RANGE = 1.03  # largest change of a ratio: 51 cents
_GLIDE = 0.01  # relative change of a ratio per second: 17 cents


class Interpolator:
    """Read a stream of samples at positions between the samples.

    Args:
        step: largest distance between positions, in samples; above 1 the sound is low-passed.
        channels: channels of every block.

    Attributes:
        reach: samples that the kernel needs before and after a position.
    """

    def __init__(self, step: float, channels: int):
        scale = max(1.0, step)
        self.reach = int(np.ceil(_LOBES * scale)) + 1
        offsets = np.arange(-self.reach, self.reach + 1) - np.arange(_PHASES + 1)[:, None] / _PHASES
        cutoff = _ROLLOFF / scale
        inside = np.clip(1 - (offsets / self.reach) ** 2, 0, None)
        kernel = cutoff * np.sinc(cutoff * offsets) * np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA)
        kernel /= kernel.sum(1, keepdims=True)  # a constant stays constant
        self._table = torch.from_numpy(kernel).float()
        self._start = -self.reach  # position of the first held sample; zeros before the stream
        self._held = torch.zeros(channels, self.reach)

    @property
    def end(self) -> int:
        """Positions below it can be read."""
        return self._start + self._held.shape[-1] - self.reach

    def push(self, wav: Tensor) -> None:
        """Add the next samples [C, n]."""
        self._held = torch.cat([self._held, wav], -1)

    def read(self, positions: np.ndarray) -> Tensor:
        """Read the sound at rising positions [n], float64, and drop the samples before them.

        Returns:
            [C, n].
        """
        if not len(positions):
            return self._held[:, :0]
        whole = np.floor(positions)
        phase = (positions - whole) * _PHASES
        row = phase.astype(np.int64)
        share = torch.from_numpy(phase - row).float()[:, None]
        row = torch.from_numpy(row)
        weights = torch.lerp(self._table[row], self._table[row + 1], share)
        first = torch.from_numpy(whole.astype(np.int64) - self.reach - self._start)
        parts = self._held.unfold(-1, 2 * self.reach + 1, 1)[:, first]
        wav = (parts * weights).sum(-1)
        used = max(0, int(first[-1]))
        self._held = self._held[:, used:].clone()
        self._start += used
        return wav


class GlidingResampler:
    """Resample a stream to another rate at a ratio that may glide, and resample it back.

    `there` returns samples at the new rate. `back` receives as many samples at the new rate, and
    returns samples at the old rate at the positions of the input's samples: both together keep time
    and pitch.

    Args:
        orig_rate: nominal rate of the input in Hz.
        new_rate: rate of the output in Hz.
        channels: channels of every block.
    """

    def __init__(self, orig_rate: float, new_rate: float, channels: int):
        self._new_rate = new_rate
        ratio = orig_rate / new_rate
        self._there = Interpolator(ratio * _RANGE, channels)
        self._back = Interpolator(_RANGE / ratio, channels)
        self._fastest = _GLIDE * ratio / new_rate  # change of the step from sample to sample
        self._step = 0.0  # samples of the input from one sample at the new rate to the next
        self._next = 0.0  # position in the input of the next sample at the new rate
        # Positions in the input of the samples at the new rate, from sample `_first` on.
        self._positions = np.zeros(0)
        self._first = 0
        self._returned = 0  # samples of `back`

    def there(self, wav: Tensor, rate: float) -> Tensor:
        """Resample the next block.

        Args:
            wav: [C, n].
            rate: rate of the input in Hz, within 3 % of the nominal one; a new rate is reached by
                gliding.

        Returns:
            [C, m].
        """
        self._there.push(wav)
        goal = rate / self._new_rate
        if not self._step:
            self._step = goal
        count = int((self._there.end - self._next) / max(self._step, goal))
        if count < 1:
            return wav[:, :0]
        change = np.minimum(self._fastest * np.arange(1, count + 1), abs(goal - self._step))
        steps = self._step + np.sign(goal - self._step) * change
        positions = self._next + np.concatenate([[0.0], np.cumsum(steps)])
        self._step = float(steps[-1])
        self._next = float(positions[-1])
        self._positions = np.concatenate([self._positions, positions[:-1]])
        return self._there.read(positions[:-1])

    def back(self, wav: Tensor) -> Tensor:
        """Resample the next block [C, m] of the new rate back to the old rate: [C, n]."""
        self._back.push(wav)
        readable = self._back.end - self._first
        if readable < 2:
            return wav[:, :0]
        end = int(self._positions[readable - 1])
        times = np.arange(self._returned, end)
        indices = self._first + np.arange(readable)
        out = self._back.read(np.interp(times, self._positions[:readable], indices))
        self._returned += len(times)
        used = max(0, int(np.searchsorted(self._positions, self._returned)) - 1)
        self._positions = self._positions[used:]
        self._first += used
        return out
