"""Draw transfers of an evaluation: recording, output and a recording of the target, with pitches.

    python benchmarks/pitch_pictures.py RESULTS --data FOLDER --output FILE.png

RESULTS is the output folder of `evaluate.py tracker=crepe`, and FOLDER its data. Of each pair, the
clip with the middle raw chroma accuracy is drawn. The lines are the pitches that CREPE finds
(needs timbridge[judge]): white in recordings, green or red in outputs, as they are right or wrong.
Frames without a pitch in the recording or in the output have no line.
"""

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.metrics.pitch_tracks import TOLERANCE, fold_octaves
from audio_diffusion_pytorch.pitch.crepe import track_crepe
from audio_diffusion_pytorch.pitch.notes import F0Track
from audio_diffusion_pytorch.plots import draw_levels, hertz_ticks, mel_band, mel_spectrogram_db

RATE = 24000
PAIRS = ("trumpet-violin", "cello-flute", "violin-trumpet")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="output folder of evaluate.py")
    parser.add_argument("--data", type=Path, required=True, help="data folder of the evaluation")
    parser.add_argument("--pairs", nargs="+", default=PAIRS)
    parser.add_argument("--system", default="bridge")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    figure = Figure(figsize=(13, 3.1 * len(args.pairs)), layout="constrained")
    axes = figure.subplots(len(args.pairs), 3, squeeze=False)
    for row, pair in zip(axes, args.pairs, strict=True):
        draw_pair(row, middle_clip(args.results, args.system, pair), args)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=75)
    Image.open(buffer).convert("RGB").quantize(96).save(args.output, optimize=True)


def middle_clip(results: Path, system: str, pair: str) -> dict[str, str]:
    """Return the row of results.csv whose raw chroma accuracy is the pair's lower median."""
    with open(results / "results.csv", encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["system"] == system and r["pair"] == pair]
    if not rows:
        raise SystemExit(f"error: {results} has no clip of {system}, {pair}")
    rows.sort(key=lambda one: float(one["raw_chroma"]))
    return rows[(len(rows) - 1) // 2]


def draw_pair(axes: np.ndarray, row: dict[str, str], args: argparse.Namespace) -> None:
    """Draw the recording, the output and a recording of the target beside each other."""
    source, target = row["pair"].split("-")
    start, seconds = float(row["start"]), float(row["seconds"])
    given = read(args.data / row["input"], start, seconds)
    output = read(args.results / row["output"], 0.0, seconds)
    other = next(file for file in sorted((args.data / target).iterdir()) if file.is_file())
    tracks = [track_crepe(wav[None], RATE)[0] for wav in (given, output)]
    draw(axes[0], given, tracks[0], None, f"recording: {source}")
    draw(axes[1], output, tracks[1], tracks[0], f"output: {target}")
    wav = read(other, 0.0, seconds)
    draw(axes[2], wav, track_crepe(wav[None], RATE)[0], None, f"another recording: {target}")


def read(path: Path, start: float, seconds: float) -> torch.Tensor:
    """Read a part of a file [T] at RATE."""
    wav, rate = audio.read_mono(path)
    wav = audio.resample(wav, rate, RATE)[0]
    return wav[round(start * RATE) : round((start + seconds) * RATE)]


def draw(axis, wav: torch.Tensor, track: F0Track, wanted: F0Track | None, title: str) -> None:
    """Draw a spectrogram with its pitches, coloured by their distance to the wanted ones."""
    mel = mel_spectrogram_db(wav, RATE)
    draw_levels(axis, mel, extent=(0, len(wav) / RATE, 0, len(mel)))
    hertz_ticks(axis, RATE, len(mel))
    voiced = track.voiced
    bands = mel_band(track.hertz, RATE, len(mel))
    colours = np.full(len(voiced), "white", dtype=object)
    if wanted is not None:
        count = min(len(voiced), len(wanted.voiced))
        cents = 1200 * np.log2(track.hertz[:count] / wanted.hertz[:count])
        right = np.abs(fold_octaves(cents)) <= TOLERANCE
        colours[:count] = np.where(right, "lime", "red")
        voiced = voiced.copy()
        voiced[:count] &= wanted.voiced[:count]
    axis.scatter(track.times[voiced], bands[voiced], s=3, c=list(colours[voiced]))
    axis.set(title=title, xlabel="seconds", ylabel="Hz", xlim=(0, len(wav) / RATE))


if __name__ == "__main__":
    main()
