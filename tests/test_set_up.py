"""The environment that `make` sets up: which Python, where it writes, when it is done again."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

_spec = importlib.util.spec_from_file_location("set_up", ROOT / "scripts" / "set_up.py")
set_up = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(set_up)


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """What is run, with the environment of each; nothing is installed."""
    ran = []
    monkeypatch.setattr(
        set_up, "run", lambda command, hint, environment=None: ran.append((command, environment))
    )
    monkeypatch.setattr(set_up, "works", lambda python, statement: False)
    monkeypatch.setattr(set_up.subprocess, "check_output", lambda command: b"3 13")

    def main(*arguments: str) -> list:
        ran.clear()
        folder = tmp_path / "my venv"
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "argv", ["set_up.py", "--venv", str(folder), *arguments])
        set_up.main()
        return ran

    return main


def test_the_bounds_are_those_of_the_package():
    (bounds,) = re.findall(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert [set_up.OLDEST[1], set_up.NEWEST[1] + 1] == list(map(int, bounds))


@pytest.mark.parametrize("version", [(3, 9), (3, 15), (2, 7)])
def test_a_python_that_does_not_serve(version):
    with pytest.raises(
        SystemExit, match=r"Python 3.10 to 3.14 is required, this is \d.\d+ \(there\); choose"
    ):
        set_up.check_version(version, "there")
    set_up.check_version((3, 13), "there")


def test_it_installs_once_and_again_when_something_changed(commands, monkeypatch, capsys):
    (made, _), (pip, environment) = commands()
    assert made[1:3] == ["-m", "venv"] and pip[-2:] == ["-r", "requirements.txt"]
    assert "GB" in capsys.readouterr().out
    extra = environment["DIST_EXTRA_CONFIG"]  # the checkout may be read-only
    assert "my venv" in extra and f"egg_base = {os.path.dirname(extra)}" in Path(extra).read_text()
    assert [command[1:3] for command, _ in commands()] == [
        ["-m", "venv"]
    ]  # pip is missing still: `works` says so
    assert commands("--dev")[-1][0][-1] == ".[data,notebook,judge,app,dev,ray,slurm]"
    assert [command[1:3] for command, _ in commands("--app")] == [
        ["-m", "venv"]
    ]  # --dev includes it
    monkeypatch.setattr(set_up, "ROOT", str(ROOT / "tests" / ".."))  # the checkout was moved
    assert commands("--app")[-1][0][-1] == ".[app]"
    assert len(commands()) == 1  # --app includes it


@pytest.mark.parametrize("home", [None, "/some/home"])
def test_pip_keeps_no_cache_without_a_home(commands, monkeypatch, home):
    monkeypatch.delenv("PIP_NO_CACHE_DIR", raising=False)
    monkeypatch.setattr(set_up.os.path, "expanduser", lambda path: path if home is None else home)
    assert (commands()[-1][1].get("PIP_NO_CACHE_DIR") == "1") is (home is None)
