"""Folders of recordings: mirrored, skipped if finished, and what is written beside them."""

import json
import os
import re

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, melody
from folders import clips, make, outputs, plan
from tolerances import BRIDGED

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.errors import InputError


def test_a_folder_is_mirrored_and_done_once(transfer, takes, tmp_path):
    out = tmp_path / "out put"
    result = transfer(f"input={takes}", f"output={out}")
    assert result.code == 0 and f"wrote 5 files to {out}" in result.out, result.err
    assert outputs(out) == {"a.wav", "b (1).wav", "d.flac", "deep er/a.flac", "deep er/c.ogg"}
    made = {name: (out / name).stat().st_mtime_ns for name in outputs(out)}

    soundfile.write(takes / "a.wav", melody(0.2), RATE)  # changed since
    soundfile.write(takes / "new.wav", melody(0.2), RATE)
    (out / "b (1).wav").unlink()
    result = transfer(f"input={takes}", f"output={out}")
    assert f"wrote 3 files to {out}, 3 already finished" in result.out
    changed = {name for name in made if (out / name).stat().st_mtime_ns != made[name]}
    assert changed == {"a.wav", "b (1).wav"} and soundfile.info(out / "a.wav").frames == RATE // 5

    result = transfer(
        f"input={takes}", f"output={out}", "batch_size=1", "workers=1", "dry_run=true"
    )
    assert "6 already finished" in result.out  # by other means, with the same result
    result = transfer(f"input={takes}", f"output={out}", "num_steps=3", "dry_run=true")
    assert "6 files" in result.out and "done already" not in result.out  # other settings


def test_levels_of_one_file_go_into_this_folder(transfer, takes, monkeypatch):
    monkeypatch.chdir(takes)
    result = transfer("input=a.wav", "output=out.wav", "sigma=[2,4]")
    assert "wrote 2 files to this folder" in result.out, result.err
    assert {path.name for path in takes.glob("out*")} == {"out_sigma2.wav", "out_sigma4.wav"}


def test_a_list_a_glob_and_sigmas(transfer, takes, tmp_path):
    result = transfer(
        f"input=[{takes}/a.wav,{takes}/deep er]",
        f"output={tmp_path}/out",
        "sigma=[2,4.5]",
        "format=ogg",
    )
    assert result.code == 0, result.err
    names = ("a.wav", "a.flac", "c")  # both inputs named `a` keep their endings
    assert outputs(tmp_path / "out") == {
        f"{name}_sigma{s}.ogg" for name in names for s in ("2", "4.5")
    }
    jobs = plan(f"{takes}/**/*.wav", f"{tmp_path}/new", None)
    assert [str(job.output) for job in jobs] == [f"{tmp_path}/new/a.wav"]
    jobs = plan(f"{takes}/*/?.*", f"{tmp_path}/new", [4])
    assert {job.output.name for job in jobs} == {"a_sigma4.flac", "c_sigma4.ogg"}
    assert {job.output.parent.name for job in jobs} == {"deep er"}


def test_two_recordings_never_become_one_file(takes, tmp_path):
    """Nor does a recording that is named twice."""
    out = f"{tmp_path}/out"
    (takes / "deep er/a.flac").rename(takes / "deep er/A.wav")
    with pytest.raises(
        InputError,
        match=re.escape(f"{takes}/a.wav and {takes}/deep er/A.wav would both become {out}"),
    ):
        plan([f"{takes}/a.wav", f"{takes}/deep er"], out, None)
    with pytest.raises(InputError, match=r"sigma=4 and sigma=4\.0000001 would both become"):
        plan(f"{takes}/a.wav", f"{tmp_path}/x.wav", [4, 4.0000001])
    for name in ("d.wav", "d.mp3.wav"):
        soundfile.write(takes / name, melody(0.1), RATE)
    with pytest.raises(InputError, match=r"d\.mp3 and .*d\.mp3\.wav would both become"):
        plan(f"{takes}/d.*", out, None, "wav")
    (takes / "link.wav").symlink_to(takes / "a.wav")
    (tmp_path / "again").symlink_to(takes)
    names = [
        job.output.name
        for job in plan([str(takes), f"{takes}/a.wav", f"{tmp_path}/again"], out, None)
    ]
    assert len(names) == 8 and len(set(names)) == 8 and "link.wav" in names


