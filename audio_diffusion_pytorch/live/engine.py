"""Bridge sound in real time: one thread exchanges blocks of sound, another one computes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes

_RECENT = 8  # hops whose time of computing is averaged
_JUDGED = 3  # hops with known times, before a machine is judged as too slow
_SETTLED = 2.0  # seconds of sound before a machine is judged as too slow
_LIMIT = 0.8  # loudest sample that stays unchanged; louder ones approach 1


class Transfer(Protocol):
    """Bridge that receives blocks, see `HopTransfer`."""

    sizes: HopSizes

    def add(self, block: torch.Tensor, skip: bool = False) -> torch.Tensor:
        """Bridge the next block [C, n]; return [C, m] as soon as it is complete."""
        ...


@dataclass(frozen=True)
class EngineState:
    """State of an engine, for a display.

    Args:
        seconds: sound so far.
        level_in: RMS of the last input block.
        level_out: RMS of the last output block.
        load: time of computing as a share of the sound's duration, over the last hops.
        dropouts: gaps in the output because a hop came too late.
        dropped_seconds: length of all gaps.
        too_slow: whether the machine cannot keep up.
    """

    seconds: float = 0.0
    level_in: float = 0.0
    level_out: float = 0.0
    load: float = 0.0
    dropouts: int = 0
    dropped_seconds: float = 0.0
    too_slow: bool = False


class _Ring:
    """The last samples [n, C] of a stream, addressed by their position in the stream."""

    def __init__(self, size: int, channels: int):
        self._data = np.zeros((size, channels), np.float32)
        self.end = 0

    def push(self, block: np.ndarray) -> None:
        block = block[-len(self._data) :]
        self._data[np.arange(self.end, self.end + len(block)) % len(self._data)] = block
        self.end += len(block)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples from `start` to `stop`; zeros where the stream has none."""
        positions = np.arange(start, stop)
        held = (positions >= max(0, self.end - len(self._data))) & (positions < self.end)
        return np.where(held[:, None], self._data[positions % len(self._data)], 0.0)


