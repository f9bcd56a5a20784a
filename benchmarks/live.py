"""Delay, real-time factor, dropouts and memory of live sessions.

python benchmarks/live.py                # a minute of a shipped clip in real time, 3 minutes in all
python benchmarks/live.py --seconds 600  # ten minutes
python benchmarks/live.py --only quality --latency 0.7 0.95 --quality draft instant
python benchmarks/live.py --only hour    # memory of an hour of sound

play     `live.py input=FILE output=FILE` in real time; the delay of a note is the shift between
         the envelopes around its onset; the load of the machine is printed
delay    the same as fast as possible, so that the load of the machine does not matter: no dropouts
quality  streams against whole clips of --data or of the package: target accuracy, pitch by CREPE
         (needs timbridge[judge])
hour     peak memory after a minute and after an hour of sound; takes half an hour of a core
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
from measuring import Table, clips_of, run_process

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.hop_stream import HopTransfer
from audio_diffusion_pytorch.bridge.register import octaves_into_range
from audio_diffusion_pytorch.metrics.onsets import onset_delays

ROOT = Path(__file__).resolve().parent.parent
RATE = 48000
PAIRS = ["flute-violin", "violin-cello", "trumpet-flute", "cello-bassoon", "flute-trumpet"]
NOTE = 1.0  # seconds from one note to the next


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of a session")
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="the first is played")
    parser.add_argument("--clips", type=int, default=2, help="clips of each pair, for quality")
    parser.add_argument("--data", type=Path, help="split of a data set (default: shipped clips)")
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
                sounds = audio.read(given)[0][0], audio.read(played)[0][0]
                delays = note_delays(*sounds, float(latency))
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


def notes(source: str, seconds: float) -> torch.Tensor:
    """Return short excerpts of a shipped clip at equal distances, with silence between them."""
    wav, rate = audio.read(clips_of(source)[0])
    wav = audio.resample(audio.to_mono(wav), rate, RATE)
    size = round(NOTE * RATE)
    parts = []
    for index in range(int(seconds / NOTE)):
        start = index * size % (wav.shape[1] - size)
        part = audio.fade_ends(wav[:, start : start + size // 2], RATE // 200)
        parts.append(torch.nn.functional.pad(part, (size // 4, size - size // 4 - size // 2)))
    return torch.cat(parts, 1)


def note_delays(given: torch.Tensor, played: torch.Tensor, latency: float) -> list[float]:
    """Return the delay in seconds of each note, by the envelopes around its onset."""
    late = torch.nn.functional.pad(given, (round(latency * RATE), 0))
    onsets = [NOTE * index + NOTE / 4 + latency for index in range(int(len(given) / RATE / NOTE))]
    return [latency + delay for delay in onset_delays(late, played, RATE, onsets)]


def quality(args: argparse.Namespace) -> None:
    """Compare streams with whole clips, 8 s of each."""
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

    source, target = pair.split("-")
    bridge = Bridge(source, target, quality=quality)
    rate = bridge.codec.sample_rate
    rows = []
    for path in clips_of(source, args.data)[: args.clips]:
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
        before, after = (analyse_crepe(x, rate)[0] for x in (wav, out))
        chroma = frame_accuracy(before.moved(octaves).f0, after.f0)["raw_chroma"]
        level = audio.to_db(audio.active_rms(out, rate) / audio.active_rms(wav, rate))
        rows.append((float(chances.argmax() == index), float(chances[index]), chroma, level, cpu))
    return rows


def hour(args: argparse.Namespace) -> None:
    """Measure the peak memory of a long stream."""
    torch.set_num_threads(1)
    source, target = args.pairs[0].split("-")
    bridge = Bridge(source, target, quality=args.quality[0])
    sizes = bridge.hop_sizes(float(args.latency[0]))
    transfer = HopTransfer(bridge, RATE, 1, sizes, octaves=0)
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
