"""Report on one transferred file: pictures, and a line of facts."""

import json
import math
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.metrics.melody import pitch_metrics
from audio_diffusion_pytorch.plots import plot_pitch_tracks, plot_spectrograms
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.utils.files import holding, with_ending

SECONDS = 120  # start of a recording that pictures and scores cover
LINES = "report.jsonl"


def report(job: Job, facts: dict[str, Any]) -> dict[str, Any]:
    """Draw spectrograms and pitch tracks, and append a line to `report.jsonl` in the output folder.

    DPD and JD (`pitch_metrics`) cover the first two minutes of the channels' average; they are null
    without a melody.

    Args:
        job: finished job.
        facts: facts of the transfer, as JSON values.

    Returns:
        The line: facts, dpd, jd.

    Raises:
        InputError: a file cannot be read or written.
    """
    clips = _excerpts(job)
    # The picture's name contains the ending: a.wav and a.flac may both exist.
    plot_spectrograms(clips, job.output.with_name(with_ending(job.output.name, ".png")))
    plot_pitch_tracks(clips, job.output.with_name(with_ending(job.output.name, "_pitch.png")))
    (before, rate), (after, _) = clips.values()
    scores = pitch_metrics(before, after, rate)
    values = {"dpd": float(scores.dpd[0]), "jd": float(scores.jaccard[0])}
    line = {
        **facts,
        **{key: None if math.isnan(value) else round(value, 4) for key, value in values.items()},
    }
    path = job.folder / LINES
    text = json.dumps(line, ensure_ascii=False) + "\n"
    with holding(path.with_name(f".{LINES}.lock"), wait=True), open(path, "ab") as file:
        # Names that are not UTF-8 are escaped, as JSON does.
        file.write(text.encode(errors="backslashreplace"))
    return line


def plot(job: Job, path: str | Path) -> None:
    """Draw the spectrograms of the first two minutes of input and output.

    Args:
        job: finished job.
        path: picture to write.

    Raises:
        InputError: a file cannot be read or written.
    """
    plot_spectrograms(_excerpts(job), path)


def _excerpts(job: Job) -> dict[str, tuple[Tensor, int]]:
    """Read the start of input and output: title -> (wav [1, T], sample rate)."""
    clips = {}
    for title, path in (("input", job.input), ("output", job.output)):
        with audio.AudioReader(path) as file:
            rate = file.info.sample_rate
            frames = min(file.info.frames, SECONDS * rate)
            cut = f", first {SECONDS} s" if frames < file.info.frames else ""
            name = os.fsencode(path.name).decode(errors="replace").replace("$", r"\$")  # not math
            clips[f"{title}: {name}{cut}"] = file.read_mono(0, frames), rate
    return clips
