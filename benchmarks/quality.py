"""The quality figures of the README: the small codec, and a bridge between two instruments that ship.

python scripts/render_dataset.py --output data/chorales_paired --instruments flute violin --splits test --paired
python benchmarks/quality.py --data data/chorales_paired/test [--real recording.wav ...]

Runs on held-out pieces with the same performance on both instruments, and prints one table.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge import Bridge
from audio_diffusion_pytorch.codec import Codec, load_codec
from audio_diffusion_pytorch.metrics import log_mel_distance, pitch_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of paired clips, one folder an instrument")
    parser.add_argument("--source", default="flute", help="instrument of the input: NAME (ships) or NAME=MODEL")
    parser.add_argument("--target", default="violin")
    parser.add_argument("--codec", default="small")
    parser.add_argument("--clips", type=int, default=24, help="test performances (default 24)")
    parser.add_argument("--seconds", type=float, default=12.0, help="length taken from the middle of each (default 12)")
    parser.add_argument("--sigma", type=float, nargs="*", default=[None], help="hand-off sigmas (default: the model's)")
    parser.add_argument("--quality", default="normal", help="draft, normal (default) or high")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="recordings without a pair: DPD only")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    source, _, source_model = args.source.partition("=")
    target, _, target_model = args.target.partition("=")

    codec = load_codec(args.codec)
    pairs = load_pairs(args.data, source, target, args.clips, args.seconds, codec.sample_rate)
    wavs = torch.stack([torch.stack(pair) for pair in pairs])  # [clips, 2, T]
    figures = {"clips": len(pairs), "seconds": args.seconds, "codec": codec_figures(codec, wavs.flatten(0, 1))}
    print(f"codec ({2 * len(pairs)} clips of {args.seconds:g} s): {line(figures['codec'])}")
    for sigma in args.sigma:
        bridge = Bridge(
            source_model or source, target_model or target, sigma, quality=args.quality, codec=codec, batch_size=8
        )
        name = f"{source} -> {target}, sigma {bridge.sigma:g}"
        figures[name] = bridge_figures(bridge, wavs[:, 0], wavs[:, 1])
        print(f"{name}: {line(figures[name])}")
        for path in args.real:
            wav, rate = audio.read(path)
            out = bridge(wav, rate)
            scores = pitch_metrics(wav.mean(0)[None], out.mean(0)[None], rate, "correct")
            figures[f"{name}: {path.stem}"] = {"dpd": float(scores.dpd[0]), "jaccard": float(scores.jaccard[0])}
            print(f"  {path.name}: {line(figures[f'{name}: {path.stem}'])}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def load_pairs(
    data: Path, source: str, target: str, clips: int, seconds: float, sample_rate: int
) -> list[tuple[Tensor, Tensor]]:
    """The middle of performances that both instruments played, one a piece and part: wavs [T]."""
    files = {}
    for name in (source, target):
        if not (data / name).is_dir():
            raise SystemExit(
                f"error: no folder {data / name}: --data takes a split that render_dataset.py --paired made"
            )
        files[name] = {path.stem.removesuffix(f"_{name}"): path for path in sorted((data / name).glob("*.flac"))}
    stems = [stem for stem in files[source] if stem in files[target]]
    if not stems:
        raise SystemExit(f"error: no performance by both {source} and {target} in {data}: render it with --paired")
    length, pairs = round(seconds * sample_rate), []
    chosen = torch.linspace(0, len(stems) - 1, min(clips, len(stems))).long().unique().tolist()
    for stem in (stems[i] for i in chosen):
        pair = [audio.read(files[name][stem])[0][0] for name in (source, target)]
        start = max(0, (min(map(len, pair)) - length) // 2)
        if all(len(wav) >= start + length for wav in pair):
            pairs.append(tuple(wav[start : start + length] for wav in pair))
    return pairs


def codec_figures(codec: Codec, wavs: Tensor) -> dict[str, float]:
    """Re-synthesis of wavs [N, T] against themselves."""
    out, own = [], []
    for part in tqdm(wavs.split(4), desc="codec"):
        with torch.inference_mode():
            latents = codec.encode(part[:, None])
            out.append(codec.decode(latents, part.shape[-1])[:, 0])
            own.append((codec.encode(out[-1][:, None]) - latents).abs().mean((1, 2)))
    out = torch.cat(out)
    dpd = batched(lambda a, b: pitch_metrics(a, b, codec.sample_rate, "correct").dpd, wavs, out)
    distance = batched(lambda a, b: log_mel_distance(a, b, codec.sample_rate), wavs, out)
    return {
        "latent_l1": float(torch.cat(own).mean()),  # the mel codec's latents are its log-mels
        "log_mel_l1": float(distance.mean()),
        **spread("dpd", dpd),
    }


def bridge_figures(bridge: Bridge, sources: Tensor, targets: Tensor) -> dict[str, float]:
    """Outputs of sources [N, T] against the inputs (melody) and the true performances (sound)."""
    rate, started = bridge.codec.sample_rate, time.perf_counter()
    out = torch.stack([bridge(wav[None], rate)[0] for wav in tqdm(sources, desc="bridge")])
    elapsed = time.perf_counter() - started
    scores = batched(lambda a, b: torch.stack([*_both(pitch_metrics(a, b, rate, "correct"))], -1), sources, out)
    done, given = (batched(lambda a, b: log_mel_distance(a, b, rate), wavs, targets) for wavs in (out, sources))
    frames = bridge.window
    with torch.inference_mode():
        noise = bridge.to_noise(bridge.codec.encode(sources[:8, None, : frames * bridge.codec.hop_length]))
    return {
        **spread("dpd", scores[:, 0]),
        "jaccard_mean": float(scores[:, 1].nanmean()),
        "log_mel_output": float(done.mean()),
        "log_mel_input": float(given.mean()),
        "log_mel_share": float(done.mean() / given.mean()),
        "noise_spread_share": float(noise.std() / (bridge.sigma**2 + 1) ** 0.5),
        "seconds_per_second": elapsed / (sources.numel() / rate),
    }


def _both(scores) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(scores.dpd), torch.as_tensor(scores.jaccard)


def batched(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, size: int = 4) -> Tensor:
    return torch.cat([torch.as_tensor(function(x, y)) for x, y in zip(a.split(size), b.split(size), strict=True)])


def spread(name: str, values: Tensor) -> dict[str, float]:
    values = values.double()
    return {f"{name}_median": float(values.nanmedian()), f"{name}_p90": float(values.nanquantile(0.9))}


def line(figures: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.3f}" for key, value in figures.items())


if __name__ == "__main__":
    main()
