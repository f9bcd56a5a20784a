"""A stand-in for the library `sounddevice`: its devices call back from a thread."""

import threading
import time
from types import SimpleNamespace

import numpy as np


class PortAudioError(Exception):
    """Error of PortAudio."""


class FakeSoundDevice:
    """One microphone that plays `sound`, and one loudspeaker that keeps `played`.

    Args:
        sound: [n] what the microphone hears.
        rate: rate of the devices.
        blocks: blocks after which the devices disappear; None: never.
        count: number of devices, 0 or 2.
    """

    PortAudioError = PortAudioError

    def __init__(self, sound=None, rate=8000, blocks=None, count=2):
        self.sound = np.zeros(0, np.float32) if sound is None else sound
        self.rate = rate
        self.blocks = blocks
        self.played = []
        names = [("Fake Microphone", 1, 0), ("Fake Loudspeaker", 0, 2)][:count]
        self.devices = [
            {
                "name": name,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": float(rate),
            }
            for name, inputs, outputs in names
        ]
        self.default = SimpleNamespace(device=[0, 1])

    def query_devices(self, device=None, kind=None):
        if kind is None:
            return self.devices
        index = {"input": 0, "output": 1}[kind]
        if (
            device is None
            or device == index
            or str(device).lower() in (self.devices[index]["name"].lower())
        ):
            return self.devices[index]
        raise ValueError(f"No {kind} device matching {device!r}")

    def Stream(self, **options):
        return _Stream(self, "both", options)

    def InputStream(self, **options):
        return _Stream(self, "input", options)

    def OutputStream(self, **options):
        return _Stream(self, "output", options)


class _Stream:
    latency = (0.01, 0.02)

    def __init__(self, library, kind, options):
        if options["samplerate"] != library.rate:
            raise PortAudioError("Invalid sample rate")
        self.library, self.kind, self.options = library, kind, options
        self.active = False
        self.thread = threading.Thread(target=self.run)
        if kind == "input":
            self.latency = 0.01

    def start(self):
        self.active = True
        self.thread.start()

    def close(self):
        self.active = False
        self.thread.join()

    def run(self):
        size = self.options["blocksize"]
        count = 0
        while self.active and (self.library.blocks is None or count < self.library.blocks):
            given = np.zeros((size, 1), np.float32)
            part = self.library.sound[count * size : (count + 1) * size]
            given[: len(part), 0] = part
            out = np.zeros((size, 2), np.float32)
            callback = self.options["callback"]
            if self.kind == "both":
                callback(given, out, size, None, 0)
            elif self.kind == "input":
                callback(given, size, None, 0)
            else:
                callback(out, size, None, 0)
            self.library.played.append(out[:, 0].copy())
            count += 1
            time.sleep(size / self.library.rate)
        self.active = False
        self.options["finished_callback"]()
