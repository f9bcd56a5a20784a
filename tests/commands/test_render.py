"""scripts/render_dataset.py: what it renders, resumes and refuses, on a few pieces."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from audio_diffusion_pytorch.commands import render as command_module
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render import chorales, clips, player, requirements

SCRIPTS = ROOT / "scripts"


def command(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, SCRIPTS / "render_dataset.py", *arguments]
    return subprocess.run(
        [str(a) for a in line], capture_output=True, text=True, env={**os.environ, **env}
    )


def hashes(folder: Path) -> dict[str, str]:
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".flac", ".json") and path.parent != folder
    ]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def notes_of(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*/*/*.json"))}


@pytest.fixture(scope="session")
def renders() -> None:
    """Skip without the `data` extra, FluidSynth or a SoundFont; fail on CI, which installs them."""
    try:
        requirements.find_soundfonts(None)
        requirements.check_libraries(synthesises=True)
    except InputError:
        reason = (
            "needs the data extra, libfluidsynth3 and a General MIDI SoundFont "
            "(apt: fluid-soundfont-gm)"
        )
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def rendered(renders: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chorales") / "out"
    done = command(
        "--output", folder, "--instruments", "flute", "cello", "--pieces", 2, "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_clips_are_level_and_sound_what_their_notes_say(rendered: Path) -> None:
    clips = notes_of(rendered)
    assert {about["instrument"] for about in clips.values()} == {"flute", "cello"}
    for stem, about in clips.items():
        path = next(rendered.glob(f"*/{about['instrument']}/{stem}.flac"))
        assert stem == f"{about['piece']}_{about['part']}_t{about['take']}_{about['instrument']}"
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        audio, rate = soundfile.read(path)
        assert about["duration"] == len(audio) / rate
        # -6 dB has three decimals.
        assert np.abs(audio).max() == pytest.approx(0.501, abs=0.001)
        assert abs(audio.mean()) < 0.005
        assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

        notes = about["notes"]
        assert notes[0][0] >= 0.1 and notes[-1][1] < about["duration"]
        # -60 dB: the synthesiser's own noise before the first note.
        assert np.abs(audio[: int((notes[0][0] - 0.01) * rate)]).max() < 1e-3
        heard = []
        for onset, offset, pitch in notes:
            if offset - onset > 0.4:
                tone = audio[int((onset + 0.1) * rate) : int((offset - 0.1) * rate)]
                spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 1 << 16))
                partials = spectrum.argmax() * rate / (1 << 16) / (440 * 2 ** ((pitch - 69) / 12))
                heard.append(abs(partials - max(round(partials), 1)) < 0.03 * partials)
        assert len(heard) > 10 and np.mean(heard) > 0.95


def test_the_manifest_says_what_the_folder_holds(rendered: Path) -> None:
    manifest = json.loads((rendered / "manifest.json").read_text())
    flacs = {path.relative_to(rendered).as_posix() for path in rendered.glob("*/*/*.flac")}
    assert manifest["complete"] and set(manifest["files"]) == flacs
    assert manifest["programs"] == {"flute": 73, "cello": 42}
    assert (
        all(len(font["sha256"]) == 64 for font in manifest["soundfonts"])
        and manifest["versions"]["fluidsynth"]
    )
    assert sum(cell["clips"] for row in manifest["clips"].values() for cell in row.values()) == len(
        flacs
    )
    for name in flacs:
        split, _, file = name.split("/")
        assert manifest["pieces"][file.split("_")[0]] == split


def test_a_second_run_renders_only_what_is_missing(rendered: Path) -> None:
    before = hashes(rendered)
    lost = next(rendered.glob("*/flute/*.flac"))
    times = {path: path.stat().st_mtime_ns for path in rendered.glob("*/*/*.flac") if path != lost}
    lost.unlink()
    stale = lost.with_name(f"{clips.TEMPORARY}1-{lost.name}")
    stale.write_bytes(b"half a clip")
    done = command("--output", rendered, "--instruments", "flute", "cello", "--pieces", 2)
    assert f"{len(times) + 1} clips, {len(times)} of them already rendered" in done.stdout
    assert hashes(rendered) == before and not stale.exists()
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.long
def test_the_same_seed_gives_the_same_bytes_anywhere(rendered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "à côté"
    done = command("--output", folder, "--instruments", "cello", "--pieces", 2, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert hashes(folder) == {
        name: value for name, value in hashes(rendered).items() if "/cello/" in name
    }


def test_paired_clips_are_one_performance(renders: None, tmp_path: Path) -> None:
    done = command(
        "--output", tmp_path, "--instruments", "violin", "double bass", "--pieces", 1, "--paired"
    )
    assert done.returncode == 0, done.stderr
    clips = notes_of(tmp_path)
    violins = [stem for stem in clips if stem.endswith("_violin")]
    assert violins and len(clips) == 2 * len(violins)
    for stem in violins:
        one, other = clips[stem], clips[stem.replace("_violin", "_double_bass")]
        assert one["paired"] and other["paired"]
        for key in ("duration", "soundfont", "bpm", "part"):
            assert one[key] == other[key]
        a, b = np.array(one["notes"]), np.array(other["notes"])
        assert np.array_equal(a[:, :2], b[:, :2])
        moved = 12 * (one["octave_shift"] - other["octave_shift"])
        assert (
            moved > 0
            and np.all((a[:, 2] - b[:, 2]) % 12 == 0)
            and np.mean(a[:, 2] - b[:, 2] == moved) > 0.95
        )


def test_a_dry_run_counts_and_writes_nothing(renders: None, tmp_path: Path) -> None:
    done = command(
        "--output", tmp_path / "out", "--instruments", "tuba", "--pieces", 1, "--dry-run"
    )
    assert done.returncode == 0 and "tuba" in done.stdout and "GB" in done.stdout
    assert not list(tmp_path.iterdir())


# Pieces

SCALE = [[float(k), 1.0, 60 + k, 0] for k in range(12)]


def test_the_split_follows_the_tune() -> None:
    higher = [[onset, length, pitch + 5, held] for onset, length, pitch, held in SCALE]
    ornamented = [[0.0, 0.5, 60, 0], [0.5, 0.5, 62, 0], *SCALE[1:]]
    assert chorales.opening(SCALE) == chorales.opening(higher) == chorales.opening(ornamented)
    splits = [chorales.split_of(0, [k, k + 1]) for k in range(2000)]
    assert [round(splits.count(name) / 2000, 1) for name in ("train", "valid", "test")] == [
        0.8,
        0.1,
        0.1,
    ]
    assert splits[:100] != [chorales.split_of(1, [k, k + 1]) for k in range(100)]
    assert chorales.split_of(0, [2, 2, 1]) == chorales.split_of(0, [2, 2, 1])


def test_only_monophonic_parts_are_read(tmp_path: Path) -> None:
    music21 = pytest.importorskip("music21")
    pitches = [60, 62, 64, 65, 67, 65, 64, 62] * 3

    def part(name: str, notes: list) -> object:
        stream = music21.stream.Part(notes, partName=name)
        stream.partName = name
        return stream

    def line(offset: int = 0) -> list:
        return [music21.note.Note(pitch + offset) for pitch in pitches]

    held = line()
    held[3].tie, held[4].tie = music21.tie.Tie("start"), music21.tie.Tie("stop")
    held[4].pitch = held[3].pitch
    held[7].expressions.append(music21.expressions.Fermata())
    chords = [music21.chord.Chord([pitch, pitch + 4]) for pitch in pitches]
    drum = [music21.note.Note(45 + 5 * (k % 2)) for k in range(24)]
    named = {"Soprano": held, "Alto": line(-5), "Oboe": line(-5), "Organ": chords, "Timpani": drum}
    score = music21.stream.Score([part(name, notes) for name, notes in named.items()])
    piece = chorales.read_piece(str(score.write("musicxml", tmp_path / "piece.musicxml")))
    assert [p["name"] for p in piece["parts"].values()] == ["Soprano", "Alto"]
    notes = piece["parts"]["p1"]["notes"]
    assert notes[3] == [3.0, 2.0, 65, 0] and len(notes) == 23
    assert (
        [n[0] for n in notes if n[3]]
        == [7.0]
        == [n[0] for n in piece["parts"]["p2"]["notes"] if n[3]]
    )


def test_long_rests_are_cut() -> None:
    notes = chorales.without_long_rests([[2.0, 1.0, 60], [5.0, 1.0, 62], [30.0, 2.0, 64]], {32.0})
    assert notes == [[0.0, 1.0, 60, 0], [3.0, 1.0, 62, 0], [8.0, 2.0, 64, 1]]


# The player


@pytest.mark.parametrize("instrument", player.INSTRUMENTS)
def test_every_note_lies_in_the_instruments_range(instrument: str) -> None:
    _, low, high = player.INSTRUMENTS[instrument]
    rng = np.random.default_rng(0)
    for centre in (40, 55, 70, 85):
        part = (centre + rng.integers(-8, 9, 100)).tolist()
        octaves = player.octaves_into(instrument, part)
        assert octaves is not None
        played = [player.played_pitch(instrument, pitch, octaves) for pitch in part]
        assert low <= min(played) and max(played) <= high
        assert all((a - b) % 12 == 0 for a, b in zip(part, played, strict=True))
        assert abs(np.mean(played) - (low + high) / 2) <= 9
    assert player.octaves_into(instrument, list(range(30, 90))) is None


def test_a_performance_is_playable_and_its_own() -> None:
    part = [[k / 2, 0.5, 60 + (k // 2) % 7, int(k % 16 == 15)] for k in range(64)]
    state = random.getstate(), np.random.get_state()[1].tolist()
    seen = [player.perform(part, clips.generator(0, k)) for k in range(20)]
    assert state == (random.getstate(), np.random.get_state()[1].tolist())
    assert player.perform(part, clips.generator(0, 3)) == seen[3] != seen[4]
    for performance in seen:
        onset, offset, pitch, velocity = np.array(performance.notes).T
        assert 0.09 < onset[0] < 0.31 and np.all(np.diff(onset) > 0.045) and np.all(offset > onset)
        assert np.all(offset[:-1] - onset[1:] < 0.055)
        assert np.all((offset[:-1] < onset[1:])[np.diff(pitch) == 0])
        assert velocity.min() >= 25 and velocity.max() <= 120 and len(set(velocity)) > 5
        assert performance.duration >= offset.max() + 0.59
        blocks = np.array([onset, offset]) * player.RENDER_RATE / player.BLOCK
        assert np.allclose(blocks, blocks.round())
        assert all(
            0 <= value <= 127 for _, kind, value in performance.controls if kind == "expression"
        )
    assert len({performance.bpm for performance in seen}) == 20


def test_halving_the_rate_keeps_what_is_below_11_khz() -> None:
    time = np.arange(48_001, dtype=np.float64) / 48_000
    kept = player.halve(np.sin(2 * np.pi * 10_000 * time).astype(np.float32))
    assert len(kept) == 24_001
    expected = np.sin(2 * np.pi * 10_000 * time[::2])
    assert np.abs(kept - expected)[100:-100].max() < 1e-3
    gone = player.halve(np.sin(2 * np.pi * 12_500 * time).astype(np.float32))
    # The filter's stop band lies at -80 dB, its pass band is flat within 0.1 %.
    assert np.abs(gone[100:-100]).max() < 1e-4


# What is refused


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("render_dataset: error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_an_unknown_instrument_is_refused(tmp_path: Path) -> None:
    line = refused(command("--output", tmp_path, "--instruments", "flute", "kazoo"))
    assert "kazoo" in line and "double_bass" in line


def test_a_soundfont_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "fluid-soundfont-gm" in refused(
        command("--output", tmp_path, "--soundfont", tmp_path / "none.sf2")
    )
    fake = tmp_path / "fake.sf2"
    fake.write_bytes(b"not a SoundFont")
    assert "fake.sf2 is not a SoundFont" in refused(
        command("--output", tmp_path, "--soundfont", fake)
    )


def test_no_soundfont_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(requirements, "SOUNDFONT_FOLDERS", ("/nowhere",))
    with pytest.raises(SystemExit) as stopped:
        command_module.main(["--output", "out"])
    assert stopped.value.code == 2
    assert "musescore-general-soundfont or fluid-soundfont-gm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "body", "expected"),
    [
        (
            "music21",
            "raise ModuleNotFoundError(name='music21')",
            "music21 is not installed: pip install music21 pyfluidsynth",
        ),
        (
            "fluidsynth",
            "raise ModuleNotFoundError(name='fluidsynth')",
            "pyfluidsynth is not installed: pip install",
        ),
        (
            "fluidsynth",
            "raise ImportError('no FluidSynth library.')",
            "install the Debian package libfluidsynth3",
        ),
    ],
)
def test_a_missing_library_is_named(
    renders: None, tmp_path: Path, module: str, body: str, expected: str
) -> None:
    (tmp_path / f"{module}.py").write_text(body)
    assert expected in refused(command("--output", tmp_path / "out", PYTHONPATH=str(tmp_path)))


def test_an_output_that_cannot_be_written_is_refused(renders: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refused(
        command("--output", tmp_path / "file" / "out", "--pieces", 1)
    )


def test_another_seed_in_the_same_folder_is_refused(rendered: Path) -> None:
    assert "another seed (0)" in refused(command("--output", rendered, "--seed", 1, "--pieces", 1))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, audio_diffusion_pytorch.commands.render as r\ntry: r.main(['--help'])\n"
    code += "finally: assert not {'numpy', 'music21', 'fluidsynth'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--paired" in done.stdout, done.stderr
