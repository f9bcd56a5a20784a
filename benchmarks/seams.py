"""Audibility of the window seams of long recordings, with the shipped models.

python benchmarks/seams.py --data data/chorales_paired/test --clips 10

Each clip is transferred in windows, and in one window. The table compares cross-fades with other
frames: log-mel distance of both results, and spectral flux and frame-to-frame level change of each.
"""

import argparse
from pathlib import Path

import torch
from solver_error import find_clips
from torch import Tensor

from audio_diffusion_pytorch import Bridge, audio
from audio_diffusion_pytorch.bridge.framing import window_starts


def changes(wav: Tensor, hop: int) -> tuple[Tensor, Tensor]:
    """Compute spectral flux and level change of wav [1, T] for each latent frame."""
    spectrum = torch.stft(
        wav[0], 4 * hop, hop, window=torch.hann_window(4 * hop), return_complex=True
    ).abs()
    level = spectrum.square().sum(0).add(1e-9).log()
    flux = spectrum.diff(dim=1).clamp(min=0).sum(0) / spectrum[:, 1:].sum(0).clamp(min=1e-3)
    return flux, level.diff().abs()


def compare(windowed: Bridge, whole: Bridge, wav: Tensor, rate: int) -> list[tuple[float, float]]:
    """Return pairs (in cross-fades, elsewhere) for wav [1, T]: distance, flux and level change."""
    hop = windowed.codec.hop_length
    frames = windowed.codec.num_frames(wav.shape[1] * windowed.codec.sample_rate // rate)
    fades = torch.zeros(frames, dtype=torch.bool)
    for start in window_starts(frames, windowed.window, windowed.hop)[1:]:
        fades[start : start + windowed.window - windowed.hop] = True
    outs = [
        audio.resample(bridge(wav, rate), rate, bridge.codec.sample_rate)
        for bridge in (windowed, whole)
    ]
    one, other = (windowed.codec.encode(out[None])[0, :, :frames] for out in outs)
    (flux, level), (flux_whole, level_whole) = (changes(out, hop) for out in outs)
    rows = ((one - other).abs().mean(0), flux, flux_whole, level, level_whole)
    return [(float(row[:frames][fades].mean()), float(row[:frames][~fades].mean())) for row in rows]


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
    parser.add_argument("--seconds", type=float, default=12.0)
    settings = parser.parse_args()
    windowed, whole = (Bridge(settings.source, settings.target) for _ in range(2))
    factor = max(model.denoiser.net.downsample_factor for model in (whole.source, whole.target))
    frames = whole.codec.num_frames(round(settings.seconds * whole.codec.sample_rate))
    whole.window = -(-frames // factor) * factor
    whole.hop = whole.window * 3 // 4
    found = []
    for path in find_clips(settings.data, settings.source, settings.clips):
        wav, rate = audio.read(path)
        found.append(
            compare(windowed, whole, audio.to_mono(wav)[:, : round(settings.seconds * rate)], rate)
        )
    means = torch.tensor(found).mean(0)
    names = (
        "log-mel distance of the two",
        *(f"{n}, {w}" for n in ("flux", "level") for w in ("windows", "whole clip")),
    )
    print("| | in cross-fades | elsewhere |\n| --- | --- | --- |")
    for name, (inside, outside) in zip(names, means.tolist(), strict=True):
        print(f"| {name} | {inside:.3f} | {outside:.3f} |")


if __name__ == "__main__":
    main()
