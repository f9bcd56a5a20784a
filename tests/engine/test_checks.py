"""Folders and versions of a node."""

import re
from pathlib import Path
from shutil import rmtree

import pytest

from audio_diffusion_pytorch.engine.checks import NodeCheck
from audio_diffusion_pytorch.errors import InputError


def refused(check: NodeCheck, reason: str) -> None:
    with pytest.raises(InputError, match=f"^node a1 {re.escape(reason)}"):
        check.see_folders("a1")


def test_a_node_that_sees_everything(tmp_path):
    recording = tmp_path / "a.wav"
    recording.touch()
    with NodeCheck.marked({}, [recording], tmp_path / "out") as check:
        check.see_folders("a1")
        assert list((tmp_path / "out").iterdir()) == [check.marker]
    assert not list((tmp_path / "out").iterdir())


def test_a_node_that_starts_when_the_command_ends(tmp_path):
    with NodeCheck.marked({}, [], tmp_path) as check:
        pass
    refused(check, f"does not see {tmp_path} of this command")
    assert not list(tmp_path.iterdir())


def test_a_node_that_does_not_see_a_recording(tmp_path):
    with NodeCheck.marked({}, [tmp_path / "a.wav"], tmp_path) as check:
        refused(check, f"does not see {tmp_path / 'a.wav'} of this command: inputs and outputs")


def test_a_node_with_another_folder_of_the_same_name(tmp_path):
    with NodeCheck.marked({}, [], tmp_path) as check:
        rmtree(check.marker)
        refused(check, f"does not see {tmp_path} of this command")


def test_a_node_without_space(tmp_path, file_size_limit):
    with NodeCheck.marked({}, [], tmp_path) as check, file_size_limit(0):
        refused(check, f"cannot write to {tmp_path}: File too large; choose another output")
    assert not list(tmp_path.iterdir())


def test_a_node_that_cannot_write(tmp_path, monkeypatch):
    """The tests run as root, whom permissions do not stop."""
    with NodeCheck.marked({}, [], tmp_path) as check:

        def refuse(path: Path, *_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("builtins.open", refuse)
        refused(check, f"cannot write to {tmp_path}: Permission denied; choose another output")
        monkeypatch.undo()


def test_a_node_with_another_version():
    check = NodeCheck({"timbridge": "2.0", "source": "flute 1a"}, [], Path("out/.engine-1"))
    check.compare("a1", {"timbridge": "2.0", "source": "flute 1a"})
    with pytest.raises(InputError, match=r"^node a1 has source flute 1b, .* command has flute 1a"):
        check.compare("a1", {"timbridge": "2.0", "source": "flute 1b"})
    with pytest.raises(InputError, match=r"^node a1 has timbridge None, .* has 2\.0: install"):
        check.compare("a1", {})
