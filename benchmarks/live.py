"""Delay, real-time factor, dropouts and memory of live sessions.

python benchmarks/live.py                # a minute of a shipped clip in real time, 3 minutes in all
python benchmarks/live.py --seconds 600  # ten minutes
python benchmarks/live.py --only quality --latency 0.7 0.95 --quality draft instant
python benchmarks/live.py --only hour    # memory of an hour, with a bridge that changes nothing

play     `live.py input=FILE output=FILE` in real time; the delay is the distance of the onsets
         in input and output; the load of the machine is printed
delay    the same as fast as possible, so that the load of the machine does not matter: no dropouts
quality  streams against whole clips: target accuracy, pitch by CREPE (needs timbridge[judge])
hour     peak memory after a minute and after an hour of sound
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import Table, run_process

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.hop_stream import HopTransfer
from audio_diffusion_pytorch.bridge.register import octaves_into_range
from audio_diffusion_pytorch.paths import ASSETS

ROOT = Path(__file__).resolve().parent.parent
RATE = 48000
STEP = 240  # samples of a level, 5 ms
PAIRS = ["flute-violin", "violin-cello", "trumpet-flute", "cello-bassoon", "flute-trumpet"]
NOTE = 1.0  # seconds from one note to the next


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of a session")
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="the first is played")
    parser.add_argument("--clips", type=int, default=2, help="clips of each pair, for quality")
    parser.add_argument("--latency", nargs="+", default=["0.95"])
    parser.add_argument("--quality", nargs="+", default=["instant"])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=["play"], metavar="PART")
    args = parser.parse_args()
    for name in args.only:
        print(f"\n## {name}\n", flush=True)
        PARTS[name](args)


def delay(args: argparse.Namespace) -> None:
    """Measure sessions from file to file as fast as possible."""
    play(args, "pace=false")


def play(args: argparse.Namespace, pace: str = "pace=true") -> None:
    """Measure sessions from file to file in real time."""
    headings = ("quality", "latency", "delay, s", "spread, ms", "dropouts", "CPU s per s")
    table = Table(*headings, "peak MB", "load before, after")
    source, target = args.pairs[0].split("-")
    with tempfile.TemporaryDirectory() as folder:
        given, played = Path(folder) / "in.wav", Path(folder) / "out.wav"
        audio.write(given, notes(source, args.seconds), RATE)
        for quality in args.quality:
            for latency in args.latency:
                before = os.getloadavg()[0]
                line, _, peak = run_process(
                    [
                        sys.executable,
                        str(ROOT / "live.py"),
                        f"source={source}",
                        f"target={target}",
                        f"input={given}",
                        f"output={played}",
                        f"quality={quality}",
                        f"latency={latency}",
                        "transpose=0",
                        pace,
                    ]
                )
                delays = onset_delays(audio.read(given)[0][0], audio.read(played)[0][0])
                facts = line.split(", ")
                table.row(
                    quality,
                    latency,
                    f"{statistics.median(delays):.3f}",
                    f"{1000 * float(np.subtract(*np.percentile(delays, [90, 10]))):.0f}",
                    facts[2].split()[0],
                    facts[4].split()[0],
                    f"{peak:.0f}",
                    f"{before:.1f}, {os.getloadavg()[0]:.1f}",
                )


def find_clips(instrument: str) -> list[Path]:
    """Return the shipped clips of an instrument."""
    files = sorted((ASSETS / "clips").iterdir())
    return [f for f in files if f.stem.endswith(f"_{instrument}") and f.suffix != ".json"]


def notes(source: str, seconds: float) -> torch.Tensor:
    """Return short excerpts of a shipped clip at equal distances, with silence between them."""
    wav, rate = audio.read(find_clips(source)[0])
    wav = audio.resample(audio.to_mono(wav), rate, RATE)
    size = round(NOTE * RATE)
    parts = []
    for index in range(int(seconds / NOTE)):
        start = index * size % (wav.shape[1] - size)
        part = audio.fade_ends(wav[:, start : start + size // 2], RATE // 200)
        parts.append(torch.nn.functional.pad(part, (size // 4, size - size // 4 - size // 2)))
    return torch.cat(parts, 1)


def onset_delays(given: torch.Tensor, played: torch.Tensor) -> list[float]:
    """Return the delay in seconds of each note's onset: the first level above half of its peak."""
    size = round(NOTE * RATE)
    delays = []
    for start in range(0, len(given) - size, size):
        first = onset(given[start : start + size])
        second = onset(played[start + size // 2 : start + size // 2 + 2 * size])
        if first is not None and second is not None:
            delays.append(size / 2 / RATE + second - first)
    return delays


def onset(wav: torch.Tensor) -> float | None:
    """Return the time in seconds at which a rise from silence reaches half of the peak."""
    levels = wav[: len(wav) // STEP * STEP].unflatten(0, (-1, STEP)).square().mean(1).sqrt()
    silent = (levels < 0.05 * levels.max()).nonzero().flatten()
    if not len(silent) or levels.max() < 1e-3:
        return None
    after = levels[silent[0] :]
    loud = (after > 0.5 * after[: 2 * len(after) // 3].max()).nonzero().flatten()
    return float(silent[0] + loud[0]) * STEP / RATE if len(loud) else None


def quality(args: argparse.Namespace) -> None:
    """Compare streams with whole clips of the shipped recordings, 8 s of each."""
    from audio_diffusion_pytorch.models.classifier import load_classifier

    torch.set_num_threads(1)
    classifier = load_classifier()
    headings = ("target accuracy", "target probability", "raw chroma", "level, dB")
    table = Table("quality", "latency", *headings, "CPU s per s")
    for name in args.quality:
        for latency in [None, *map(float, args.latency)]:
            rows = []
            for pair in args.pairs:
                rows += scores(pair, name, latency, classifier, args)
            means = np.nanmean(np.array(rows), 0)
            table.row(name, latency or "whole clip", *(f"{mean:.3f}" for mean in means))


def scores(pair, quality, latency, classifier, args) -> list[tuple[float, ...]]:
    """Score the clips of a pair: accuracy, probability, chroma, level, CPU seconds."""
    from audio_diffusion_pytorch.evaluation.judge import analyse_crepe
    from audio_diffusion_pytorch.metrics.pitch_tracks import frame_accuracy
    from audio_diffusion_pytorch.pitch.octaves import shift_octaves

    source, target = pair.split("-")
    bridge = Bridge(source, target, quality=quality)
    rate = bridge.codec.sample_rate
    rows = []
    for path in find_clips(source)[: args.clips]:
        wav, given = audio.read(path)
        wav = audio.resample(audio.to_mono(wav), given, rate)[:, : 8 * rate]
        octaves = octaves_into_range([wav], rate, bridge.target.spec)
        started = time.process_time()
        if latency is None:
            out = bridge(wav, rate, octaves=octaves)
        else:
            blocks = wav.split(1024, 1)
            out = torch.cat(list(bridge.stream(blocks, rate, None, octaves, latency)), 1)
        cpu = (time.process_time() - started) / 8
        chances = classifier.probabilities(out, rate)[0]
        index = list(classifier.instruments).index(target)
        moved = shift_octaves(wav, octaves, rate) if octaves else wav
        before, after = (analyse_crepe(x, rate)[0].f0 for x in (moved, out))
        chroma = frame_accuracy(before, after)["raw_chroma"]
        level = audio.to_db(audio.active_rms(out, rate) / audio.active_rms(wav, rate))
        rows.append((float(chances.argmax() == index), float(chances[index]), chroma, level, cpu))
    return rows


def hour(args: argparse.Namespace) -> None:
    """Measure the peak memory of a long stream, with networks that cost nothing."""
    source, target = args.pairs[0].split("-")
    bridge = Bridge(source, target, quality="draft")
    bridge.to_noise = bridge.from_noise = lambda latents, melody=None: latents
    bridge.codec.phase.rounds = 1
    transfer = HopTransfer(bridge, RATE, 1, bridge.hop_sizes(1.0), octaves=0)
    wav = notes(source, 60)
    table = Table("minutes", "peak MB")
    for minute in range(1, 61):
        for block in wav.split(1024, 1):
            transfer.add(block)
        if minute in (1, 10, 30, 60):
            table.row(minute, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.1f}")


PARTS = {"play": play, "delay": delay, "quality": quality, "hour": hour}

if __name__ == "__main__":
    main()
