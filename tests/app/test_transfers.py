"""Transfers of the page: the files equal those of the command, byte by byte."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, melody

from audio_diffusion_pytorch.app import recipes
from audio_diffusion_pytorch.app.recipes import Request, command_line, output_name, python_lines
from audio_diffusion_pytorch.app.storage import take_upload
from audio_diffusion_pytorch.app.transfers import Recording, Transfers, open_recording
from audio_diffusion_pytorch.app.worker import Cancelled, Ticket
from audio_diffusion_pytorch.errors import InputError

NAME = "my take 1.2 (né).wav"


@pytest.fixture
def few_steps(monkeypatch):
    """Few steps, as in the fixture `transfer`."""
    values = {**recipes.defaults(), "num_steps": 2}
    monkeypatch.setattr(recipes, "defaults", lambda: dict(values))


def opened(folder: Path, wav: np.ndarray, rate: int = RATE, name: str = NAME, **form) -> Recording:
    source = folder / "source.wav"
    soundfile.write(source, wav, rate, **form)
    place = folder / "place"
    place.mkdir()
    return open_recording(take_upload(source, place), name, max_minutes=1)


@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_equals_the_file_of_the_command(
    channels, tmp_path, transfer, instruments, few_steps
):
    wav = np.stack([melody(1.5, seed=seed) for seed in range(channels)], -1)
    recording = opened(tmp_path, wav, subtype="PCM_24")
    request = Request(str(instruments[0]), str(instruments[1]), sigma=3.0)
    result = Transfers().run(Ticket(), "cpu", recording, request, tmp_path)
    assert set(result.files) == {"wav", "flac", "mp3"} and not result.missing
    for ending, path in result.files.items():
        output = tmp_path / f"command.{ending}"
        done = transfer(f"input={tmp_path / 'source.wav'}", f"output={output}", "sigma=3")
        assert done.code == 0, done.err
        assert path.read_bytes() == output.read_bytes(), ending
        assert path.name == f"my take 1.2 (né)_as_violin.{ending}"


def test_a_format_that_cannot_hold_the_sound_is_left_out_with_a_reason(
    tmp_path, instruments, few_steps
):
    recording = opened(tmp_path, melody(0.5, 96000), 96000)
    request = Request(*map(str, instruments))
    result = Transfers().run(Ticket(), "cpu", recording, request, tmp_path)
    assert set(result.files) == {"wav", "flac"}
    assert result.missing["mp3"].startswith(".mp3 does not support 96000 Hz")
    assert soundfile.info(recording.player).samplerate == 48000


def test_progress_counts_every_network_call(tmp_path, instruments, few_steps):
    recording = opened(tmp_path, melody(3.0))
    ticket = Ticket()
    Transfers().run(ticket, "cpu", recording, Request(*map(str, instruments)), tmp_path)
    assert ticket.total > 0 and ticket.done == ticket.total


def test_cancel_ends_at_the_next_network_call_and_leaves_no_file(tmp_path, instruments, few_steps):
    recording = opened(tmp_path, melody(3.0))
    folder = tmp_path / "out"
    folder.mkdir()

    class Impatient(Ticket):
        calls = 0

        def advance(self, units: int = 1) -> None:
            self.calls += 1
            self.cancel()
            super().advance(units)

    ticket = Impatient()
    with pytest.raises(Cancelled):
        Transfers().run(ticket, "cpu", recording, Request(*map(str, instruments)), folder)
    # the threads that share a batch call the network at the same time
    assert 1 <= ticket.calls <= torch.get_num_threads() and not list(folder.iterdir())


def refusal(folder: Path, data: bytes | None, name: str) -> str:
    path = folder / "input"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as error:
        open_recording(path, name, max_minutes=1)
    return str(error.value)


def short_wav(tmp_path: Path, seconds: float) -> bytes:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(round(seconds * 8000), "f4"), 8000)
    return path.read_bytes()


def test_refused_files_give_the_sentences_of_the_command(tmp_path, transfer):
    for name, data in (
        ("text.wav", b"no sound at all"),
        ("empty.wav", b""),
        ("no_samples.wav", short_wav(tmp_path, 0)),
    ):
        shutil.rmtree(tmp_path / "place", ignore_errors=True)
        (tmp_path / "place").mkdir()
        said = refusal(tmp_path / "place", data, name)
        (tmp_path / name).write_bytes(data)  # the command runs in this folder
        assert transfer(f"input={name}", "output=x.wav").error() == f"error: {said}"
        assert "place" not in said


def test_a_long_recording_is_refused(tmp_path):
    said = refusal(tmp_path, short_wav(tmp_path, 90), "long.wav")
    assert said.startswith("long.wav lasts 1.5 minutes, and this page accepts 1: cut it")


def test_settings_are_refused_with_the_sentences_of_the_command(
    tmp_path, transfer, instruments, few_steps
):
    recording = opened(tmp_path, melody(1.0))
    source, target = map(str, instruments)
    for changed, arguments in (
        ({"sigma": 99.0}, ["sigma=99.0"]),
        ({"quality": "best"}, ["quality=best"]),
        ({"octaves": 9}, ["transpose=9"]),
        ({"target": "vilin"}, ["target=vilin"]),
    ):
        request = Request(**{"source": source, "target": target, **changed})
        with pytest.raises(InputError) as error:
            Transfers().run(Ticket(), "cpu", recording, request, tmp_path)
        result = transfer(f"input={tmp_path / 'source.wav'}", "output=x.wav", *arguments)
        assert result.error() == f"error: {error.value}"


def test_newer_weights_of_a_training_are_loaded(tmp_path, make_instrument, instruments, few_steps):
    run = tmp_path / "run"
    run.mkdir()
    model = run / "flute.safetensors"
    shutil.copy(instruments[0], model)
    recording = opened(tmp_path, melody(0.6))
    transfers, request = Transfers(), Request(str(run), str(instruments[1]))
    first = transfers.run(Ticket(), "cpu", recording, request, tmp_path / "1")
    again = transfers.run(Ticket(), "cpu", recording, request, tmp_path / "2")
    make_instrument("flute", seed=7).save(model)
    newer = transfers.run(Ticket(), "cpu", recording, request, tmp_path / "3")
    sounds = [result.files["wav"].read_bytes() for result in (first, again, newer)]
    assert sounds[0] == sounds[1] != sounds[2]


def test_python_lines_make_the_same_sound(tmp_path, instruments, few_steps, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = opened(tmp_path, melody(1.2))
    request = Request(*map(str, instruments), sigma=3.0, quality="draft", octaves=1)
    # the lines name no number of steps
    monkeypatch.setattr(recipes, "defaults", lambda: dict(recipes._config("transfer")))
    result = Transfers().run(Ticket(), "cpu", recording, request, tmp_path)
    exec(compile(python_lines(request, "source.wav", "out.wav"), "lines", "exec"), {})
    expected, got = (soundfile.read(path)[0] for path in (result.files["wav"], "out.wav"))
    assert np.abs(expected - got).max() <= 2**-14  # two steps of 16 bits


def test_command_lines_are_quoted_and_name_what_differs():
    request = Request("flute", "all:double bass", 4.0, "high", -1)
    line = command_line(request, "it's.wav", "out.wav")
    assert line == (
        "python transfer.py source=flute 'target=all:double bass' 'input=it'\"'\"'s.wav' "
        "output=out.wav sigma=4 quality=high transpose=-1"
    )
    assert command_line(Request("flute", "violin"), "a", "b.wav").endswith("input=a output=b.wav")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("violin", "x_as_violin"),
        ("all:double bass", "x_as_double_bass"),
        ("logs/my_flute/", "x_as_my_flute"),
        ("/a/b/oboe.safetensors", "x_as_oboe"),
    ],
)
def test_names_of_outputs(target, name):
    assert output_name("x", Request("flute", target)) == name
    assert output_name("x", Request("flute", target, 2.5), True) == f"{name}_sigma2.5"
