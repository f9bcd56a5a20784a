"""Audio devices, with a stand-in for the library: lists, errors, devices that disappear."""

import sys

import numpy as np
import pytest
from fake_sounddevice import FakeSoundDevice

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.live import devices
from audio_diffusion_pytorch.live.devices import DeviceStream, describe_devices, find_device


@pytest.fixture
def library(monkeypatch):
    def install(**options) -> FakeSoundDevice:
        fake = FakeSoundDevice(**options)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        return fake

    return install


def test_devices_are_listed_and_found(library):
    library()
    lines = describe_devices().splitlines()
    assert lines[0] == "  0 Fake Microphone (1 in, 0 out, 8000 Hz) default input"
    assert lines[1].endswith("default output")
    assert find_device(None, "input")["name"] == "Fake Microphone"
    assert find_device("loud", "output")["name"] == "Fake Loudspeaker"
    with pytest.raises(InputError, match=r"input=trumpet is not one audio device .*devices=true"):
        find_device("trumpet", "input")


def test_no_device_no_library_no_portaudio(library, monkeypatch):
    library(count=0)
    for call in (describe_devices, lambda: find_device(None, "input")):
        with pytest.raises(InputError, match="there is no audio device"):
            call()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match=r"pip install \"timbridge\[live\]\""):
        describe_devices()

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(InputError, match="apt install libportaudio2"):
        describe_devices()


def test_blocks_are_exchanged(library):
    sound = np.arange(400, dtype=np.float32) / 400
    fake = library(sound=sound, blocks=6)
    seen = []

    def exchange(block):
        seen.append(block.copy())
        return 0.5 * block

    stream = DeviceStream(exchange, 8000, 100, None, None)
    assert stream.latency == pytest.approx(0.03)
    with stream.running():
        stream._stream.thread.join()
    assert np.array_equal(np.concatenate(seen)[:400, 0], sound)
    assert np.allclose(np.concatenate(fake.played)[:400], 0.5 * sound)


def test_a_device_that_disappears(library):
    library(blocks=2)
    stream = DeviceStream(lambda block: block, 8000, 100, None, None)
    with stream.running():
        stream._stream.thread.join()
        with pytest.raises(InputError, match="the audio device is gone"):
            stream.check()


def test_a_rate_that_changes(library, monkeypatch):
    library()
    stream = DeviceStream(lambda block: block, 8000, 100, None, None)
    clock = [0.0]
    monkeypatch.setattr(devices.time, "monotonic", lambda: clock[0])
    with stream.running():
        for rate, wrong in [(8000, False), (8000, False), (7350, True)]:
            stream._last = clock[0]
            stream._samples = round(getattr(stream, "counted", 0) + 5 * rate)
            stream.counted = stream._samples
            clock[0] += 5
            stream._last = clock[0]
            if not wrong:
                stream.check()
                stream._samples = stream.counted
        with pytest.raises(InputError, match="changed from 8000 Hz to about 7"):
            stream._check_rate(clock[0])


def test_a_rate_that_the_device_refuses(library):
    library()
    with pytest.raises(InputError, match="cannot open the audio device at 44100 Hz"):
        DeviceStream(lambda block: block, 44100, 100, None, None)
