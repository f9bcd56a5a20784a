"""The command of the page, up to its start; tests/app/ has the page itself."""

import socket

from audio_diffusion_pytorch.app import settings


def test_help_names_the_settings(command):
    text = command("app.py", "--help").out
    assert "root_path=/timbre" in text and "auth=FILE" in text


def test_flags_get_the_right_form(command):
    error = command("app.py", "--root-path", "/timbre").error()
    assert error == ("error: arguments have the form key=value: root_path=/timbre, not --root-path")
    assert "port=8000, not --port" in command("app.py", "--port", "8000").error()


def test_a_requested_port_in_use(command, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: object())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port={port} is in use" in command("app.py", f"port={port}").error()


def test_without_the_extra(command, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    assert command("app.py").error() == (
        "error: the page needs gradio and websockets: pip install 'timbridge[app]', in a clone "
        "'.[app]'"
    )
