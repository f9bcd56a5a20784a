"""Sessions: files, pipes, devices, recordings, the choice of a source."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import RATE, melody
from fake_sounddevice import FakeSoundDevice

from audio_diffusion_pytorch.audio import active_rms, read
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.live import listener
from audio_diffusion_pytorch.live import session as sessions
from audio_diffusion_pytorch.live.display import Display, meter, status_line
from audio_diffusion_pytorch.live.engine import EngineState
from audio_diffusion_pytorch.live.session import LiveSession
from audio_diffusion_pytorch.live.settings import LiveSettings
from audio_diffusion_pytorch.live.sources import file_blocks, pipe_blocks

SETTINGS = LiveSettings("flute", "violin", pace=False, transpose=0)


@pytest.fixture
def session(quick):
    def make(**settings) -> LiveSession:
        return LiveSession(replace(SETTINGS, **settings), lambda source: quick)

    return make


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, melody(1.5), RATE)
    return path


def test_a_file_to_a_file(session, clip, tmp_path):
    copy, out = tmp_path / "copy.wav", tmp_path / "out.flac"
    report = session(input=str(clip), output=str(out), record_input=copy).run()
    given, played = read(clip)[0], read(out)[0]
    assert report.state.dropouts == 0 and "0 dropouts" in str(report)
    delay = round(report.delay * RATE)
    assert report.delay <= 1.0
    # The last blocks may be silence beyond the end.
    assert given.shape[1] + delay <= played.shape[1] < given.shape[1] + delay + 2 * 512
    assert not played[:, : delay - RATE // 20].any()
    assert active_rms(played, RATE) == pytest.approx(active_rms(given, RATE), rel=0.5)
    assert np.allclose(read(copy)[0][:, : given.shape[1]], given, atol=1e-4)


def test_seconds_end_the_session(session, clip, tmp_path):
    report = session(input=str(clip), output=str(tmp_path / "out.wav"), seconds=0.5).run()
    assert report.state.seconds == pytest.approx(0.5, abs=0.03)


def test_a_pipe():
    samples = np.arange(-500, 501, dtype="<i2")
    pipe = io.BytesIO(samples.tobytes() + b"\x01")  # half a sample at the end
    blocks = list(pipe_blocks(300, pipe))
    assert [len(block) for block in blocks] == [300, 300, 300, 101]
    assert np.array_equal(np.concatenate(blocks)[:, 0] * 32768, samples)


def test_blocks_of_a_file(clip):
    blocks = list(file_blocks(clip, 700))
    assert all(block.shape == (700, 1) for block in blocks[:-1])
    assert np.allclose(np.concatenate(blocks).T, read(clip)[0])


def test_devices_and_recordings(session, monkeypatch, tmp_path):
    sound = melody(1.0)
    fake = FakeSoundDevice(sound, RATE)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    copy, out = tmp_path / "in.wav", tmp_path / "out.wav"
    report = session(seconds=0.5, record_input=copy, record_output=out).run()
    assert report.delay <= 1.0
    assert read(copy)[0].shape == read(out)[0].shape
    assert np.allclose(read(copy)[0][0, :4000], sound[:4000], atol=1e-4)


def test_a_device_that_disappears_leaves_the_recordings(session, monkeypatch, tmp_path):
    fake = FakeSoundDevice(melody(1.0), RATE, blocks=20)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    out = tmp_path / "out.wav"
    with pytest.raises(InputError, match="the audio device is gone"):
        session(record_output=out).run()
    assert read(out)[0].shape == (1, 20 * 512)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_file_and_a_device(side, session, monkeypatch, clip, tmp_path):
    fake = FakeSoundDevice(melody(1.0), RATE)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    path = clip if side == "input" else tmp_path / "out.wav"
    report = session(**{side: str(path)}, seconds=0.3).run()
    assert report.state.seconds >= 0.3
    assert fake.played and (side == "input" or read(path)[0].shape[1] > 0)


def test_the_source_is_chosen_on_the_first_second(quick, monkeypatch, clip, tmp_path, capfd):
    loaded = []
    monkeypatch.setattr(
        listener, "instrument_probabilities", lambda wav, rate: {"flute": 0.9, "violin": 0.1}
    )
    settings = replace(SETTINGS, source="auto", input=str(clip), output=str(tmp_path / "out.wav"))
    LiveSession(settings, lambda source: loaded.append(source) or quick).run()
    assert "flute" in loaded
    assert "source: flute (it sounds like flute, 90%)" in capfd.readouterr().err


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), Interrupted(15, "terminated")])
def test_a_signal_leaves_the_recordings(signal, session, monkeypatch, clip, tmp_path):
    def blocks(path, size):
        for _ in range(10):
            yield np.zeros((size, 1), np.float32)
        raise signal

    monkeypatch.setattr(sessions, "file_blocks", blocks)
    live = session(input=str(clip), output=str(tmp_path / "out.wav"))
    if isinstance(signal, KeyboardInterrupt):  # the usual end of a session
        assert live.run().state.seconds == pytest.approx(10 * 512 / RATE)
    else:
        with pytest.raises(Interrupted):
            live.run()
    assert read(tmp_path / "out.wav")[0].shape == (1, 10 * 512)


def test_a_full_disk_is_an_error(session, clip, tmp_path):
    out = tmp_path / "missing" / "deeper" / "out.wav"
    (tmp_path / "missing").write_text("a file, not a folder")
    with pytest.raises((InputError, OSError)):
        session(input=str(clip), output=str(out)).run()


def test_the_display():
    state = EngineState(12.0, 0.1, 0.0, 0.42, 3, 0.5)
    line = status_line(state, 0.98)
    assert "delay 0.98 s" in line and "load  42%" in line and "dropouts 3" in line
    assert meter(1.0) == f"[{'#' * 16}]" and meter(0.0) == f"[{'-' * 16}]"
    stream = io.StringIO()
    display = Display(1.0, stream)
    display.show(state)
    display.tell("hello")
    assert stream.getvalue() == "hello\n"  # not a terminal: messages only
