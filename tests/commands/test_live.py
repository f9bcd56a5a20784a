"""The command `live`, up to its start, and a file to a file."""

import sys

import pytest
import soundfile
from conftest import RATE, melody


@pytest.fixture
def live(command, instruments):
    return lambda *arguments: command(
        "live.py", f"source={instruments[0]}", f"target={instruments[1]}", *arguments
    )


def test_help(command):
    assert "devices=true" in command("live.py", "--help").out


def test_a_file_to_a_file(live, tmp_path):
    soundfile.write(tmp_path / "in.wav", melody(0.5), RATE)
    result = live("input=in.wav", "output=out.wav", "pace=false", "num_steps=2", "transpose=0")
    assert result.code == 0 and "0 dropouts" in result.out
    assert soundfile.info(tmp_path / "out.wav").frames > RATE


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["input=missing.wav"], "input=missing.wav: no such file"),
        (["input=in.wav", "output=in.wav"], "must be different files"),
        (["input=in.wav", "output=out.wav", "rate=44100"], "rate=44100: in.wav has 24000 Hz"),
        (
            ["input=in.wav", "output=out.wav", "latency=0.1"],
            "latency=0.1 must be at least 0.43 s with block=512",
        ),
        (["latency=soon"], "latency=soon must be"),
        (["wet=2"], "wet=2 must be"),
        (["record_input=take.txt"], "record_input=take.txt must be a file that ends in .wav"),
        (["transpose=9"], "transpose=9 must be"),
        (["--latency", "1"], "latency=1, not --latency"),
        (["devices=maybe"], "devices=maybe must be true or false"),
    ],
)
def test_wrong_settings(arguments, says, live, tmp_path):
    soundfile.write(tmp_path / "in.wav", melody(0.1), RATE)
    assert says in live(*arguments).error()


def test_no_source(command):
    assert "missing: source=... target=..." in command("live.py").error()


def test_no_library(live, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for result in (live(), command("live.py", "devices=true")):
        assert 'pip install "timbridge[live]"' in result.error()
