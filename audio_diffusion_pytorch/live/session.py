"""A live session: models, engine, input, output, recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from audio_diffusion_pytorch.audio import info
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.live.bridges import LiveBridges, Load
from audio_diffusion_pytorch.live.devices import DeviceStream, find_device
from audio_diffusion_pytorch.live.display import Display
from audio_diffusion_pytorch.live.engine import EngineState, LiveEngine, within_full_scale
from audio_diffusion_pytorch.live.recorder import Recorder
from audio_diffusion_pytorch.live.settings import PIPE, PIPE_RATE, LiveSettings
from audio_diffusion_pytorch.live.sources import file_blocks, pipe_blocks
from audio_diffusion_pytorch.utils.threads import set_threads

_DEVICE_SECONDS = 0.04  # of the delay that audio devices add
_TICK = 0.1  # seconds between two updates of the display


@dataclass(frozen=True)
class LiveReport:
    """Facts of a finished session.

    Args:
        delay: seconds from sound in to sound out, devices included.
        state: last state of the engine.
        glitches: blocks that the audio device lost.
        computed: CPU seconds of the process per second of sound.
    """

    delay: float
    state: EngineState
    glitches: int
    computed: float

    def __str__(self) -> str:
        """Return the summary of the command."""
        state = self.state
        dropped = f" ({state.dropped_seconds:.2f} s)" if state.dropouts else ""
        return (
            f"{state.seconds:.1f} s played, delay {self.delay:.3f} s, {state.dropouts} dropouts"
            f"{dropped}, {self.glitches} glitches of the device, "
            f"{self.computed:.2f} CPU seconds per second of sound"
        )


class LiveSession:
    """Run a live session.

    Args:
        settings: checked settings.
        load: see `LiveBridges`.

    Raises:
        InputError: a model, a file or a device cannot be used.
    """

    def __init__(self, settings: LiveSettings, load: Load | None = None):
        self.settings = settings
        self.rate = sample_rate(settings)
        set_threads(spare=True)  # the audio device needs a core
        devices = settings.from_microphone or settings.to_loudspeaker
        used = settings.block / self.rate + (_DEVICE_SECONDS if devices else 0.0)
        self._bridges = LiveBridges(settings, self.rate, used, load)

    def run(self) -> LiveReport:
        """Play until the input ends, `seconds` have passed, or Ctrl-C.

        Raises:
            InputError: a device is gone or a file cannot be used. Recordings are complete.
        """
        settings = self.settings
        display = Display(0.0)
        with ExitStack() as stack:
            engine = self._bridges.engine(display.tell, settings.wet)
            exchange = self._recorded(engine, stack)
            stack.enter_context(engine)
            started = time.process_time()
            if settings.from_microphone or settings.to_loudspeaker:
                delay, glitches = self._play(engine, exchange)
            else:
                delay, glitches = engine.delay / self.rate, 0
                self._pass_files(engine, exchange, delay)
            state = engine.state
            used = (time.process_time() - started) / max(state.seconds, 1e-6)
        return LiveReport(delay, state, glitches, used)

    def _recorded(self, engine: LiveEngine, stack: ExitStack) -> Callable[[np.ndarray], np.ndarray]:
        """Return the engine's `exchange`, with recordings of both sides."""
        settings = self.settings
        paths_in = [settings.record_input] if settings.record_input else []
        paths_out = [p for p in (settings.record_output, settings.output_file) if p is not None]
        recorders: list[list[Recorder]] = [[], []]
        for side, paths in enumerate((paths_in, paths_out)):
            for path in paths:
                recorder = Recorder(path, self.rate, 1)
                recorders[side].append(recorder)
                stack.callback(recorder.close)

        def exchange(block: np.ndarray) -> np.ndarray:
            block = within_full_scale(block)
            out = engine.exchange(block)
            for recorder in recorders[0]:
                recorder.add(block)
            for recorder in recorders[1]:
                recorder.add(out)
            return out

        return exchange

    def _blocks(self, engine: LiveEngine) -> Iterator[np.ndarray]:
        """Blocks [n, 1] of a file or a pipe, then silence until the last sound is out."""
        settings = self.settings
        size = settings.block
        path = settings.input_file
        given = pipe_blocks(size) if path is None else file_blocks(path, size)
        ends = -(-engine.delay // size)
        blocks = chain(given, repeat(np.zeros((size, 1), np.float32), ends))
        left = None if settings.seconds is None else round(settings.seconds * self.rate)
        for block in blocks:
            if left is not None and left <= 0:
                return
            yield block
            left = None if left is None else left - len(block)

    def _pass_files(
        self, engine: LiveEngine, exchange: Callable[[np.ndarray], np.ndarray], delay: float
    ) -> None:
        """Pass a file or a pipe through the engine to files."""
        display = Display(delay)
        watch = _Watch(engine, display)
        started = time.monotonic()
        position = 0
        try:
            for block in self._blocks(engine):
                position += len(block)
                if self.settings.pace:
                    ahead = position / self.rate - (time.monotonic() - started)
                    time.sleep(max(0.0, ahead))
                exchange(block)
                if not self.settings.pace:
                    engine.drain()
                watch.look()
        except KeyboardInterrupt:
            pass
        finally:
            display.close()

    def _play(
        self, engine: LiveEngine, exchange: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[float, int]:
        """Play through audio devices; return the delay and the glitches."""
        settings = self.settings
        finished = False
        if settings.from_microphone:
            callback = exchange
        else:
            blocks = self._blocks(engine)

            def callback(silence: np.ndarray) -> np.ndarray:
                nonlocal finished
                block = next(blocks, None)
                finished = block is None
                return exchange(silence if block is None else _padded(block, len(silence)))

        microphone = settings.input if settings.from_microphone else False
        loudspeaker = settings.output if settings.to_loudspeaker else False
        device = DeviceStream(callback, self.rate, settings.block, microphone, loudspeaker)
        delay = engine.delay / self.rate + device.latency
        display = Display(delay)
        watch = _Watch(engine, display)
        display.tell(f"playing with a delay of {delay:.2f} s; Ctrl-C ends")
        try:
            with device.running():
                while not finished:
                    time.sleep(_TICK)
                    device.check()
                    watch.look()
                    if settings.seconds and engine.state.seconds >= settings.seconds:
                        break
        except KeyboardInterrupt:
            pass
        finally:
            display.close()
        return delay, device.glitches


class _Watch:
    """Update the display, report dropouts and a machine that is too slow, and raise errors."""

    def __init__(self, engine: LiveEngine, display: Display):
        self._engine = engine
        self._display = display
        self._dropouts = 0
        self._warned = False
        self._next = 0.0

    def look(self) -> None:
        """Look at the engine, at most every `_TICK` seconds."""
        if self._engine.failure is not None:
            raise self._engine.failure
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _TICK
        state = self._engine.state
        if state.too_slow and not self._warned:
            self._warned = True
            self._display.tell(f"warning: {self._engine.advice()}")
        elif state.dropouts > self._dropouts and not self._warned:
            self._display.tell(f"dropout at {state.seconds:.1f} s")
        self._dropouts = state.dropouts
        self._display.show(state)


def sample_rate(settings: LiveSettings) -> int:
    """Return the rate of a session in Hz: as set, or that of the file or the device.

    Raises:
        InputError: the file or the device cannot be used, or the rate is not the file's.
    """
    if settings.input_file is not None:
        rate = info(settings.input_file).sample_rate
        if settings.rate not in (None, rate):
            raise InputError(f"rate={settings.rate}: {settings.input_file} has {rate} Hz")
        return rate
    if settings.rate is not None:
        return settings.rate
    if settings.input == PIPE:
        return PIPE_RATE
    return round(find_device(settings.input, "input")["default_samplerate"])


def _padded(block: np.ndarray, size: int) -> np.ndarray:
    return np.pad(block, ((0, size - len(block)), (0, 0)))