def test_one_file_into_a_folder_and_with_sigmas(takes, tmp_path):
    (job,) = plan(f"{takes}/a.wav", f"{tmp_path}/out/", None, "flac")
    assert (
        job.output == tmp_path / "out/a.flac"
        and job.record == tmp_path / "out/.transfer/a.flac.json"
    )
    jobs = plan(f"{takes}/a.wav", f"{tmp_path}/x.wav", [2, 8])
    assert [job.output.name for job in jobs] == ["x_sigma2.wav", "x_sigma8.wav"]


def test_an_output_folder_inside_the_input_folder(quick, takes):
    for count in (5, 5):
        jobs = plan(str(takes), str(takes / "violin"), None)
        assert len(jobs) == count
        make(quick, jobs)
    assert len(outputs(takes / "violin")) == 5


def test_the_output_folder_above_the_input_folder(takes):
    assert len(plan(str(takes), str(takes.parent), None)) == 5


def test_files_of_others_are_not_replaced(transfer, takes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.wav").write_text("mine")
    result = transfer(f"input={takes}", f"output={out}")
    assert (
        f"1 of 5 files failed: {out}/a.wav exists and was not written by this command"
        in result.error()
    )
    assert (out / "a.wav").read_text() == "mine" and len(outputs(out)) == 5
    result = transfer(f"input={takes}", f"output={out}", "overwrite=true")
    assert (
        result.code == 0
        and "wrote 5 files" in result.out
        and soundfile.info(out / "a.wav").samplerate == RATE
    )


def test_tags_and_sample_formats_go_along(quick, tmp_path):
    tags = {"title": "Ärger", "artist": "née", "date": "2024", "album": "A & B"}
    endings = {"wav": "PCM_24", "flac": "PCM_24", "ogg": "VORBIS"}
    for ending, subtype in endings.items():
        with audio.writing(
            tmp_path / f"in/{ending}.{ending}", 44100, 2, subtype, tags
        ) as write_block:
            write_block(torch.from_numpy(np.stack([melody(0.2, 44100)] * 2)))
    make(quick, plan(str(tmp_path / "in"), str(tmp_path / "out"), None))
    for ending, subtype in endings.items():
        with audio.AudioReader(tmp_path / f"out/{ending}.{ending}") as file:
            assert tags.items() <= file.tags.items() and file.info.subtype == subtype
    make(quick, plan(str(tmp_path / "in"), str(tmp_path / "flac"), None, "flac"))
    assert audio.info(tmp_path / "flac/wav.flac").subtype == "PCM_24"


def test_mid_is_one_channel(quick, tmp_path):
    clip = np.stack([melody(0.5), melody(0.5) * 0.5], 1)
    soundfile.write(tmp_path / "in.wav", clip, RATE)
    told = make(quick, plan(str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), None), mid=True)
    assert told["done"][0][1]["channels"] == audio.info(tmp_path / "out.wav").channels == 1
    before = audio.active_rms(torch.from_numpy(clip.mean(1))[None].float(), RATE)
    # The level is that of 50 ms blocks, and the output has other quiet ones.
    assert audio.active_rms(audio.read(tmp_path / "out.wav")[0], RATE) == pytest.approx(
        before, rel=0.02
    )


