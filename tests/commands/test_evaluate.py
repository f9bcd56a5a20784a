"""`evaluate.py`: pairs and finished files, resuming, and named and counted problems."""

import csv
import json
import os
import pickle
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.commands import evaluate as evaluate_command
from audio_diffusion_pytorch.engine import engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import Recording
from audio_diffusion_pytorch.evaluation.outputs import find_outputs
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier
from audio_diffusion_pytorch.paths import CONFIGS

TUNES = ((60, 64, 67, 72, 71, 67), (62, 65, 69, 67, 65, 64), (67, 65, 64, 62, 60, 62))
SECONDS = 2.0
DEMO = Path(os.environ.get("REFERENCE_DEMO", ROOT.parent / "shared" / "reference" / "demo"))


def notes_of(tune: tuple[int, ...], octaves: int = 0) -> list[list[float]]:
    return [[i / 3, i / 3 + 0.3, pitch + 12 * octaves] for i, pitch in enumerate(tune)]


@cache
def play(tune: tuple[int, ...], octaves: int, decay: float) -> np.ndarray:
    t = np.arange(round(SECONDS * RATE)) / RATE
    wav = np.zeros_like(t)
    for onset, offset, pitch in notes_of(tune, octaves):
        envelope = np.clip((t - onset) / 0.01, 0, 1) * np.clip((offset - t) / 0.02, 0, 1)
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t
        wav += envelope * sum(np.sin(h * phase) / h**decay for h in range(1, 8))
    return (0.2 * wav).astype(np.float32)


def put(
    folder: Path, instrument: str, number: int, octaves: int = 0, notes: bool = True, name: str = ""
) -> Path:
    path = folder / instrument / f"{name or f'tune{number}'}_{instrument}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = play(TUNES[number], octaves, 1.0 if instrument == "violin" else 2.0)
    soundfile.write(path, wav, RATE)
    if notes:
        played = notes_of(TUNES[number], octaves)
        path.with_suffix(".json").write_text(json.dumps({"notes": played}))
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """Three performances, each by a flute and by a violin."""
    folder = tmp_path / "data [1] é"
    for number in range(3):
        put(folder, "flute", number)
        put(folder, "violin", number)
    return folder


@pytest.fixture
def evaluate(command, data, instruments, tmp_path):
    """The command with small models and short clips; later arguments win."""

    def run(*arguments):
        defaults = {
            **{
                "data": data,
                "models": instruments[0].parent,
                "output": tmp_path / "out",
                "seconds": SECONDS,
            },
            **{
                "num_steps": 3,
                "solver": "euler",
                "sigma": 4,
                "cycle_clips": 1,
                "report_clips": 0,
                "device": "cpu",
            },
        }
        given = dict(a.split("=", 1) for a in arguments)
        if "outputs" in given:
            del defaults["models"]
        return command(
            "evaluate.py", *(f"{key}={value}" for key, value in (defaults | given).items())
        )

    return run


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("evaluate", ["device=cpu"])


def results(folder: Path) -> dict:
    content = json.loads((folder / "results.json").read_text())
    assert content.pop("made").keys() == {"date", "version", "commit"}
    return content


