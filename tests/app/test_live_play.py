"""Live sessions of the page: settings, sound, queue, limits, and the connection."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from conftest import melody
from starlette.applications import Starlette
from starlette.testclient import TestClient

from audio_diffusion_pytorch.app import live_play
from audio_diffusion_pytorch.app.live_play import BLOCK, LiveCache, LivePlay, live_settings
from audio_diffusion_pytorch.app.live_socket import live_route
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.settings import AppSettings
from audio_diffusion_pytorch.app.storage import Storage
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.live import bridges
from audio_diffusion_pytorch.live.engine import EngineState

RATE = 16000
LIMIT = 30  # seconds until a test gives up
SETTINGS = {"source": "flute", "target": "violin", "rate": RATE, "transpose": 0}


@pytest.fixture
def served(tmp_path, quick, monkeypatch) -> Iterator[Service]:
    monkeypatch.setattr(bridges, "load_bridge", lambda settings, target, source: quick)
    settings = AppSettings(models=tmp_path / "none", devices=("cpu",))
    made = Service(settings, Storage(parent=tmp_path))
    yield made
    made.close()


def until(condition) -> None:
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def blocks(count: int) -> list[bytes]:
    sound = melody(count * BLOCK / RATE + 0.1, RATE).astype("<f4")
    return [sound[i * BLOCK : (i + 1) * BLOCK].tobytes() for i in range(count)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": ""}, "target= must be a text"),
        ({"quality": "best"}, "quality=best must be one of auto, instant, draft"),
        ({"wet": 2}, "wet=2 must be a number from 0 to 1"),
        ({"rate": None}, "rate"),
        ({"rate": 4000}, "rate=4000 must be"),
        ({"latency": "soon"}, "latency=soon must be"),
        ({"transpose": 99}, "transpose=99 must be"),
        ({"record_output": "/etc/x.wav"}, "the settings of a live session are source"),
    ],
)
def test_settings_are_not_trusted(change, message):
    with pytest.raises(InputError, match=message):
        live_settings({**SETTINGS, **change})
    with pytest.raises(InputError, match="the settings of a live session"):
        live_settings(["source"])


def test_files_outside_of_the_list_are_refused(served):
    with pytest.raises(InputError, match="is not in the list of models"):
        served.play_live("1", {**SETTINGS, "target": "/etc/passwd"})


def test_dry_sound_returns_after_the_constant_delay(served):
    play, ticket = served.play_live("1", {**SETTINGS, "wet": 0})
    until(lambda: play.engine)
    count = 2 + play.engine.delay // BLOCK
    given = blocks(count)
    made = [play.exchange(block) for block in given]
    given, made = (np.frombuffer(b"".join(parts), "<f4") for parts in (given, made))
    delay = play.engine.delay
    assert not made[:delay].any()
    assert np.allclose(made[delay:], np.clip(given, -1, 1)[: len(made) - delay], atol=1e-6)
    play.change({"wet": 0.5})
    assert play.engine.wet == 0.5
    ticket.cancel()
    until(lambda: ticket.state == "cancelled")


def test_wrong_messages_end_a_session(served):
    play, ticket = served.play_live("1", SETTINGS)
    until(lambda: play.engine)
    for change in ({"wet": 7}, {"wet": None}, "louder", {}):
        with pytest.raises(InputError, match="wet"):
            play.change(change)
    with pytest.raises(InputError, match=f"blocks of {BLOCK} samples"):
        play.exchange(bytes(4 * BLOCK - 4))
    with pytest.raises(InputError, match="faster than it is played"):
        for block in blocks(60):
            play.exchange(block)
    ticket.cancel()


def test_a_session_without_sound_frees_the_device(served, monkeypatch):
    monkeypatch.setattr(live_play, "_SILENCE", 0.2)
    _, ticket = served.play_live("1", SETTINGS)
    until(lambda: not ticket.is_open)
    assert ticket.state == "failed" and "no sound came from the page" in ticket.error
    other = served.workers.submit(lambda ticket, device: ticket.results.append(device))
    until(lambda: other.state == "done")


def test_a_long_session_ends_when_another_visitor_waits(served, monkeypatch):
    served.settings = replace(served.settings, live_minutes=0.005)
    play, ticket = served.play_live("1", SETTINGS)
    until(lambda: play.engine)
    block = blocks(1)[0]
    for _ in range(5):
        play.exchange(block)
        time.sleep(0.1)
    assert ticket.is_open  # nobody waits
    other, waiting = served.play_live("2", SETTINGS)
    until(lambda: other.engine)
    assert ticket.state == "failed" and "another visitor waits" in ticket.error
    waiting.cancel()


def test_one_piece_of_work_for_each_visitor(served):
    _, ticket = served.play_live("1", SETTINGS)
    with pytest.raises(InputError, match="you are playing live: press Stop"):
        served.play_live("1", SETTINGS)
    served.storage.forget("1")
    until(lambda: ticket.state == "cancelled")


def test_a_slow_machine_is_told_once():
    class Slow:
        state = EngineState(load=1.5, dropouts=3, too_slow=True)

        def advice(self):
            return "use quality=instant"

    play = LivePlay(live_settings(SETTINGS), LiveCache(), lambda seconds: None)
    play.engine = Slow()
    assert play.state["warning"] == "use quality=instant" and play.state["dropouts"] == 3
    Slow.state = EngineState()
    assert play.state["warning"] == "use quality=instant"


def test_many_gaps_are_told_too():
    class Busy:
        state = EngineState(load=0.9, dropouts=10)

        def advice(self):
            return "use latency=2"

    play = LivePlay(live_settings(SETTINGS), LiveCache(), lambda seconds: None)
    play.engine = Busy()
    assert play.state["warning"] == ""
    Busy.state = EngineState(load=0.9, dropouts=11)
    assert play.state["warning"] == "use latency=2"


def test_prepared_bridges_are_kept(quick, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        bridges, "load_bridge", lambda settings, target, source: loaded.append(source) or quick
    )
    cache, settings = LiveCache(), live_settings(SETTINGS)
    first = cache.bridges(settings, Ticket())
    assert cache.bridges(replace(settings, wet=0.3), Ticket()) is first and loaded == ["flute"]
    for latency in (0.8, 0.9):
        cache.bridges(replace(settings, latency=latency), Ticket())
    assert cache.bridges(settings, Ticket()) is not first  # the oldest was dropped


def test_a_delay_that_is_too_short(served):
    _, ticket = served.play_live("1", {**SETTINGS, "latency": 0.2})
    until(lambda: not ticket.is_open)
    assert "latency=0.2 must be at least" in ticket.error


@pytest.fixture
def connect(served):
    with TestClient(Starlette(routes=[live_route(served)])) as client:
        yield lambda token: client.websocket_connect(f"/live/{token}")


def token(served, session: str) -> str:
    return served.storage.visitor(session).token


def receive(socket, state: str) -> dict:
    """The next message with a state; others are skipped."""
    while True:
        message = socket.receive()
        if message.get("text") and f'"{state}"' in message["text"]:
            return json.loads(message["text"])


def test_the_connection(served, connect):
    with connect(token(served, "1")) as socket:
        socket.send_json({**SETTINGS, "wet": 0})
        ready = receive(socket, "ready")
        assert ready["block"] == BLOCK and 0.5 < ready["delay"] < 1
        assert ready["margin"] == round(live_play.MARGIN * RATE)
        for block in blocks(3):
            socket.send_bytes(block)
        assert len(next_bytes(socket)) == 4 * BLOCK
        assert receive(socket, "playing")["dropouts"] == 0
        ticket = served.storage.visitor("1").ticket
        socket.send_json({"wet": 3})
        assert "wet=3 must be" in receive(socket, "ended")["problem"]
    until(lambda: not ticket.is_open)


def next_bytes(socket) -> bytes:
    while True:
        message = socket.receive()
        if message.get("bytes"):
            return message["bytes"]


def test_a_browser_that_vanishes_frees_the_device(served, connect):
    with connect(token(served, "1")) as socket:
        socket.send_json(SETTINGS)
        receive(socket, "ready")
        with connect(token(served, "2")) as second:
            second.send_json(SETTINGS)
            assert receive(second, "waiting")["text"] == "Waiting: another visitor plays live"
            socket.close()
            receive(second, "ready")


@pytest.mark.parametrize(
    ("message", "problem"), [("{", "not JSON"), ('{"source": "flute"}', "missing: target")]
)
def test_a_connection_with_wrong_settings(served, connect, message, problem):
    with connect(token(served, "1")) as socket:
        socket.send_text(message)
        assert problem in receive(socket, "ended")["problem"]


def test_a_connection_without_the_token_of_a_visitor(served, connect):
    with connect("guessed") as socket:
        assert "this page is too old" in receive(socket, "ended")["problem"]
