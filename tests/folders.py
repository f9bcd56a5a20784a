"""Folders of recordings, bridged by a bridge that takes no time."""

from pathlib import Path

import soundfile
from conftest import RATE, melody

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.transfer.batch import TransferBatches
from audio_diffusion_pytorch.transfer.file_transfer import FileOptions
from audio_diffusion_pytorch.transfer.jobs import RECORDS, Job
from audio_diffusion_pytorch.transfer.resolve import resolve_jobs


def outputs(folder: Path) -> set[str]:
    """What a user sees in an output folder."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] != RECORDS}


def plan(*arguments) -> list[Job]:
    return resolve_jobs(*arguments).jobs


def make(bridge: Bridge, jobs, overwrite: bool = False, report=None, **options) -> dict[str, list]:
    """Run jobs -> what was told, by kind."""
    told = {"done": [], "failed": [], "left": []}

    def tell(what, job, value):
        if what in told:
            told[what].append((job, value))

    files = FileOptions(**options)
    TransferBatches(bridge, jobs, tell, {"a": 1}, files, overwrite, report).run()
    return told


def clips(folder: Path, count: int, name: str = "clip.wav", seconds: float = 0.3) -> Path:
    folder.mkdir()
    for index in range(count):
        soundfile.write(folder / f"{index}_{name}", melody(seconds, seed=index), RATE)
    return folder