def finished(folder: Path, data: Path, place: str = "flute-violin") -> Path:
    """Outputs as another system would leave them: here the true performances."""
    for path in sorted((data / "flute").glob("*.wav")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        truth = data / "violin" / path.name.replace("flute", "violin")
        shutil.copy(truth, folder / place / path.name)
    return folder


def test_a_pair_is_scored_beside_its_reference_points(evaluate, data, tmp_path):
    classifier = InstrumentClassifier(("flute", "violin"), channels=(4, 4, 4, 4), hidden=4)
    classifier.save(tmp_path / "ear.safetensors")
    result = evaluate(
        "pairs=[flute-violin]", "report_clips=1", f"classifier={tmp_path}/ear.safetensors"
    )
    assert result.code == 0, result.err
    assert "0 of 15 scores found" in result.out and "bridge: targets" not in result.out
    content = results(tmp_path / "out")
    systems = {pair["system"]: pair for pair in content["pairs"]}
    assert set(systems) == {"identity", "codec only", "warm start", "true performance", "bridge"}
    assert all(
        pair["clips"] == 3 and pair["embedder"] == "small codec" for pair in systems.values()
    )
    assert all(0 <= pair["taken"][0] <= 1 for pair in systems.values())
    assert systems["identity"]["dpd"][0] == 0 and systems["identity"]["frechet_share"][0] in (
        None,
        1,
    )
    assert (
        systems["true performance"]["rca"][0] > 0.9
        and systems["true performance"]["log_mel_share"][0] == 0
    )
    assert systems["bridge"]["evaluations"][0] == 4 and systems["warm start"]["evaluations"][0] == 2
    assert systems["bridge"]["cycle_latent"][0] > 0 and systems["bridge"]["noise_spread"][0] > 0
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 == len(content["clips"])
    row = next(r for r in rows if r["system"] == "bridge")
    assert (row["pair"], row["sigma"], row["num_steps"], row["solver"]) == (
        "flute-violin",
        "4.0",
        "3",
        "euler",
    )
    assert row["output"] == f"sounds/flute-violin/{row['clip']}_bridge.flac"
    assert (tmp_path / "out" / row["output"]).is_file() and (data / row["input"]).is_file()
    assert (row["melody_reference"], row["schedule"]) == ("notes", "Karras")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<audio") == 4 and page.count("<img") == 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing lies outside
    assert (tmp_path / "out" / "pairs.png").read_bytes().startswith(b"\x89PNG")


def test_it_goes_on_where_it_stopped_and_says_the_same(evaluate, tmp_path):
    arguments = "pairs=[flute-violin]", "clips=2", "references=[identity,warm,truth]"
    assert evaluate(*arguments).code == 0
    first = results(tmp_path / "out")
    sounds = sorted((tmp_path / "out/.evaluate/sounds").glob("*.flac"))
    scores = sorted((tmp_path / "out/.evaluate/scores").glob("*.json"))
    assert len(sounds) == 4 and len(scores) == 8
    before = {path: path.stat().st_mtime_ns for path in sounds}
    for path in scores[::2]:
        path.unlink()
    result = evaluate(*arguments)
    assert result.code == 0 and "4 of 8 scores found" in result.out
    assert results(tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in sounds} == before
    for name in ("sounds", "scores"):  # where an earlier version kept them
        shutil.rmtree(tmp_path / "out" / name, ignore_errors=True)
        (tmp_path / "out/.evaluate" / name).rename(tmp_path / "out" / name)
    (tmp_path / "out/.evaluate").rmdir()
    assert "8 of 8 scores found" in evaluate(*arguments).out and results(tmp_path / "out") == first
    shutil.rmtree(tmp_path / "out")
    assert evaluate(*arguments).code == 0
    again = results(tmp_path / "out")
    for pair in (*first["pairs"], *again["pairs"], *first["clips"], *again["clips"]):
        pair.pop("seconds_per_second", None)
    assert again == first


def test_workers_give_the_same_scores(evaluate, data, tmp_path, monkeypatch):
    """A silent recording is named, and so is a batch that ends two workers."""
    soundfile.write(data / "flute" / "silent_flute.wav", np.zeros(2 * RATE), RATE)
    settings = "pairs=[flute-violin]", "batch_size=2", "references=[identity]", "cycle_clips=0"
    asked: list[str] = []

    def in_a_worker(task, workers, jobs, tell) -> None:
        asked.extend(jobs)
        task = pickle.loads(pickle.dumps(task))
        task.do(task.start(0, workers), jobs[1:], tell)
        tell("failed", jobs[0], f"{jobs[0]} ended two workers")

    monkeypatch.setattr(engine, "run_in_processes", in_a_worker)
    shared = evaluate(*settings, f"output={tmp_path}/shared", "workers=2")
    alone = evaluate(*settings)
    assert alone.code == shared.code == 0, alone.err + shared.err
    assert asked[0] == "flute-violin, identity, clips 1 to 2"
    assert f"{asked[0]} ended two workers" in shared.out
    assert "silent_flute.wav: silence" in alone.out and "silent_flute.wav: silence" in shared.out
    rows = [results(tmp_path / folder)["clips"] for folder in ("out", "shared")]
    for row in (row for side in rows for row in side):
        row.pop("seconds_per_second", None)
    assert len(rows[1]) == len(rows[0]) - 2
    assert all(row in rows[0] for row in rows[1])


def test_another_model_or_setting_is_scored_anew(evaluate, make_instrument, instruments, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for path in instruments:
        shutil.copy(path, models)
    arguments = "pairs=[flute-violin]", f"models={models}", "references=[identity]", "cycle_clips=0"
    arguments += ("clips=2",)
    assert "0 of 4 scores found" in evaluate(*arguments).out
    assert "4 of 4 scores found" in evaluate(*arguments).out
    assert "2 of 4 scores found" in evaluate(*arguments, "num_steps=4").out
    make_instrument("violin", seed=5).save(models / "violin.safetensors")
    assert "2 of 4 scores found" in evaluate(*arguments).out


@pytest.mark.long
def test_a_sweep_of_sigma_and_a_comparison_of_models(evaluate, instruments, tmp_path):
    for path, name in zip(
        instruments, ("one", "two"), strict=True
    ):  # Hydra's grammar takes plain paths in mappings
        shutil.copy(path, tmp_path / f"{name}.safetensors")
    other = f"{{flute: {tmp_path}/two.safetensors, violin: {tmp_path}/one.safetensors}}"
    result = evaluate(
        *("pairs=[flute-violin]", "sigma=[1,2,100]", f"compare={{swapped: {other}}}"),
        *("references=[identity,warm]", "clips=2"),
    )
    assert result.code == 0, result.err
    labels = {pair["system"] for pair in results(tmp_path / "out")["pairs"]}
    names = (
        f"{name}, sigma {sigma}" for name in ("bridge", "swapped", "warm start") for sigma in (1, 2)
    )
    assert labels == {"identity", *names}
    assert "sigma=100 lies outside" in result.out
    assert (tmp_path / "out" / "trade_off.png").is_file()
    assert evaluate("pairs=[flute-violin]", "references=[identity]", "clips=2").code == 0
    assert not (tmp_path / "out" / "trade_off.png").exists()  # the report is another one


def test_statistics_are_needed_of_the_target_only(evaluate, make_instrument, tmp_path):
    known = {"sigma": [4.0], "mean": [[0.0] * 128], "std": [[1.0] * 128]}
    make_instrument("flute").save(tmp_path / "models" / "flute.safetensors")
    make_instrument("violin", seed=1, noise=known).save(tmp_path / "models" / "violin.safetensors")
    arguments = "handoff=matched", f"models={tmp_path}/models", "references=[identity]", "clips=1"
    result = evaluate("pairs=[flute-violin]", *arguments)
    assert result.code == 0, result.err
    row = next(row for row in results(tmp_path / "out")["clips"] if row["system"] == "bridge")
    assert row["cycle_latent"] > 0
    assert "the model of flute holds none" in evaluate("pairs=[violin-flute]", *arguments).error()


def test_all_pairs_of_what_has_clips_and_models(evaluate, data, tmp_path):
    put(data, "tuba", 0)
    result = evaluate("pairs=all", "references=[identity]", "clips=1", "cycle_clips=0")
    assert result.code == 0, result.err
    assert {pair["pair"] for pair in results(tmp_path / "out")["pairs"]} == {
        "flute-violin",
        "violin-flute",
    }
    assert "tuba: no tuba.safetensors in the folder" in result.out


def test_finished_outputs_of_any_system(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data)
    result = evaluate("pairs=[flute-violin]", f"outputs={outputs}", "system=theirs")
    assert result.code == 0, result.err
    systems = {pair["system"]: pair for pair in results(tmp_path / "out")["pairs"]}
    assert set(systems) == {"identity", "codec only", "true performance", "theirs"}
    assert systems["theirs"]["log_mel_share"][0] == 0 and systems["theirs"]["rca_relative"][0] == 1


def test_what_an_evaluation_wrote_is_not_evaluated(evaluate, data):
    """Its folder may lie in that of the data."""
    arguments = (
        "pairs=[flute-violin]",
        "references=[identity]",
        "cycle_clips=0",
        "clips=1",
        f"output={data}/flute/out",
    )
    first = evaluate(*arguments)
    assert first.code == 0 and (data / "flute/out/sounds/flute-violin").is_dir(), first.err
    again = evaluate(*arguments)
    assert "2 of 2 scores found" in again.out and "no instrument's name" not in again.out


def test_outputs_are_scored_anew_against_another_input(evaluate, data, tmp_path):
    arguments = "pairs=[flute-violin]", f"outputs={finished(tmp_path / 'theirs', data)}"
    assert evaluate(*arguments).code == 0
    soundfile.write(data / "flute" / "tune0_flute.wav", play(TUNES[1], 0, 2.0), RATE)
    result = evaluate(*arguments)
    assert (
        result.code == 0 and "8 of 12 scores found" in result.out
    )  # all four systems' of this clip are made


def test_outputs_of_one_pair_may_lie_in_the_folder_itself(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data, ".")
    assert evaluate("pairs=[flute-violin]", f"outputs={outputs}").code == 0
    assert len(results(tmp_path / "out")["clips"]) == 12


def in_albums(data: Path) -> tuple[Path, Path]:
    """Two performances of one name on each instrument, in two subfolders."""
    for path in data.rglob("*.*"):
        path.unlink()
    for number, album in enumerate(("s1", "s2")):
        for instrument in ("flute", "violin"):
            put(data / album, instrument, number, name="x")
    return data / "s1", data / "s2"


@pytest.mark.parametrize("below", ["", "flute"])
def test_inputs_of_one_name_have_their_own_outputs_and_truths(below, evaluate, data, tmp_path):
    """Here the outputs are the true performances: any mistake is a distance."""
    theirs = tmp_path / "theirs"
    for album in in_albums(data):
        made = theirs / album.relative_to(data) / below / "x_flute.wav"
        made.parent.mkdir(parents=True)
        shutil.copy(album / "violin" / "x_violin.wav", made)
    result = evaluate(
        "pairs=[flute-violin]", f"outputs={theirs}", "references=[identity,truth]", f"data={data}"
    )
    if not below:  # neither mirrored from the data's folder on, nor of names that tell
        assert re.search(
            "no output of this name in .* \\(2: s1/flute/x_flute.wav, s2/flute/x_flute.wav\\)",
            result.error(),
        )
        return
    assert result.code == 0, result.err
    rows = [row for row in results(tmp_path / "out")["clips"] if row["system"] == "outputs"]
    assert [row["clip"] for row in rows] == ["s1/flute/x_flute.wav@0", "s2/flute/x_flute.wav@0"]
    assert [row["log_mel_truth"] for row in rows] == [0, 0] and all(
        row["rca"] > 0.9 for row in rows
    )
    shutil.move(theirs / "s2" / below / "x_flute.wav", theirs / "x_flute.wav")
    result = evaluate(
        "pairs=[flute-violin]", f"outputs={theirs}", "references=[identity,truth]", f"data={data}"
    )
    assert "s2/flute/x_flute.wav: no output of this name in" in result.out
    rows = [row for row in results(tmp_path / "out")["clips"] if row["system"] == "outputs"]
    assert [row["clip"] for row in rows] == ["s1/flute/x_flute.wav@0"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ("flute/s1/x.wav flute/s2/x.wav", "s1/x.wav s2/x.wav", "s1/x.wav s2/x.wav"),
        ("flute/s1/x.wav flute/s2/x.wav", "s1/x.wav x.wav", "s1/x.wav -"),
        ("flute/x.wav flute/flute/x.wav", "x.wav flute/x.wav", "x.wav flute/x.wav"),
        ("a.wav a.mp3 b.mp3", "a.wav.wav a.mp3.flac b.flac", "a.wav.wav a.mp3.flac b.flac"),
        ("a.wav a.flac", "a.wav a.flac", "a.wav a.flac"),
        ("s1/a.wav s2/b.wav", "a.wav other/b.wav", "a.wav other/b.wav"),
        ("s1/a.wav b.wav", "s1/a.wav s2/a.wav", "s1/a.wav -"),
        ("s1/a.wav b.wav", "s2/a.wav s3/a.wav", "- -"),
    ],
)
def test_outputs_are_found_by_place_and_by_names_that_tell(inputs, outputs, expected, tmp_path):
    data, place = tmp_path / "data", tmp_path / "place"
    for path in outputs.split():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / path, np.zeros(240), RATE, format=path.rpartition(".")[2].upper())
    recordings = [Recording(data / path, "flute", "", 0.01) for path in inputs.split()]
    found = find_outputs(place, ("flute", "violin"), data, recordings, True, Problems())
    told = [str(found[r.path].relative_to(place)) if r.path in found else "-" for r in recordings]
    assert told == expected.split()


