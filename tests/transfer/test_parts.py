"""Long recordings in parts: the same bytes as in one piece."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT, melody
from folders import clips, outputs, plan

from audio_diffusion_pytorch.bridge import overlap_add
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.engine.hand_out import _Todo, hand_out
from audio_diffusion_pytorch.transfer import parts
from audio_diffusion_pytorch.transfer.batch import TransferBatches
from audio_diffusion_pytorch.transfer.file_transfer import FileOptions
from audio_diffusion_pytorch.transfer.jobs import Job


class Worker:
    """Worker that transfers one job at a time; the first try at a doomed part ends it."""

    ready = True

    def __init__(self, bridge: Bridge, place: Path | None, doomed: list[int], listen: bool):
        self.given = {"a": 1}, FileOptions(transpose=-1, listen=listen), False, None, None, place
        self.bridge = bridge
        self.doomed = doomed

    def submit(self, jobs) -> None:
        self.events = []
        for job in jobs:
            if getattr(job, "number", None) in self.doomed:
                self.doomed.remove(job.number)
                break
            TransferBatches(
                self.bridge, [job], lambda *event: self.events.append(event), *self.given
            ).run()
        self.events.append(None)

    def receive(self):
        return self.events.pop(0)


def transferred(workers: list[Worker], source: Path, out: Path) -> dict[str, list]:
    """Run the jobs of a folder -> what was told, by kind."""
    told = {"done": [], "failed": [], "left": [], "windows": [], "warning": []}
    hand_out(
        workers,
        plan(str(source), str(out), None),
        lambda event, job, value: told[event].append((job.input.name, value)),
        list,
    )
    return told


@pytest.fixture
def short_blocks(monkeypatch):
    """Parts and blocks of the decoder that are short for the windows of the small models."""
    monkeypatch.setattr(parts, "_WINDOWS", 4)
    monkeypatch.setattr(overlap_add, "DECODE_FRAMES", 48)
    monkeypatch.setattr(overlap_add, "DECODE_CONTEXT", 8)


@pytest.mark.parametrize(("windows", "listen"), [(9, False), (10, True)])
def test_parts_are_joined_without_a_seam(
    windows, listen, short_blocks, make_instrument, codec, tmp_path
):
    """Stereo at another rate, out of tune, moved by an octave; the last part has 1 or 2 windows.

    A lost part is repeated.
    """
    bridge = Bridge(
        make_instrument("flute"), make_instrument("violin", 1), num_steps=2, codec=codec
    )
    (tmp_path / "in").mkdir()
    seconds = (48 * windows - 8) / 75
    wav = np.stack([melody(seconds, 16000), 0.3 * melody(seconds, 16000, seed=1)], 1)
    soundfile.write(tmp_path / "in" / "long.flac", wav, int(16000 * 1.01))
    soundfile.write(tmp_path / "in" / "short.wav", wav[:16000], 16000)
    told = []
    (tmp_path / "parts").mkdir()
    for place, doomed in ((None, []), (tmp_path / "parts", [1])):
        workers = [Worker(bridge, place, doomed, listen) for _ in range(2)]
        told.append(transferred(workers, tmp_path / "in", tmp_path / f"out{bool(place)}"))
        assert not doomed
    whole, split = told
    assert not whole["failed"] and not split["failed"]
    assert outputs(tmp_path / "outTrue") == {"long.flac", "short.wav"}
    assert len(split["windows"]) == len(whole["windows"]) == 2 * (windows + 2)
    assert whole["warning"] == split["warning"]
    for name in outputs(tmp_path / "outTrue"):
        same = ((tmp_path / f"out{split}" / name).read_bytes() for split in (False, True))
        assert next(same) == next(same)
    facts = [dict(events["done"])["long.flac"] for events in told]
    assert facts[0].keys() == facts[1].keys()
    assert all(facts[0][key] == facts[1][key] for key in facts[0].keys() - {"output", "seconds"})
    assert not list((tmp_path / "parts").iterdir())


class SlowToJoin(Worker):
    """Worker that joins parts in a context: what happens between the parts and the join."""

    meanwhile: Callable[[], AbstractContextManager]

    def submit(self, jobs) -> None:
        joins = jobs[0].split and not isinstance(jobs[0], parts.Part)
        with self.meanwhile() if joins else nullcontext():
            super().submit(jobs)


@pytest.fixture
def given(short_blocks, make_instrument, codec, tmp_path):
    """Arguments of a worker that splits recordings."""
    models = make_instrument("flute"), make_instrument("violin", 1)
    (tmp_path / "parts").mkdir()
    return Bridge(*models, num_steps=2, codec=codec), tmp_path / "parts", [], False


def test_a_second_command_finishes_a_recording_before_the_first_one_joins_it(given, tmp_path):
    """Both have parts; the file is written once."""
    folders = clips(tmp_path / "in", 1, seconds=6), tmp_path / "out"
    (job,) = plan(*map(str, folders), None)
    before = []

    @contextmanager
    def meanwhile():
        second = transferred([Worker(*given)], *folders)
        assert len(second["done"]) == 1 and len(second["windows"]) > 8
        before.append(job.output.stat())
        yield

    worker = SlowToJoin(*given)
    worker.meanwhile = meanwhile
    first = transferred([worker], *folders)
    assert first["left"] == [(job.input.name, None)] and len(first["windows"]) > 8
    assert not first["done"] and not first["failed"]
    assert before == [job.output.stat()]
    whole = tmp_path / "whole"
    transferred([Worker(given[0], None, [], False)], folders[0], whole)
    assert job.output.read_bytes() == (whole / job.output.name).read_bytes()


def test_a_join_leaves_a_locked_recording_to_the_other_command(given, tmp_path):
    folders = clips(tmp_path / "in", 1, seconds=6), tmp_path / "out"
    (job,) = plan(*map(str, folders), None)
    worker = SlowToJoin(*given)
    worker.meanwhile = job.claimed
    told = transferred([worker], *folders)
    assert told["left"] == [(job.input.name, None)] and len(told["windows"]) > 8
    assert not job.output.exists()


@pytest.mark.long
def test_the_workers_of_a_command_share_a_recording(transfer, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_WINDOWS", 4)
    monkeypatch.syspath_prepend(ROOT / "tests" / "engine")
    soundfile.write(tmp_path / "long.wav", melody(8), RATE)
    tell, found = _Todo.tell, []

    def note(todo: _Todo, event: str, job: Job, value: object) -> None:
        found.append(event)
        tell(todo, event, job, value)

    monkeypatch.setattr(_Todo, "tell", note)
    arguments = f"input={tmp_path / 'long.wav'}", "plugins=[short_parts]"
    results = [
        transfer(*arguments, f"output={tmp_path}/{count}.wav", f"workers={count}")
        for count in (1, 2)
    ]
    assert [result.code for result in results] == [0, 0]
    assert found.count("split") == 1 and found.count("done") == 1 + 4
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "2.wav").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"long.wav", "1.wav", "2.wav"}
