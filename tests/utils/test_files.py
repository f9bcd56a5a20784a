"""Any legal name, and disks that refuse rights, flushes or locks."""

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import soundfile
from conftest import RATE, melody
from hypothesis import example, given
from hypothesis import strategies as st

from audio_diffusion_pytorch.engine import local
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer.progress import TransferProgress
from audio_diffusion_pytorch.transfer.resolve import resolve_jobs
from audio_diffusion_pytorch.transfer.run import TransferRun
from audio_diffusion_pytorch.utils import files
from audio_diffusion_pytorch.utils.files import (
    NAME_BYTES,
    atomic_write,
    flush,
    holding,
    with_ending,
)

# Of 255 bytes, as many as a name may have: letters of one to four bytes, and what is no UTF-8.
LONG = ["a" * 251 + ".wav", "é" * 125 + "a.wav", "東" * 83 + "aa.wav", "🎻" * 62 + "aaa.wav"]
LONG_BYTES = os.fsdecode(b"\xff\xe9" * 125 + b"a.wav")


@given(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300
    )
)
@example(LONG[3])
@example(LONG_BYTES)
def test_names_are_cut_by_bytes(name):
    short = with_ending(name, ".json")
    assert len(os.fsencode(short)) <= NAME_BYTES and short.endswith(".json")
    if len(os.fsencode(name)) <= NAME_BYTES - 5:
        assert short == f"{name}.json"
    else:
        assert short != with_ending(name + "b", ".json")


@pytest.mark.parametrize("name", [*LONG, LONG_BYTES, "a." + "b" * 253, "." + "a" * 254])
def test_a_file_of_any_name_is_replaced(name, tmp_path):
    path = tmp_path / name
    for text in ("one", "two"):
        with atomic_write(path) as temporary, atomic_write(path) as other:
            temporary.write_text(text)
            other.write_text(text)
            assert temporary != other and len(os.fsencode(temporary.name)) <= 120
    assert path.read_text() == "two" and os.listdir(tmp_path) == [name]


def test_names_that_begin_alike_have_temporary_files_of_their_own(tmp_path):
    with (
        atomic_write(tmp_path / f"{'a' * 200}1.wav") as one,
        atomic_write(tmp_path / f"{'a' * 200}2.wav") as two,
    ):
        one.write_text("1")
        two.write_text("2")
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("name", ["a" * 251 + ".mp3", LONG[2]])
def test_folders_reports_and_records_take_any_name(name, tmp_path, transfer):
    folder = tmp_path / "in"
    folder.mkdir()
    kind = dict(format="MP3") if name.endswith("mp3") else {}
    soundfile.write(folder / "short.wav", melody(0.2), RATE, **kind)
    os.rename(folder / "short.wav", folder / name)
    arguments = f"input={folder}", f"output={tmp_path / 'out'}", "sigma=[3,4]", "report=true"
    result = transfer(*arguments)
    assert result.code == 0, result.err
    written = [
        path.name
        for path in (tmp_path / "out").iterdir()
        if path.is_file() and path.suffix in (".wav", ".flac")
    ]
    assert len(written) == 2 and all(f"_sigma{sigma}." in " ".join(written) for sigma in (3, 4))
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    again = transfer(*arguments)
    assert again.code == 0 and "2 already finished" in again.out, again.out


def refusing(number: int):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_rights(number, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "chmod", refusing(number))
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOSYS, errno.EBADF])
def test_a_disk_that_does_not_flush(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(number))
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_is_full_or_broken(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(number))
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError):
        flush(tmp_path)


def test_one_process_holds_a_file(tmp_path):
    path = tmp_path / "of" / ".lock"
    other = (
        "import sys; from pathlib import Path; from audio_diffusion_pytorch.files import holding\n"
    )
    other += "with holding(Path(sys.argv[1])) as held: print(held)"

    def elsewhere() -> str:
        return subprocess.run(
            [sys.executable, "-c", other, path], capture_output=True, text=True, check=True
        ).stdout

    with holding(path) as held:
        assert held and elsewhere() == "False\n" and path.exists()
    assert not path.exists() and elsewhere() == "True\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_is_held_on_a_disk_without_locks(number, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_lock", refusing(number))
    monkeypatch.setattr(files, "_warned_about_locks", False)
    with (
        pytest.warns(UserWarning, match="cannot be locked"),
        holding(tmp_path / "a", wait=True) as held,
    ):
        assert held


def test_a_disk_without_locks_is_told_of_once(tmp_path, monkeypatch, transfer):
    monkeypatch.setattr(files, "_lock", refusing(errno.ENOLCK))
    monkeypatch.setattr(files, "_warned_about_locks", False)
    (tmp_path / "in").mkdir()
    for index in range(2):
        soundfile.write(tmp_path / "in" / f"{index}.wav", melody(0.2, seed=index), RATE)
    result = transfer(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "report=true")
    assert result.code == 0 and len(list((tmp_path / "out").glob("*.wav"))) == 2
    assert result.err.count("warning: ") == 1 and "cannot be locked" in result.err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with holding(tmp_path / "a", wait=True) as held:
            assert held


def test_workers_share_a_warning_and_need_shared_memory(tmp_path, monkeypatch, quick):
    monkeypatch.setattr(files, "_lock", refusing(errno.ENOLCK))
    monkeypatch.setattr(files, "_warned_about_locks", False)
    monkeypatch.setattr(local, "ProcessPoolExecutor", refusing(errno.EROFS))
    (tmp_path / "in").mkdir()
    for index in range(2):
        soundfile.write(tmp_path / "in" / f"{index}.wav", melody(0.2, seed=index), RATE)
    plan = resolve_jobs(str(tmp_path / "in"), str(tmp_path / "out"), None)
    progress = TransferProgress(TransferRun("flute", "violin"), quick, plan)
    locks = []
    monkeypatch.setattr(progress, "_warn", lambda text: locks.append(str(text)))
    with pytest.raises(
        InputError, match=r"shared memory, and /dev/shm .*Read-only file system.*use workers=1"
    ):
        progress.run_jobs(Engine(2))
    assert len(locks) == 1 and "cannot be locked" in locks[0]