MOVES = "identity", "moved input"


@pytest.mark.long
def test_a_melody_out_of_range_moves_by_octaves(evaluate, data, tmp_path):
    """A flute two octaves too low for a violin, with a true performance in its register."""
    for path in [*data.glob("flute/*"), *data.glob("violin/*")]:
        path.unlink()
    for number in range(2):
        put(data, "flute", number, octaves=-2)
        put(data, "violin", number, octaves=1)
    put(data, "flute", 2, octaves=-2, notes=False)
    result = evaluate("pairs=[flute-violin]", "references=[identity,truth]", "cycle_clips=0")
    assert result.code == 0, result.err
    rows = results(tmp_path / "out")["clips"]
    assert {row["octaves"] for row in rows if "tune2" not in row["clip"]} == {3}
    alone = [row for row in rows if "tune2" in row["clip"]]
    assert {row["octaves"] for row in alone} == {3} and {
        row["melody_reference"] for row in alone
    } == {"input"}
    # Without notes, the pitches of the recording itself are moved by three octaves.
    assert all(row["rpa"] > 0.7 for row in alone if row["system"] in MOVES)
    paired = [
        [row for row in rows if row["system"] == name and "tune2" not in row["clip"]]
        for name in MOVES
    ]
    assert all(row["rpa"] > 0.7 and row["log_mel_truth"] > 0 for rows in paired for row in rows)
    assert all(
        a["log_mel_truth"] > b["log_mel_truth"] for a, b in zip(*paired, strict=True)
    )  # the move brings it nearer
    result = evaluate(
        "pairs=[flute-violin]", "references=[identity,truth]", "cycle_clips=0", "transpose=0"
    )
    assert "flute-violin, 2 of 3 clips: the true performance lies in another register" in result.out
    rows = results(tmp_path / "out")["clips"]
    assert {row["octaves"] for row in rows} == {0} and all(
        row["log_mel_truth"] is None for row in rows
    )