def test_octaves(quick, make_instrument, codec, tmp_path):
    """A high melody moves to the middle of a cello's range; a melody in the range stays."""
    cello = Bridge(
        make_instrument("flute"),
        make_instrument("cello"),
        num_steps=2,
        handoff="plain",
        codec=codec,
    )
    cello.to_noise = cello.from_noise = lambda latents, melody=None: latents
    soundfile.write(tmp_path / "in.wav", melody(3.0), RATE)
    jobs = plan(str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), None)
    told = [
        make(bridge, jobs, transpose="auto")["done"][0][1]["octaves"] for bridge in (cello, quick)
    ]
    assert told == [-2, 0]
    (window,) = list(
        WindowCutter(quick.framing, RATE, 1, RecordingStats(0.1), octaves=-1).windows(
            [torch.from_numpy(tone(880.0))]
        )
    )
    peak = torch.fft.rfft(window.wav[: RATE // 4]).abs().argmax() * 4
    # The spectrum's bins are a few Hz wide.
    assert peak == pytest.approx(440, abs=4)
    kazoo = Bridge(make_instrument("flute"), make_instrument("kazoo"), num_steps=2, codec=codec)
    assert make(kazoo, jobs, overwrite=True)["done"][0][1]["octaves"] == 0  # its range is not known


def tone(hertz: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE // 2) / RATE, dtype="f4")[None]


def test_windows_of_many_files_share_batches(quick, takes, tmp_path, monkeypatch):
    batches = []
    monkeypatch.setattr(quick, "to_noise", lambda z, _: batches.append(len(z)) or z)
    quick.batch_size = 4
    make(quick, plan(str(takes), str(tmp_path / "out"), None))
    assert batches == [4, 1]


def test_a_file_is_what_the_bridge_gives_for_the_clip(transfer, instruments, tmp_path):
    """A streamed file equals one in memory; three channels keep levels of their own."""
    clip = np.stack([melody(2.5, seed=1), 0.1 * melody(2.5, seed=2), 0 * melody(2.5)], 1)
    soundfile.write(tmp_path / "in.wav", clip, RATE, subtype="FLOAT")
    assert transfer(f"input={tmp_path}/in.wav", f"output={tmp_path}/out.wav").code == 0
    expected = Bridge(*instruments, num_steps=2)(torch.from_numpy(clip.T.copy()).float(), RATE)
    out, _ = audio.read(tmp_path / "out.wav")
    assert torch.allclose(out, expected, atol=BRIDGED) and not out[2].any()


def test_report(transfer, takes, tmp_path):
    (takes / "notes.wav").write_text("no audio")
    result = transfer(f"input={takes}/*.wav", f"output={tmp_path}/out", "report=true", "sigma=3")
    assert result.code == 1
    assert outputs(tmp_path / "out") >= {"a.wav", "a.wav.png", "a.wav_pitch.png", "report.jsonl"}
    (line,) = map(json.loads, (tmp_path / "out/report.jsonl").read_text().splitlines())
    assert (
        line["input"].endswith("a.wav")
        and line["sigma"] == 3
        and line["num_steps"] == 2
        and line["duration"] == 0.3
        and line["schedule"] == "Karras"
    )
    assert (
        line["evaluations"] == 2
        and line["seconds"] > 0
        and {"dpd", "jd", "source", "target"} <= set(line)
    )


def test_a_file_without_its_report_is_not_finished(quick, tmp_path):
    """Ctrl-C between a file and its line: the next run repeats both."""
    jobs = plan(str(clips(tmp_path / "in", 2)), str(tmp_path / "out"), None)

    def interrupted(job, facts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(quick, jobs, report=interrupted)
    assert outputs(tmp_path / "out") == {"0_clip.wav"}
    reported = []
    told = make(quick, jobs, report=lambda job, facts: reported.append(job) or facts)
    assert reported == jobs and len(told["done"]) == 2
    told = make(quick, jobs, report=interrupted)
    assert len(told["left"]) == 2 and not told["failed"]


def test_names_that_are_not_utf8(transfer, quick, tmp_path):
    """On the command line, in a folder, in the report, and in the error of a bad file."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    odd, bad = (os.fsdecode(name) for name in (b"\xff $a^^$.wav", b"bad\xff.wav"))
    os.replace(clips(tmp_path / "clips", 1) / "0_clip.wav", folder / odd)
    result = transfer(f"input={folder / odd}", f"output={tmp_path / odd}")
    assert result.code == 0 and (tmp_path / odd).is_file() and r"\udcff" in result.out, result.err
    (folder / bad).write_text("no audio")
    result = transfer(f"input={folder}", f"output={out}", "report=true")
    assert f"1 of 2 files failed: cannot read {folder}/bad" in result.error()
    assert outputs(out) >= {odd, f"{odd}.png", f"{odd}_pitch.png"}
    line = json.loads((out / "report.jsonl").read_text())
    assert line["output"] == str(out / odd)
