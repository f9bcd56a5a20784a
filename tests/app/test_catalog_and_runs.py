"""Models and trainings that the page shows; pictures."""

import os
import shutil
import socket

import pytest
import soundfile
from conftest import RATE, melody
from page_server import make_run

from audio_diffusion_pytorch.app.catalog import Catalog, note_name, read_spec
from audio_diffusion_pytorch.app.pictures import draw_losses, draw_spectrogram, draw_trade_off
from audio_diffusion_pytorch.app.runs import Run, find_runs, read_curves, rows
from audio_diffusion_pytorch.app.service import EXAMPLES, example
from audio_diffusion_pytorch.errors import InputError

PNG = b"\x89PNG"


def test_shipped_models_have_full_cards(tmp_path):
    catalog = Catalog(tmp_path)
    assert next(model.value for model in catalog.shipped) == "violin"
    assert {model.value for model in catalog.shipped} == set(EXAMPLES)
    assert len(catalog.of_thirteen) == 8 and not catalog.own
    for model in catalog.models:
        assert {"Range", "Training steps", "Trained on", "Scores", "Limits"} <= model.card.keys()
    assert catalog.shipped[0].card["Range"] == "G3 to A6"


def test_own_models_are_found_and_others_are_not(tmp_path, instruments):
    (tmp_path / "deep").mkdir()
    shutil.copy(instruments[0], tmp_path / "deep" / "my flute.safetensors")
    (tmp_path / "notes.safetensors").write_bytes(b"no model")
    make_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    shutil.copy(instruments[1], tmp_path / "run" / "violin.safetensors")
    found = {model.title: model for model in Catalog(tmp_path).own}
    assert set(found) == {"deep/my flute", "run"}
    assert found["run"].kind == "run folder" and "export of" in found["run"].card["Weights"]
    assert found["deep/my flute"].kind == "exported file"
    assert read_spec(tmp_path / "notes.safetensors") == {}


def test_paths_outside_of_the_list_are_refused(tmp_path, instruments):
    model = tmp_path / "mine.safetensors"
    shutil.copy(instruments[0], model)
    catalog = Catalog(tmp_path)
    for value in ("auto", "flute", "all:oboe", "vilin", str(model)):
        catalog.check(value)
    for value in (str(instruments[0]), "../mine.safetensors", "/etc/passwd", "x.ckpt"):
        with pytest.raises(InputError, match="is not in the list of models"):
            catalog.check(value)


def test_notes():
    assert [note_name(pitch) for pitch in (21, 60, 69, 70)] == ["A0", "C4", "A4", "A#4"]


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        (f"process {os.getpid()} on {socket.gethostname()}", "training"),
        (f"process 99999999 on {socket.gethostname()}", "stopped"),
        ("process 1 on another-machine.invalid", "training"),  # the log is fresh
        ("", "stopped"),
        (None, "stopped"),
    ],
    ids=["own", "dead", "elsewhere", "empty", "none"],  # equal in all processes of a parallel run
)
def test_states_of_a_training(tmp_path, owner, state):
    make_run(tmp_path / "run")
    if owner is not None:
        (tmp_path / "run" / ".lock").write_text(owner)
    assert Run(tmp_path / "run").state == state


def test_a_training_with_an_export_is_finished(tmp_path, instruments):
    make_run(tmp_path / "run")
    owner = f"process {os.getpid()} on {socket.gethostname()}"  # a number may be used again
    (tmp_path / "run" / ".lock").write_text(owner)
    shutil.copy(instruments[0], tmp_path / "run" / "flute.safetensors")
    assert Run(tmp_path / "run").state == "finished"


def test_the_table_and_the_curves_of_trainings(tmp_path):
    make_run(tmp_path / "a" / "run")
    broken = tmp_path / "broken"
    (broken / "tensorboard").mkdir(parents=True)
    (broken / "config.yaml").write_text("{")
    (broken / "tensorboard" / "events.out.tfevents.1").write_bytes(b"broken")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    runs = {run.path.name: run for run in find_runs(tmp_path)}
    cells = {row[0]: row for row in rows(list(runs.values()))}
    assert cells["run"][1:5] == ["stopped", "391 of 1,000", "0.625", "0.625"]
    assert cells["broken"][1:5] == ["stopped", "", "", ""]
    curves = read_curves(runs["run"])
    assert len(curves.losses["train_loss"]) == 40 and curves.losses["valid_loss"][0] == (0, 2.5)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}  # read only
    assert find_runs(tmp_path / "missing") == []


def test_pictures(tmp_path):
    sound = tmp_path / "sound.wav"
    soundfile.write(sound, melody(1.0), RATE)
    points = [
        {"sigma": 1.0, "melody": 1.0, "target": 0.2},
        {"sigma": 4.0, "melody": 0.9, "target": 1.0},
    ]
    drawn = [
        draw_spectrogram(sound, tmp_path / "a.png"),
        draw_trade_off(points, "violin", tmp_path / "b.png"),
        draw_losses({"train_loss": [(0, 1.0), (1, 0.5)]}, tmp_path / "c.png"),
    ]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_every_example_ships():
    assert all(example(name).is_file() for name in EXAMPLES)
