"""Folders of recordings: failures stop no other file, and doubtful sources are named."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, melody
from folders import clips, make, outputs, plan

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.transfer import file_transfer


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("out of luck"), UnicodeDecodeError("utf8", b"", 0, 1, "")]
)
@pytest.mark.parametrize("place", ["windows", "add"])
def test_whatever_a_file_raises_it_fails_alone(error, place, quick, tmp_path, monkeypatch):
    original = getattr(file_transfer.FileTransfer, place)

    def broken(self, *arguments):
        if self.job.input.name.startswith("1_"):
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(file_transfer.FileTransfer, place, broken)
    told = make(quick, plan(str(clips(tmp_path / "in", 3)), str(tmp_path / "out"), None))
    assert len(told["done"]) == 2 and outputs(tmp_path / "out") == {"0_clip.wav", "2_clip.wav"}
    ((_, reason),) = told["failed"]
    assert "1_clip.wav" in reason and ("out of memory" in reason) == isinstance(error, MemoryError)


def test_only_the_culprit_of_a_batch_fails(quick, tmp_path, monkeypatch):
    """A window that the networks cannot take, or a batch that is too large for the memory."""
    monkeypatch.setattr(quick, "batch_size", 4)
    bridge_batch = quick.bridge_batch

    def fragile(batch):
        if len(batch) > 1 or batch[0][0].job.input.name.startswith("2_"):
            raise RuntimeError("out of memory")
        return bridge_batch(batch)

    monkeypatch.setattr(quick, "bridge_batch", fragile)
    told = make(quick, plan(str(clips(tmp_path / "in", 5)), str(tmp_path / "out"), None))
    assert len(told["done"]) == 4 and [job.input.name for job, _ in told["failed"]] == [
        "2_clip.wav"
    ]
    assert "use a smaller batch_size" in told["failed"][0][1]


def test_what_an_output_format_cannot_hold_fails_before_the_work(transfer, tmp_path):
    folder = clips(tmp_path / "in", 1)
    soundfile.write(folder / "nine.wav", np.stack([melody(0.3)] * 9, 1), RATE)
    for extra in ("dry_run=true", "dry_run=false"):
        result = transfer(f"input={folder}", f"output={tmp_path}/out", "format=flac", extra)
        assert (
            f"1 of 2 files failed: cannot write {tmp_path}/out/nine.flac: .flac holds at most 8"
            in result.error()
        )
    assert outputs(tmp_path / "out") == {"0_clip.flac"}
    result = transfer(f"input={folder}", f"output={tmp_path}/mid", "format=flac", "channels=mid")
    assert result.code == 0 and outputs(tmp_path / "mid") == {"0_clip.flac", "nine.flac"}, (
        result.err
    )


def test_what_is_left_out_is_counted_and_is_no_failure(transfer, takes, tmp_path):
    for extra in ("dry_run=true", "dry_run=false"):
        result = transfer(f"input={takes}", f"output={tmp_path}/out", extra)
        assert result.code == 0 and f"left out 1 (not audio): {takes}/notes.txt" in result.out, (
            result.err
        )
        assert f"left out 2 (hidden): {takes}/._a.wav, {takes}/.hidden" in result.out


def test_opposed_channels_are_averaged_in_phase(quick, tmp_path):
    wav = melody(0.5)
    soundfile.write(tmp_path / "in.wav", np.stack([wav, -0.5 * wav], 1), RATE)
    make(quick, plan(str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), None), mid=True)
    before = audio.active_rms(torch.from_numpy(0.75 * wav)[None], RATE)
    # 5 %: the untrained codec's sound is brought to the level in 50 ms blocks.
    assert audio.active_rms(audio.read(tmp_path / "out.wav")[0], RATE) == pytest.approx(
        before, rel=0.05
    )


# The source.


@pytest.fixture
def played(tmp_path) -> Path:
    """Clips of a flute, a cello, both at once, and silence, just long enough for a warning."""
    folder = tmp_path / "played"
    folder.mkdir()
    wavs = []
    for name, number in (("flute.flac", "307_p4"), ("cello.ogg", "10.7_p4")):
        wav, rate = audio.read_mono(ASSETS / "clips" / f"bwv{number}_t0_{name}")
        wavs.append(audio.resample(wav, rate, RATE)[:, : 4 * RATE])
        audio.write(folder / f"{name.partition('.')[0]}.wav", wavs[-1], RATE)
    audio.write(folder / "both.wav", (wavs[0] + wavs[1]) / 2, RATE)
    audio.write(folder / "silence.wav", torch.zeros(1, RATE), RATE)
    return folder


def test_a_wrong_source_and_several_voices_are_warned_of_once(transfer, played, tmp_path):
    arguments = f"input={played}", f"output={tmp_path}/out", "overwrite=true"
    result = transfer(*arguments)  # source: a flute
    warnings = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert result.code == 0 and len(warnings) == 3, result.err
    assert (
        "both.wav: several voices at once" in warnings[0]
        and "silence.wav: the recording is silent" in warnings[2]
    )
    assert (
        "cello.wav: it sounds like cello" in warnings[1]
        and "use source=cello, or source=auto" in warnings[1]
    )
    assert "with a warning about the source: 3 files" in result.out
    dry = transfer(*arguments, "dry_run=true")
    assert [line for line in dry.err.splitlines() if line.startswith("warning: ")] == warnings
    assert "warning: " not in transfer(*arguments, "listen=false").err


def test_the_source_is_chosen_for_each_recording(transfer, played, tmp_path):
    (played / "both.wav").unlink()
    arguments = (
        "source=AUTO",
        "target=bassoon",
        f"input={played}",
        f"output={tmp_path}/out",
        "report=true",
    )
    result = transfer(*arguments)
    assert result.code == 0 and "auto -> bassoon, 3 files" in result.err, result.err
    assert "sources: flute 1, cello 1" in result.out or "sources: cello 1, flute 1" in result.out
    assert re.search(r"into the target's range: 1 file moved down \d octave", result.out)
    lines = map(json.loads, (tmp_path / "out/report.jsonl").read_text().splitlines())
    facts = {Path(line["input"]).stem: line for line in lines}
    assert facts["cello"]["source"] == "cello" and facts["flute"]["source"] == "flute"
    assert facts["flute"]["octaves"] < 0 == facts["cello"]["octaves"]
    assert "3 already finished" in transfer(*arguments, "dry_run=true").out
    single = transfer(
        "source=auto", "target=bassoon", f"input={played}/flute.wav", f"output={tmp_path}/x.wav"
    )
    assert re.search(r"x\.wav \(source flute, \d+% sure; moved down \d octave", single.out), (
        single.err
    )


def test_a_range_that_is_not_known_moves_nothing_and_says_so(transfer, make_instrument, tmp_path):
    make_instrument("kazoo").save(tmp_path / "kazoo.safetensors")
    folder = clips(tmp_path / "in", 1)
    result = transfer(
        f"target={tmp_path}/kazoo.safetensors", f"input={folder}", f"output={tmp_path}/out"
    )
    assert (
        result.code == 0
        and "the range of kazoo is unknown: transpose=auto has no effect" in result.out
    )