def test_damage_costs_the_damaged_clip_only(evaluate, data, tmp_path):
    def spoil(path: Path) -> Path:
        wav, rate = soundfile.read(path)
        wav[RATE // 2] = np.nan
        soundfile.write(path, wav, rate, subtype="FLOAT")
        return path

    put(data, "flute", 0, notes=False, name="new")
    damaged = (
        spoil(put(data, "flute", 1, notes=False, name="bad")),
        spoil(next(data.glob("violin/*.wav"))),
    )
    result = evaluate("pairs=[flute-violin]", "references=[identity,truth]", "cycle_clips=0")
    assert result.code == 0 and all("/".join(path.parts[-2:]) in result.out for path in damaged), (
        result.out
    )
    rows = results(tmp_path / "out")["clips"]
    for system, scored in (("identity", 4), ("bridge", 4), ("true performance", 2)):
        known = [row["log_mel_truth"] is not None for row in rows if row["system"] == system]
        assert (len(known), sum(known)) == (scored, 2)


def test_bad_clips_are_named_and_the_rest_is_scored(evaluate, data, tmp_path):
    put(data, "flute", 0, name="short")
    soundfile.write(data / "flute" / "short_flute.wav", play(TUNES[0], 0, 2.0)[:RATE], RATE)
    (data / "flute" / "damaged_flute.wav").write_bytes(b"no sound")
    soundfile.write(data / "flute" / "silent_flute.wav", np.zeros(2 * RATE), RATE)
    put(data, "flute", 1, name="odd").with_suffix(".json").write_text("{}")
    soundfile.write(data / "song.wav", np.zeros(100), RATE)
    result = evaluate("pairs=[flute-violin,flute-tuba]", "references=[identity]", "cycle_clips=0")
    assert result.code == 0, result.err
    said = result.out.partition("Left out or not scored (")[2]
    assert said.startswith("7)")  # and too few frames
    for words in (
        "short_flute.wav: shorter than an excerpt (seconds=2)",
        "damaged_flute.wav as audio",
        "silent_flute.wav: silence",
        "cannot read the notes in",
        "song.wav: no instrument's name",
        "flute-tuba: no tuba.safetensors in the folder",
    ):
        assert words in said
    assert len(results(tmp_path / "out")["clips"]) == 6
    assert len(results(tmp_path / "out")["left_out"]) == 7


def test_bad_outputs_are_named_and_the_rest_is_scored(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data) / "flute-violin"
    (outputs / "tune0_flute.wav").write_bytes(b"no sound")
    soundfile.write(outputs / "tune1_flute.wav", np.zeros(RATE), RATE)
    put(data, "flute", 2, name="more")
    result = evaluate("pairs=[flute-violin]", f"outputs={outputs.parent}", "references=[identity]")
    assert result.code == 0, result.err
    for words in (
        "tune0_flute.wav as audio",
        "tune1_flute.wav (1.00 s, its input 2.00 s): not as long as its input",
        "more_flute.wav: no output of this name in",
    ):
        assert words in result.out
    assert [row["clip"] for row in results(tmp_path / "out")["clips"]] == ["tune2_flute@0"] * 2
    (line,) = [line for line in result.out.splitlines() if "no Frechet distance: " in line]
    assert line.endswith("(2: flute-violin identity, flute-violin outputs)")


def test_nothing_to_score_is_an_error(evaluate, data, tmp_path):
    outputs = tmp_path / "theirs"
    outputs.mkdir()
    soundfile.write(outputs / "another.wav", np.zeros(RATE), RATE)
    error = evaluate("pairs=[flute-violin]", f"outputs={outputs}").error()
    assert "nothing to evaluate" in error and "no output of this name" in error
    assert (
        "no folder of outputs of this name" in evaluate("pairs=all", f"outputs={outputs}").error()
    )
    assert "no recording of tuba" in evaluate("pairs=[tuba-flute]").error()
    assert "shorter than an excerpt" in evaluate("pairs=[flute-violin]", "seconds=60").error()
    assert "no recording to evaluate" in evaluate(f"data={outputs}").error()
    for path in data.rglob("*.wav"):
        soundfile.write(path, np.zeros(2 * RATE), RATE)
    assert "nothing could be scored" in evaluate("pairs=[flute-violin]").error()
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("pairs=[flute]", "write SOURCE-TARGET"),
        ("pairs=[flute-flute]", "write SOURCE-TARGET"),
        ("pairs=[]", "pairs is empty"),
        ("data=nowhere", "data=nowhere must be a folder that exists"),
        ("outputs=nowhere", "outputs=nowhere must be a folder that exists"),
        ("clips=0", "clips=0 must be a whole number of at least 1, or null"),
        ("seconds=-1", "seconds=-1 must be a number above 0"),
        ("sigma=[1,0]", "sigma=0 must be a number above 0"),
        ("sigma=high", "sigma=high must be a number above 0"),
        ("transpose=up", "transpose=up must be a whole number from -5 to 5, or auto"),
        ("melody=maybe", "melody=maybe must be true or false, or auto"),
        ("melody_guidance=-1", "melody_guidance=-1 must be a number of at least 0"),
        ("transpose=99", "transpose=99 must be a whole number from -5 to 5"),
        ("transpose=true", "transpose=true must be a whole number"),
        (
            "references=[codecs]",
            "references=codecs must be one of identity, codec, warm, melody, truth; did you mean "
            "codec?",
        ),
        ("references=junk", "references=junk must be one of"),
        ("references=null", "references=null must be one of"),
        ("pairs=null", "pairs=null must be all"),
        ("pairs=7", "pairs=7 must be all"),
        ("models=[]", "models=[] must be a text"),
        ("models={flute: 7}", "models.flute=7 must be a text"),
        ("models={flute: null}", "models.flute=null must be a text"),
        ("compare=junk", "compare=junk must be {NAME: models, ...}"),
        ("compare={other: []}", "compare.other=[] must be a text"),
        ("compare={bridge: all}", "compare: bridge is the name of another system"),
        ("compare={identity: all}", "compare: identity is the name of another system"),
        ("system=codec only", "system=codec only is the name of a reference point"),
        ("system=[a]", "system=[a] must be a single value"),
        ("codec=null", "codec=null must be {weights: FILE}"),
        ("output=", "output= must be a text that is not empty"),
        ("output=null", "output=null must be a text"),
        ("data=", "data= must be a text that is not empty"),
        ("sigma=[4,4.0000001]", "two levels are equal"),
        ("quality=null", "quality=null must be a text"),
        ("solver=7", "solver=7 must be a text"),
        ("device=null", "device=None cannot be used"),
        ("embedder=vggish", "codec=vggish must be one of small"),
        ("solver=rk4", "solver=rk4 must be one of heun"),
        ("targets=1", "targets=1 must be true or false"),
        ("device=tpu", "device=tpu cannot be used"),
    ],
)
def test_arguments_that_make_no_sense(argument, says, composed, data, instruments, monkeypatch):
    monkeypatch.chdir(data)
    (override,) = OverridesParser.create().parse_overrides([argument])
    models = None if override.key_or_group == "outputs" else str(instruments[0].parent)
    settings = {"pairs": ["flute-violin"], "data": str(data), "models": models}
    cfg = OmegaConf.merge(composed, settings)
    cfg[override.key_or_group] = override.value()
    with pytest.raises(InputError, match=re.escape(says)):
        evaluate_command.evaluate(cfg)


