"""Files of visitors: names that are not trusted, and deletion."""

import os
import time
from pathlib import Path

import pytest

from audio_diffusion_pytorch.app.storage import (
    Storage,
    delete_abandoned,
    safe_stem,
    shown_name,
    take_upload,
)


@pytest.fixture
def storage(tmp_path):
    made = Storage(keep_minutes=1, parent=tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "shown", "stem"),
    [
        ("../../etc/passwd", "passwd", "passwd"),
        ("C:\\music\\flute.wav", "flute.wav", "flute"),
        ("a\"b'<i>x</i>.wav", "i>.wav", "i_"),
        ("<b>.wav", "<b>.wav", "_b_"),
        ("née (1).flac", "née (1).flac", "née (1)"),
        ("take 1.2.wav", "take 1.2.wav", "take 1.2"),
        ("...", "...", "recording"),
        ("", "recording", "recording"),
        ("a\nb\x00.wav", "ab.wav", "ab"),
        ("$(rm -r x);`y`.wav", "$(rm -r x);`y`.wav", "_(rm -r x)__y_"),
    ],
)
def test_names_are_not_trusted(name, shown, stem):
    assert shown_name(name) == shown
    assert safe_stem(name) == stem


def test_a_long_name_is_cut():
    assert len(safe_stem("é" * 300 + ".wav").encode()) <= 80


def test_visitors_have_folders_that_nobody_can_guess(storage):
    one, two = storage.visitor("1"), storage.visitor("2")
    assert storage.visitor("1") is one and one.folder != two.folder
    assert len(one.folder.name) >= 20 and one.new_folder() != one.new_folder()


def test_a_visitor_who_leaves_leaves_no_file(storage):
    visitor = storage.visitor("1")
    (visitor.new_folder() / "sound.wav").write_bytes(b"x")
    storage.forget("1")
    assert not visitor.folder.exists()
    assert storage.visitor("1") is not visitor
    storage.forget("nobody")


def test_old_files_are_deleted_and_others_stay(storage, monkeypatch):
    old, new = storage.visitor("old"), storage.visitor("new")
    upload = storage.uploads / "x" / "a.wav"
    upload.parent.mkdir()
    upload.write_bytes(b"x")
    old.used -= 120
    storage.delete_old()
    assert not old.folder.exists() and new.folder.exists() and upload.exists()
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    storage.delete_old()
    assert not upload.exists()


def test_work_in_progress_keeps_its_files(storage):
    from audio_diffusion_pytorch.app.worker import Ticket

    visitor = storage.visitor("1")
    visitor.ticket = Ticket()
    visitor.used -= 3600
    storage.delete_old()
    assert visitor.folder.exists()
    visitor.ticket.cancel()
    storage.delete_old()
    assert not visitor.folder.exists()


def test_the_next_server_deletes_what_a_killed_one_left(tmp_path):
    child = os.fork()
    if child == 0:
        Storage(parent=tmp_path)
        os._exit(9)  # without any clean-up
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    running = Storage(parent=tmp_path)
    assert not left.exists() and running.root.exists()
    delete_abandoned(tmp_path)
    assert running.root.exists()
    running.close()
    assert not list(tmp_path.iterdir())


def test_an_upload_is_kept_under_a_fixed_name(tmp_path: Path):
    source = tmp_path / "evil name;.wav"
    source.write_bytes(b"sound")
    folder = tmp_path / "folder"
    folder.mkdir()
    kept = take_upload(source, folder)
    source.unlink()
    assert kept == folder / "input" and kept.read_bytes() == b"sound"
