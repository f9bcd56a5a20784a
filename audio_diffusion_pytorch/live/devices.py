"""Microphones and loudspeakers, through the library `sounddevice`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from audio_diffusion_pytorch.errors import InputError

Device = str | int | None  # number, part of a name, or the default device
Exchange = Callable[[np.ndarray], np.ndarray]  # input block [n, C] -> output block [n, C]

_GONE = 2.0  # seconds without a block after which a device counts as gone
_CLOCK = 4.0  # seconds over which the rate of a device is measured
_DRIFT = 0.05  # relative deviation of the rate that counts as another rate


def audio_library() -> Any:
    """Import `sounddevice`.

    Raises:
        InputError: the package or PortAudio is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise InputError(
            'microphones and loudspeakers need sounddevice: pip install "timbridge[live]", in a '
            'clone ".[live]"'
        ) from error
    except OSError as error:
        raise InputError(
            "microphones and loudspeakers need PortAudio: on Debian, apt install libportaudio2"
        ) from error
    return sounddevice


def describe_devices() -> str:
    """Return one line for each device: number, name, channels and rate; defaults are marked.

    Raises:
        InputError: there is no device, or the library is missing.
    """
    library = audio_library()
    devices = list(library.query_devices())
    if not devices:
        raise InputError("there is no audio device: connect one, or use input=FILE output=FILE")
    default = list(library.default.device)
    lines = []
    for number, device in enumerate(devices):
        inputs, outputs = device["max_input_channels"], device["max_output_channels"]
        marks = [name for name, n in zip(("input", "output"), default, strict=True) if n == number]
        line = f"{number:3} {device['name']} ({inputs} in, {outputs} out, "
        line += f"{device['default_samplerate']:.0f} Hz)"
        lines.append(line + (f" default {' and '.join(marks)}" if marks else ""))
    return "\n".join(lines)


def find_device(device: Device, kind: str) -> dict[str, Any]:
    """Return the properties of a device.

    Args:
        device: number, part of a name, or None for the default.
        kind: "input" or "output".

    Raises:
        InputError: there is no such device.
    """
    library = audio_library()
    if not len(library.query_devices()):
        raise InputError("there is no audio device: connect one, or use input=FILE output=FILE")
    try:
        return library.query_devices(device, kind)
    except (ValueError, library.PortAudioError) as error:
        name = "the default device" if device is None else device
        raise InputError(
            f"{kind}={name} is not one audio device for {kind}: {error}; devices=true lists them"
        ) from error


class DeviceStream:
    """Exchange blocks with a microphone, a loudspeaker or both.

    Args:
        exchange: callback for each block; it runs on the thread of the audio device.
        sample_rate: in Hz.
        block: samples of a block.
        microphone: device of the input; False: no input, `exchange` receives zeros.
        loudspeaker: device of the output; False: no output.

    Attributes:
        glitches: blocks that the device lost.
        seconds: sound so far.

    Raises:
        InputError: a device cannot be opened.
    """

    def __init__(
        self,
        exchange: Exchange,
        sample_rate: int,
        block: int,
        microphone: Device | bool,
        loudspeaker: Device | bool,
    ):
        self.glitches = 0
        self._exchange = exchange
        self._sample_rate = sample_rate
        self._samples = 0
        self._last = time.monotonic()
        self._marks: tuple[float, int] | None = None
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        self._library = library = audio_library()
        common = {"samplerate": sample_rate, "blocksize": block, "dtype": "float32"}
        common |= {"latency": "low", "finished_callback": self._stopped.set}
        try:
            if loudspeaker is False:
                self._stream = library.InputStream(
                    device=microphone, channels=1, callback=self._input, **common
                )
                return
            channels = min(2, find_device(_device(loudspeaker), "output")["max_output_channels"])
            if microphone is False:
                self._stream = library.OutputStream(
                    device=loudspeaker, channels=channels, callback=self._output, **common
                )
            else:
                self._stream = library.Stream(
                    device=(microphone, loudspeaker),
                    channels=(1, channels),
                    callback=self._both,
                    **common,
                )
        except (ValueError, library.PortAudioError) as error:
            raise InputError(
                f"cannot open the audio device at {sample_rate} Hz: {error}; devices=true lists "
                "devices and their rates"
            ) from error

    @contextmanager
    def running(self) -> Iterator[DeviceStream]:
        """Let the device run inside the block.

        Raises:
            InputError: the device cannot be started.
        """
        try:
            self._stream.start()
        except self._library.PortAudioError as error:
            raise InputError(f"cannot start the audio device: {error}") from error
        try:
            yield self
        finally:
            with suppress(self._library.PortAudioError):  # a device that is gone
                self._stream.close()

    @property
    def latency(self) -> float:
        """Seconds that the devices add to the delay, as they report it."""
        found = self._stream.latency
        return float(sum(found)) if isinstance(found, tuple) else float(found)

    def check(self) -> None:
        """Check that the device still works.

        Raises:
            InputError: the device is gone, or its rate changed.
        """
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        if self._stopped.is_set() or not self._stream.active or now - self._last > _GONE:
            raise InputError("the audio device is gone: connect it and start again")
        self._check_rate(now)

    def _check_rate(self, now: float) -> None:
        if self._marks is None:
            if self._samples:
                self._marks = now, self._samples
            return
        since, samples = self._marks
        if now - since < _CLOCK:
            return
        rate = (self._samples - samples) / (now - since)
        self._marks = now, self._samples
        if abs(rate / self._sample_rate - 1) > _DRIFT:
            raise InputError(
                f"the rate of the audio device changed from {self._sample_rate} Hz to about "
                f"{rate:.0f} Hz: set it to one rate and start again"
            )

    def _both(self, given: np.ndarray, out: np.ndarray, frames: int, when: Any, flags: Any) -> None:
        out[:] = self._call(given, flags)

    def _output(self, out: np.ndarray, frames: int, when: Any, flags: Any) -> None:
        out[:] = self._call(np.zeros((frames, 1), np.float32), flags)

    def _input(self, given: np.ndarray, frames: int, when: Any, flags: Any) -> None:
        self._call(given, flags)

    def _call(self, given: np.ndarray, flags: Any) -> np.ndarray:
        self._last = time.monotonic()
        self._samples += len(given)
        self.glitches += bool(flags)
        try:
            return self._exchange(given)
        except BaseException as error:  # `check` raises it
            self._failure = error
            return np.zeros_like(given)


def _device(device: Device | bool) -> Device:
    return None if isinstance(device, bool) else device