def test_an_error_is_one_line(evaluate):
    assert "write SOURCE-TARGET" in evaluate("pairs=[flute]").error()


def test_a_system_may_be_named_by_a_number(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data)
    result = evaluate(
        "pairs=[flute-violin]",
        f"outputs={outputs}",
        "system=7",
        "references=identity",
        "report_clips=1",
    )
    assert result.code == 0, result.err
    assert {pair["system"] for pair in results(tmp_path / "out")["pairs"]} == {"identity", "7"}


def test_reference_points_alone_are_no_evaluation(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data)
    for path in outputs.rglob("*.wav"):
        soundfile.write(path, np.full(2 * RATE, np.nan), RATE, subtype="FLOAT")
    error = evaluate("pairs=[flute-violin]", f"outputs={outputs}", "references=[identity]").error()
    assert "nothing but reference points could be scored" in error and "holds NaN" in error
    assert not (tmp_path / "out" / "results.json").exists()


def test_silent_recordings_are_no_real_clips(evaluate, data, tmp_path):
    outputs = finished(tmp_path / "theirs", data)
    soundfile.write(data / "violin" / "silent_violin.wav", np.zeros(2 * RATE), RATE)
    result = evaluate("pairs=[flute-violin]", f"outputs={outputs}", "references=[identity]")
    assert result.code == 0, result.err
    assert "silent_violin.wav: silence from 0 s: not used as a real clip" in result.out
    assert results(tmp_path / "out")["real"]["violin"]["clips"] == 3


