"""Recordings that a command line names; other files are counted and named."""

import os
from pathlib import Path

import pytest
import soundfile
from conftest import RATE, melody

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer.resolve import AGAIN, FOLDER, HIDDEN, NOT_AUDIO, resolve_jobs


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.wav", "sub/b.flac"):
        soundfile.write(folder / name, melody(0.1), RATE)
    return folder


def names(plan, root: Path) -> list[str]:
    return [str(job.output.relative_to(root)) for job in plan.jobs]


def test_linked_folders_are_followed_and_loops_end(tree, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    soundfile.write(elsewhere / "c.wav", melody(0.1), RATE)
    (tree / "0_link").symlink_to(elsewhere)
    (tree / "0_again").symlink_to(tree / "sub")
    (tree / "sub/up").symlink_to(tree)
    (elsewhere / "self").symlink_to(elsewhere)
    plan = resolve_jobs(str(tree), str(tmp_path / "out"), None)
    assert names(plan, tmp_path / "out") == ["a.wav", "sub/b.flac", "0_link/c.wav"]
    assert {path.name for path in plan.left_out[AGAIN]} == {"0_again", "up", "self"}


def test_an_output_folder_behind_a_link_is_no_input(tree, tmp_path):
    out = tmp_path / "data/out"
    out.mkdir(parents=True)
    soundfile.write(out / "made.wav", melody(0.1), RATE)
    (tree / "link").symlink_to(tmp_path / "data")
    assert len(resolve_jobs(str(tree), str(out), None).jobs) == 2


def test_other_files_are_named_and_hidden_ones_too(tree, tmp_path):
    for name in ("notes.txt", "cover.jpg", "list.m3u", "unknown.xyz", "README"):
        (tree / name).write_text("no audio")
    for name in ("._a.wav", ".DS_Store"):
        (tree / name).write_text("no audio")
    (tree / ".cache").mkdir()
    soundfile.write(tree / "take", melody(0.1), RATE, format="WAV")  # no ending, and audio
    soundfile.write(tree / "take.bin7", melody(0.1), RATE, format="FLAC")
    plan = resolve_jobs(str(tree), str(tmp_path / "out"), None)
    assert names(plan, tmp_path / "out") == ["a.wav", "take.flac", "take.bin7.flac", "sub/b.flac"]
    assert {path.name for path in plan.left_out[NOT_AUDIO]} == {
        *("notes.txt", "cover.jpg", "list.m3u", "unknown.xyz", "README")
    }
    assert {path.name for path in plan.left_out[HIDDEN]} == {"._a.wav", ".cache"}


def test_a_pattern_names_what_it_passes_over(tree, tmp_path):
    (tree / "notes.txt").write_text("no audio")
    plan = resolve_jobs(f"{tree}/*", str(tmp_path / "out"), None)
    assert len(plan.jobs) == 1 and [p.name for p in plan.left_out[FOLDER]] == ["sub"]
    assert [p.name for p in plan.left_out[NOT_AUDIO]] == ["notes.txt"]
    assert FOLDER not in resolve_jobs(f"{tree}/**", str(tmp_path / "out"), None).left_out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_left_alone(tree, tmp_path):
    """To open one would wait for ever."""
    os.mkfifo(tree / "pipe")
    assert [
        p.name for p in resolve_jobs(str(tree), str(tmp_path / "out"), None).left_out[NOT_AUDIO]
    ] == ["pipe"]


def test_a_folder_that_cannot_be_read_is_told(tree, tmp_path, monkeypatch):
    scan = os.scandir

    def refused(path):
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    plan = resolve_jobs(str(tree), str(tmp_path / "out"), None)
    assert len(plan.jobs) == 1 and plan.unread == [
        f"cannot read the folder {tree}/sub: Permission denied; check its permissions"
    ]
    with pytest.raises(InputError, match="cannot read the folder"):
        resolve_jobs(str(tree / "sub"), str(tmp_path / "out"), None)


def test_an_output_that_cannot_be_written_fails_alone(tree, tmp_path):
    (tmp_path / "out/a.wav").mkdir(parents=True)
    plan = resolve_jobs(str(tree), str(tmp_path / "out"), None)
    assert len(plan.jobs) == 2 and list(plan.failures.values()) == [
        f"cannot write {tmp_path}/out/a.wav: it is a folder; give a file name"
    ]
