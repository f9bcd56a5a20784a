"""The page's service: one recording a visitor, a queue, comparison, deletion."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from conftest import RATE, melody

from audio_diffusion_pytorch.app import recipes, service
from audio_diffusion_pytorch.app.recipes import Request
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.settings import AppSettings
from audio_diffusion_pytorch.app.storage import Storage
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.errors import InputError

LIMIT = 60  # seconds until a test gives up


@pytest.fixture
def served(tmp_path, instruments, monkeypatch) -> Iterator[Service]:
    values = {**recipes.defaults(), "num_steps": 2}
    monkeypatch.setattr(recipes, "defaults", lambda: dict(values))
    settings = AppSettings(models=instruments[0].parent, devices=("cpu",), max_megabytes=0.5)
    made = Service(settings, Storage(parent=tmp_path))
    yield made
    made.close()


@pytest.fixture
def upload(tmp_path) -> Path:
    path = tmp_path / "upload.wav"
    soundfile.write(path, melody(1.0), RATE)
    return path


def wait(ticket: Ticket) -> None:
    end = time.monotonic() + LIMIT
    while ticket.state in ("waiting", "running") and time.monotonic() < end:
        time.sleep(0.01)
    assert ticket.state not in ("waiting", "running")


def test_a_new_recording_replaces_the_upload(served, upload):
    first = served.open("1", upload)
    second = served.open("1", upload, "other.wav")
    assert not first.folder.exists() and second.path.exists() and second.name == "other.wav"
    assert served.open("2", upload).path.exists() and second.path.exists()


def test_a_refused_upload_leaves_no_file(served, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"broken\.wav"):
        served.open("1", broken)
    assert not list(served.storage.visitor("1").folder.iterdir())


def test_a_large_upload_is_refused(served, tmp_path):
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(600_000))
    with pytest.raises(InputError, match=r"large\.wav is larger than 0\.5 MB, the limit of this"):
        served.open("1", large)


def test_several_targets_with_pictures_and_history(served, upload, instruments):
    recording = served.open("1", upload)
    flute, violin = map(str, instruments)
    ticket = served.transfer("1", [Request(flute, violin), Request(violin, flute)])
    wait(ticket)
    assert ticket.state == "done", ticket.error
    assert [result.request.target for result in ticket.results] == [violin, flute]
    assert recording.picture.is_file()
    assert all(result.picture.is_file() for result in ticket.results)
    assert served.storage.visitor("1").history == ticket.results
    assert not served.storage.visitor("2").history


def test_the_history_is_limited(served, upload, instruments, monkeypatch):
    monkeypatch.setattr(service, "MOST_RESULTS", 1)
    served.open("1", upload)
    flute, violin = map(str, instruments)
    ticket = served.transfer("1", [Request(flute, violin), Request(violin, flute)])
    monkeypatch.setattr(service, "draw_spectrogram", lambda sound, picture: picture)
    wait(ticket)
    first, second = ticket.results
    assert served.storage.visitor("1").history == [second]
    assert not first.files["wav"].exists() and second.files["wav"].exists()


def test_a_comparison_scores_every_amount(served, upload, instruments):
    served.open("1", upload)
    flute, violin = map(str, instruments)
    ticket = served.compare("1", Request(flute, violin), "violin")
    wait(ticket)
    assert ticket.state == "done", ticket.error
    assert [result.request.sigma for result in ticket.results] == list(service.SIGMAS)
    assert all(set(result.scores) == {"melody", "target"} for result in ticket.results)
    assert all(0 <= value <= 1 for r in ticket.results for value in r.scores.values())
    assert ticket.picture.read_bytes().startswith(b"\x89PNG")
    assert ticket.results[0].stem.endswith("_sigma1")


def test_requests_that_cannot_be_met(served, upload, instruments, tmp_path):
    flute, violin = map(str, instruments)
    with pytest.raises(InputError, match="choose a recording first"):
        served.transfer("1", [Request(flute, violin)])
    served.open("1", upload)
    with pytest.raises(InputError, match="choose an instrument"):
        served.transfer("1", [])
    with pytest.raises(InputError, match="at most 13 instruments at once"):
        served.transfer("1", [Request(flute, violin)] * 14)
    elsewhere = tmp_path / "secret.safetensors"
    elsewhere.write_bytes(instruments[0].read_bytes())
    for path in (str(elsewhere), "../x.ckpt", "/etc/passwd", f"{elsewhere}:flute"):
        with pytest.raises(InputError, match="is not in the list of models"):
            served.transfer("1", [Request(flute, path)])
        with pytest.raises(InputError, match="is not in the list of models"):
            served.compare("1", Request(path, violin), "violin")


def test_one_transfer_a_visitor_at_a_time(served, upload, instruments):
    served.open("1", upload)
    served.open("2", upload)
    request = Request(*map(str, instruments))
    first = served.transfer("1", [request] * 5)
    with pytest.raises(InputError, match="your last transfer is still running"):
        served.transfer("1", [request])
    other = served.transfer("2", [request])
    served.storage.visitor("1").cancel()
    wait(first)
    wait(other)
    assert first.state == "cancelled" and other.state == "done"


def test_a_visitor_who_leaves_cancels(served, upload, instruments):
    served.open("1", upload)
    ticket = served.transfer("1", [Request(*map(str, instruments))] * 5)
    served.storage.forget("1")
    wait(ticket)
    assert ticket.state == "cancelled"
    assert not list(served.storage.visitors_folder.iterdir())
