"""Preservation of the tuning of recordings that are not at A = 440 Hz.

python benchmarks/tuning.py --data data/chorales_paired/test --source flute --target violin

Clips are resampled to other tunings and transferred; the tuning of the output is the circular mean
of the deviation of its partials from equal temperament at 440 Hz, because deviations wrap at half a
semitone.
"""

import argparse
import math
from pathlib import Path

import torch
from solver_error import find_clips
from torch import Tensor

from audio_diffusion_pytorch import Bridge, audio

RATE, FFT, HOP = 24000, 8192, 1024


def tuning_cents(wav: Tensor, sample_rate: int) -> float:
    """Measure the deviation of wav [C, T] from A = 440 Hz in cents, -50 to 50.

    The measurement uses spectral peaks from 300 to 3000 Hz.
    """
    x = audio.resample(audio.to_mono(wav), sample_rate, RATE)[0]
    spectrum = (
        torch.stft(x, FFT, HOP, window=torch.hann_window(FFT), return_complex=True)
        .abs()
        .clamp(min=1e-9)
        .log()
    )
    left = spectrum[:-2]
    peak = spectrum[1:-1]
    right = spectrum[2:]
    is_peak = (peak > left) & (peak > right) & (peak > peak.max() - math.log(100))
    # Vertex of the parabola through a peak and its neighbours.
    offset = 0.5 * (left - right) / (left - 2 * peak + right)
    bins = torch.arange(1, len(spectrum) - 1)[:, None] + offset
    hertz = bins * RATE / FFT
    is_peak &= (hertz > 300) & (hertz < 3000)
    angle = 2 * math.pi * 12 * torch.log2(hertz[is_peak] / 440)
    weight = peak[is_peak].exp()
    return (
        float(torch.atan2((weight * angle.sin()).sum(), (weight * angle.cos()).sum()))
        / (2 * math.pi)
        * 100
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with a folder of clips for each instrument"
    )
    parser.add_argument("--source", default="flute")
    parser.add_argument("--target", default="violin")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--tunings", type=int, nargs="+", default=[430, 435, 440, 445, 450])
    settings = parser.parse_args()
    bridge = Bridge(settings.source, settings.target)
    paths = find_clips(settings.data, settings.source, settings.clips)
    print(
        "| A (Hz) | input, cents | output, cents | difference, mean | largest |\n| --- | --- | --- "
        "| --- | --- |"
    )
    for hertz in settings.tunings:
        found = []
        for path in paths:
            wav, rate = audio.read(path)
            wav = audio.resample(wav, hertz, 440)[
                :, : round(settings.seconds * rate)
            ]  # played faster or slower
            found.append((tuning_cents(wav, rate), tuning_cents(bridge(wav, rate), rate)))
        apart = [(out - into + 50) % 100 - 50 for into, out in found]
        means = [sum(values) / len(values) for values in (*zip(*found, strict=True), apart)]
        print(
            f"| {hertz} | {means[0]:+.1f} | {means[1]:+.1f} | {means[2]:+.1f} | "
            f"{max(apart, key=abs):+.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
