"""What a transfer did to one file: pictures, and a line of facts."""

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

SECONDS = 120  # of a recording that are looked at
LINES = "report.jsonl"


def report(job: Job, facts: dict[str, Any]) -> dict[str, Any]:
    """Draw spectrograms and pitch tracks beside the output, and add a line to the output folder's `report.jsonl`.

    DPD and JD (`metrics.pitch_metrics`) are of the first two minutes, the channels' average; null where there is no
    melody.

    Args:
        facts: of the transfer; JSON values.

    Returns:
        The line: facts, dpd, jd.

    Raises:
        InputError: something cannot be read or written.
    """
    clips = _excerpts(job)
    # The whole name: a.wav and a.flac may both be there.
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
        file.write(
            text.encode(errors="backslashreplace")
        )  # names that are not UTF-8: as JSON escapes them, too
    return line


def plot(job: Job, path: str | Path) -> None:
    """Draw the spectrograms of input and output, of their first two minutes.

    Raises:
        InputError: something cannot be read or written.
    """
    plot_spectrograms(_excerpts(job), path)


def _excerpts(job: Job) -> dict[str, tuple[Tensor, int]]:
    """Title -> (wav [1, T], sample rate) of input and output."""
    clips = {}
    for title, path in (("input", job.input), ("output", job.output)):
        with audio.AudioReader(path) as file:
            frames, rate = (
                min(file.info.frames, SECONDS * file.info.sample_rate),
                file.info.sample_rate,
            )
            cut = f", first {SECONDS} s" if frames < file.info.frames else ""
            name = os.fsencode(path.name).decode(errors="replace").replace("$", r"\$")  # no formula
            clips[f"{title}: {name}{cut}"] = file.read_mono(0, frames), rate
    return clips