class LiveEngine:
    """Exchange input blocks for output blocks with constant delay.

    The output never waits for the computer: a hop that comes too late becomes silence and counts as
    a dropout, and the hops that are already too late are not computed.

    Args:
        transfer: the bridge; or a function that chooses it on the first sound, see `Listener`.
        sizes: sizes of the bridge's hops.
        sample_rate: in Hz.
        channels: channels of every block.
        wet: share of the bridged sound; the rest is the input, delayed as well.
        block: most samples of a block.

    Attributes:
        delay: samples from input to output.
        failure: error of the computing thread.
        wet: as given; may change while the engine runs.
    """

    def __init__(
        self,
        transfer: Transfer | Callable[[torch.Tensor], Transfer | None],
        sizes: HopSizes,
        sample_rate: int,
        channels: int = 1,
        wet: float = 1.0,
        block: int = 1024,
    ):
        self.sample_rate = sample_rate
        self.sizes = sizes
        self.delay = round(sizes.latency_seconds * sample_rate) + block
        self.failure: BaseException | None = None
        self._choose = None if hasattr(transfer, "add") else transfer
        self._transfer: Transfer | None = None if self._choose else transfer  # type: ignore
        self.wet = wet
        self._hop = round(sizes.hop_seconds * sample_rate)
        size = 2 * self.delay + 4 * self._hop + block
        self._dry = _Ring(size, channels)
        self._made = _Ring(size, channels)
        self._waiting: deque[np.ndarray] = deque()
        self._ready = threading.Condition()
        self._closed = False
        self._busy = False
        self._times: deque[float] = deque(maxlen=_RECENT)
        self._dropouts = self._dropped = 0
        self._gap = False
        self._levels = (0.0, 0.0)
        self._thread = threading.Thread(target=self._compute, name="bridge", daemon=True)

    def __enter__(self) -> LiveEngine:
        """Start the computing thread."""
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """End the computing thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        self._thread.join()

    def exchange(self, block: np.ndarray) -> np.ndarray:
        """Add an input block and return the output block of the same length, without waiting.

        Args:
            block: [n, C] float32.

        Returns:
            [n, C]: the sound of `delay` samples ago.
        """
        block = within_full_scale(block)
        with self._ready:
            self._dry.push(block)
            self._waiting.append(block.copy())
            start, stop = self._dry.end - self.delay - len(block), self._dry.end - self.delay
            missing = stop - max(start, self._made.end, 0)
            out = self.wet * self._made.read(start, stop)
            out += (1 - self.wet) * self._dry.read(start, stop)
            self._ready.notify_all()
        self._count(max(0, missing))
        out = soft_limit(out)
        self._levels = _rms(block), _rms(out)
        return out

    def drain(self) -> None:
        """Wait until all input is computed: for input that does not come in real time."""
        with self._ready:
            self._ready.wait_for(
                lambda: self.failure is not None or not (self._waiting or self._busy)
            )

    def _count(self, missing: int) -> None:
        if missing and not self._gap:
            self._dropouts += 1
        self._gap = missing > 0
        self._dropped += missing

    @property
    def state(self) -> EngineState:
        """State so far."""
        seconds = self._dry.end / self.sample_rate
        load = float(np.mean(self._times)) / self.sizes.hop_seconds if self._times else 0.0
        late = load > 1 and len(self._times) >= _JUDGED
        slow = late and self._dropouts > 0 and seconds >= _SETTLED
        return EngineState(
            seconds, *self._levels, load, self._dropouts, self._dropped / self.sample_rate, slow
        )

    def advice(self) -> str:
        """Return the settings that would let this machine keep up."""
        took = float(np.mean(self._times))
        hop = took / 0.75
        latency = hop * self.sizes.latency_seconds / self.sizes.hop_seconds
        return (
            f"this machine needs {took:.2f} s to compute {self.sizes.hop_seconds:.2f} s of sound: "
            f"use latency={latency:.1f}, or quality=instant if it is not in use"
        )

    def _compute(self) -> None:
        try:
            while (block := self._next_block()) is not None:
                for start in range(0, len(block), self._hop):
                    self._add(block[start : start + self._hop])
        except BaseException as error:  # the driver reports it
            self.failure = error
        finally:
            with self._ready:
                self._busy = False
                self._ready.notify_all()

    def _next_block(self) -> np.ndarray | None:
        with self._ready:
            self._busy = False
            self._ready.notify_all()
            self._ready.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            self._busy = True
            block = np.concatenate(list(self._waiting))
            self._waiting.clear()
            return block

    def _add(self, block: np.ndarray) -> None:
        wav = torch.from_numpy(np.ascontiguousarray(block.T))
        if self._transfer is None:
            assert self._choose is not None
            self._transfer = self._choose(wav)
            if self._transfer is None:
                self._push(np.zeros_like(block))
                return
        with self._ready:
            skip = self._made.end < self._dry.end - self.delay
        started = time.perf_counter()
        out = self._transfer.add(wav, skip)
        if out.shape[-1] and not skip:
            self._times.append(time.perf_counter() - started)
        self._push(out.T.numpy())

    def _push(self, wav: np.ndarray) -> None:
        with self._ready:
            self._made.push(wav)


def within_full_scale(block: np.ndarray) -> np.ndarray:
    """Clip samples to [-1, 1]; samples that are not numbers become silence."""
    return np.clip(np.nan_to_num(block), -1.0, 1.0)


def soft_limit(wav: np.ndarray) -> np.ndarray:
    """Bend samples above 0.8 so that none exceeds 1."""
    size = np.abs(wav)
    over = np.maximum(size - _LIMIT, 0) / (1 - _LIMIT)
    return np.where(size > _LIMIT, np.sign(wav) * (_LIMIT + (1 - _LIMIT) * np.tanh(over)), wav)


def _rms(block: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(block)))) if block.size else 0.0