def test_what_is_kept_and_damaged_is_made_again(evaluate, tmp_path):
    arguments = "pairs=[flute-violin]", "references=[identity]", "clips=2"
    assert evaluate(*arguments).code == 0
    first = results(tmp_path / "out")
    sounds = sorted((tmp_path / "out/.evaluate/sounds").glob("*.flac"))
    before = [path.read_bytes() for path in sounds]
    scores = sorted((tmp_path / "out/.evaluate/scores").glob("*.json"))
    sounds[0].write_bytes(before[0][:200])
    assert (
        "4 of 4 scores found" in evaluate(*arguments).out
    )  # it is still needed for the Frechet distance
    assert sounds[0].read_bytes() == before[0] and results(tmp_path / "out") == first
    sounds[1].write_bytes(b"no sound")
    for path in scores:
        path.write_text("[]")
    result = evaluate(*arguments)
    assert result.code == 0 and "0 of 4 scores found" in result.out, result.err
    assert [path.read_bytes() for path in sounds] == before and len(
        results(tmp_path / "out")["clips"]
    ) == 4


def test_help_says_what_there_is(command):
    result = command("evaluate.py", "--help")
    assert result.code == 0 and "python evaluate.py [pairs=" in result.out


def test_every_setting_is_explained():
    text = (ROOT / "configs" / "evaluate.yaml").read_text().partition("\ncodec:")[0]
    settings = re.findall(r"^(\w+): .*", text, re.MULTILINE)
    assert len(settings) > 15 and all(
        re.search(rf"^{name}: .*#|^# .*\n{name}: ", text, re.MULTILINE) for name in settings
    )


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo clips are not part of the repository")
@pytest.mark.parametrize(
    ("real", "generated", "dpd"),
    [
        ("real_flute", "generated_violin_from_flute", 0.067),
        ("real_bassoon", "generated_cello_from_bassoon", 0.121),
    ],
)
def test_the_authors_clips_score_what_they_published(command, tmp_path, real, generated, dpd):
    """One clip and one output match under any names; no notes, no true performance."""
    source, target = real.removeprefix("real_"), generated.split("_")[1]
    for folder, name in (("data", real), ("theirs", generated)):
        (tmp_path / folder).mkdir()
        shutil.copy(DEMO / f"{name}.wav", tmp_path / folder)
    result = command(
        "evaluate.py",
        *(
            f"data={tmp_path}/data",
            f"outputs={tmp_path}/theirs",
            f"pairs=[{source}-{target}]",
            "seconds=17.066",
        ),
        *("references=[identity]", "report_clips=0", "device=cpu", f"output={tmp_path}/out"),
    )
    assert result.code == 0, result.err
    row = next(row for row in results(tmp_path / "out")["clips"] if row["system"] == "outputs")
    # Published with two decimals.
    assert row["dpd_paper"] == pytest.approx(dpd, abs=0.005) and row["jd_paper"] == 0
    assert row["melody_reference"] == "input" and row["log_mel_truth"] is None
