"""Folders of recordings: bad files, full disks, interrupts, and runs that share a folder."""

import errno
import os
import re
import resource
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from conftest import RATE, melody, start_process
from filelock import FileLock
from folders import clips, make, outputs, plan
from torch import nn

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer import file_transfer as recordings


@pytest.mark.parametrize("count", [36, pytest.param(1000, marks=pytest.mark.long)])
def test_many_files_of_which_some_are_broken(count, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waiting for the disk is most of the work
    monkeypatch.setattr(soundfile.SoundFile, "flush", lambda _: None)
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "0000.wav", melody(0.01), RATE)
    content = (folder / "0000.wav").read_bytes()
    broken = [f"{index:04}.wav" for index in range(5, count, count // 6)]
    for index in range(count):
        name = f"{index:04}.wav"
        (folder / name).write_bytes(b"no sound" if name in broken else content)
    told = make(quick, plan(str(folder), str(tmp_path / "out"), None))
    assert len(told["done"]) == len(outputs(tmp_path / "out")) == count - len(broken)
    assert [job.input.name for job, _ in told["failed"]] == broken and len(broken) > 5
    assert all(str(job.input) in reason for job, reason in told["failed"])


def test_lengths_of_nothing_and_of_one_sample(quick, tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "in/one.flac", np.full(1, 0.5), 192000)
    soundfile.write(tmp_path / "in/two.ogg", np.full((2, 2), 0.5), 8000)
    out = tmp_path / "out"
    told = make(quick, plan(str(tmp_path / "in"), str(out), None))
    ((_, reason),) = told["failed"]
    assert reason == f"cannot read {tmp_path}/in/none.wav as audio: it holds no samples"
    assert [soundfile.info(out / name).frames for name in ("one.flac", "two.ogg")] == [1, 2]


def test_a_file_that_grows_or_disappears_while_it_is_read(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("audio_diffusion_pytorch.audio.reader.BLOCK", 4000)
    path = tmp_path / "in.wav"
    soundfile.write(path, melody(1.0), RATE)
    with audio.AudioReader(path) as file:
        blocks = file.blocks()
        next(blocks)
        with open(path, "ab") as end:
            end.write(b"more")
        with pytest.raises(InputError, match=f"{path}: it changed while it was being read"):
            list(blocks)
    soundfile.write(path, melody(1.0), RATE)
    with audio.AudioReader(path) as file:
        blocks = file.blocks()
        next(blocks)
        path.unlink()
        assert sum(block.shape[1] for block in blocks) == RATE - 4000  # it is open: nothing is lost
    jobs = plan(str(clips(tmp_path / "takes", 3)), str(tmp_path / "out"), None)
    jobs[1].input.unlink()
    told = make(quick, jobs)
    assert (
        told["failed"] == [(jobs[1], f"no such audio file: {jobs[1].input}")]
        and len(told["done"]) == 2
    )


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_disk_that_gets_full(ending, quick, tmp_path):
    """A limit on the size of files stands for it: the kernel refuses to write on, in the middle."""
    folder, out = clips(tmp_path / "in", 2, f"short.{ending}"), tmp_path / "out"
    rng = np.random.default_rng(0)
    soundfile.write(folder / f"long.{ending}", rng.uniform(-0.5, 0.5, 4 * RATE), RATE)
    out.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        told = make(quick, plan(str(folder), str(out), None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ((job, reason),) = told["failed"]
    assert job.input.name == f"long.{ending}" and reason.startswith(
        f"cannot write {out}/long.{ending}: "
    )
    assert "File too large; choose another output or free space" in reason
    assert len(told["done"]) == 2 and outputs(out) == {
        f"0_short.{ending}",
        f"1_short.{ending}",
    }  # nothing half-written


def test_a_full_disk_while_a_long_recording_is_kept(quick, tmp_path, monkeypatch):
    class Full(recordings.SpooledTemporaryFile):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recordings, "SpooledTemporaryFile", Full)
    told = make(quick, plan(str(clips(tmp_path / "in", 1)), str(tmp_path / "out"), None))
    assert "No space left on device; choose another output or free space" in told["failed"][0][1]
    assert not outputs(tmp_path / "out")


def test_a_job_that_another_run_holds_is_left_to_it(quick, tmp_path):
    jobs = plan(str(clips(tmp_path / "in", 3)), str(tmp_path / "out"), None)
    jobs[1].record.parent.mkdir(parents=True)
    with FileLock(jobs[1].record.with_suffix(".lock")):
        told = make(quick, jobs)
    assert [job for job, _ in told["left"]] == [jobs[1]] and len(told["done"]) == 2
    told = make(quick, jobs)  # as a run that planned before the others were done
    assert [job for job, _ in told["done"]] == [jobs[1]] and len(told["left"]) == 2


# Workers that share jobs: also engine/test_local.py and test_evaluate.py.
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.long
def test_two_runs_and_their_workers_share_a_folder(workers, command, instruments, tmp_path):
    """Every file is made once."""
    arguments = f"source={instruments[0]}", f"target={instruments[1]}", "num_steps=2", "device=cpu"
    arguments += f"input={clips(tmp_path / 'in', 12, seconds=2.0)}", f"output={tmp_path}/out"
    options = (*arguments, f"workers={workers}")
    first = start_process("transfer.py", *options, cwd=tmp_path, logs=tmp_path)
    limit = time.monotonic() + 200
    while not list(tmp_path.glob("out/**/*.lock")):
        assert time.monotonic() < limit and first.poll() is None
        time.sleep(0.01)
    second = command("transfer.py", *arguments)
    out, err = first.communicate(timeout=300)
    assert first.returncode == second.code == 0, err + second.err
    written = [int(text.partition("wrote ")[2].split()[0]) for text in (out, second.out)]
    assert sum(written) == 12 and len(outputs(tmp_path / "out")) == 12
    assert not list((tmp_path / "out").rglob("*.lock"))


@pytest.mark.parametrize(  # SIGTERM: also test_workers_end_with_the_command
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
@pytest.mark.long
def test_ctrl_c_keeps_what_is_finished(number, command, instruments, tmp_path):
    folder, out = clips(tmp_path / "in", 2), tmp_path / "out"
    soundfile.write(folder / "z.wav", np.tile(melody(10.0), 15), RATE)
    arguments = (
        f"source={instruments[0]}",
        f"target={instruments[1]}",
        f"input={folder}",
        f"output={out}",
    )
    process = start_process("transfer.py", *arguments, "num_steps=50", cwd=tmp_path, logs=tmp_path)
    limit = time.monotonic() + 200
    while len(list(out.glob("?_clip.wav"))) < 2:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number, err
    assert re.search(
        r"interrupted: [12] of 3 files are finished; the same command continues with the rest",
        err,
    )
    assert outputs(out) == {"0_clip.wav", "1_clip.wav"} and not list(out.rglob("*.lock"))
    again = command("transfer.py", *arguments, "num_steps=50", "dry_run=true")
    assert "1 file," in again.out and "2 already finished" in again.out


@pytest.mark.long  # also engine/test_local.py
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(number, instruments, tmp_path):
    """Also within a recording: a living worker would keep the command's output open."""
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"in/{name}.wav", np.tile(melody(10.0), 10), RATE)
    arguments = (
        f"source={instruments[0]}",
        f"target={instruments[1]}",
        f"input={tmp_path}/in",
        f"output={out}",
    )
    arguments += "num_steps=200", "workers=2", "device=cpu"
    process = start_process("transfer.py", *arguments, cwd=tmp_path, logs=tmp_path)
    try:
        limit = time.monotonic() + 200
        while len(list(out.rglob("*.lock"))) < 2:
            assert time.monotonic() < limit and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert (
            "interrupted: 0 of 2 files are finished; the same command continues with the rest"
            in err
        )
    assert not outputs(out) and not list(out.rglob("*.lock"))


class Broken(nn.Module):
    def forward(self, *_):
        raise ZeroDivisionError


def test_a_defect_fails_every_file_and_ends_none_of_them(quick, tmp_path):
    """The run goes on to its end, and leaves no lock and no file behind."""
    quick.codec = Broken()
    quick.codec.__dict__.update(
        sample_rate=RATE, hop_length=320, latent_channels=128, encode=Broken()
    )
    quick.codec.num_frames = lambda length: -(-length // 320)
    told = make(quick, plan(str(clips(tmp_path / "in", 3)), str(tmp_path / "out"), None))
    assert len(told["failed"]) == 3 and "0_clip.wav: ZeroDivisionError" in told["failed"][0][1]
    assert not outputs(tmp_path / "out") and not list(tmp_path.rglob("*.lock"))
