"""Settings of the page: ports, users, paths behind a proxy."""

import socket
from pathlib import Path

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from audio_diffusion_pytorch.app import settings
from audio_diffusion_pytorch.app.settings import AppSettings, choose_port, read_users
from audio_diffusion_pytorch.errors import InputError


def arguments(**changed) -> dict:
    config = OmegaConf.load(ROOT / "configs" / "app.yaml")
    for key in ("defaults", "hydra"):
        config.pop(key)
    return {**OmegaConf.to_container(config), **changed}


def test_the_defaults_of_the_configuration_are_those_of_the_class():
    assert AppSettings.from_arguments(arguments()) == AppSettings()


def test_the_page_is_for_this_machine_only_unless_asked():
    assert AppSettings().host == "127.0.0.1" and not AppSettings().share


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"port": 0}, "port=0 must be a whole number from 1 to 65535, or null"),
        ({"port": "x"}, "port=x must be"),
        ({"browser": "yes"}, "browser=yes must be true or false"),
        ({"share": 1}, "share=1 must be true or false"),
        ({"max_minutes": 0}, "max_minutes=0 must be a number above 0"),
        ({"max_waiting": 1.5}, "max_waiting=1.5 must be a whole number above 0"),
        ({"device": []}, "device=[] must be a device or a list of devices"),
        ({"auth": "no/such/file"}, "cannot read auth=no/such/file: give a text file"),
        ({"models": ""}, "models= must be a text"),
    ],
)
def test_wrong_settings(changed, says):
    with pytest.raises(InputError) as error:
        AppSettings.from_arguments(arguments(**changed))
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("given", "path"), [(None, ""), ("/", ""), ("timbre", "/timbre"), ("/a/b/", "/a/b")]
)
def test_root_path(given, path):
    assert AppSettings.from_arguments(arguments(root_path=given)).root_path == path


def test_several_devices():
    assert AppSettings.from_arguments(arguments(device=["cuda:0", "cuda:1"])).devices == (
        "cuda:0",
        "cuda:1",
    )


def test_users(tmp_path: Path):
    path = tmp_path / "users"
    path.write_text("# teachers\nanna:a:b\n\nbert: secret \n", encoding="utf-8")
    assert read_users(path) == (("anna", "a:b"), ("bert", " secret"))
    path.write_text("anna\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1 must have the form NAME:PASSWORD"):
        read_users(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="names no user"):
        read_users(path)


def test_a_port_in_use_is_passed_over_unless_it_was_asked_for(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(settings, "FIRST_PORT", port)
        assert port < choose_port("127.0.0.1", None) < port + settings.PORTS
        with pytest.raises(InputError, match=f"port={port} is in use"):
            choose_port("127.0.0.1", port)
        monkeypatch.setattr(settings, "PORTS", 1)
        with pytest.raises(InputError, match="are in use: choose one with port=NUMBER"):
            choose_port("127.0.0.1", None)


def test_an_address_of_another_machine():
    with pytest.raises(InputError, match="is not an address of this machine"):
        choose_port("no.such.host.invalid", None)


def test_without_gradio_one_line_names_the_command(monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'timbridge\[app\]'"):
        settings.check_gradio()
