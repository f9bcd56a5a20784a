"""Speed and memory of training at full size (302 M parameters, EnCodec with random weights).

python benchmarks/training.py [--turns 3] [--steps 4] [--no-memory]

Rows: the plain path (as in the original: each step encodes its crops, attention by einsum, default
convolutions, optimiser and EMA over single parameters, EMA every tenth step), and our path from the
latent cache. Each row runs in its own process; rows alternate, so other load affects all rows
equally; figures are medians. The loader runs without workers. The benchmark needs about 10 GB, and
more for batch 32; a batch that does not fit is reported as such. With a GPU the rows run on it, and
the table includes the share of time in kernels.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import numpy as np
import soundfile
import torch
from torch import Tensor

from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser, KDistribution
from audio_diffusion_pytorch.models import conv, layers
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule

RATE, LENGTH, BATCH, LARGE_BATCH = 24000, 409600, 4, 32
WARMUP = 3  # untimed steps: creation of the optimiser's state, warm-up of the allocator
ROWS = ("plain", "float32", "bf16")
# Seconds of the original on two cores, for encoding and for a step of the network.
ORIGINAL_ENCODING, ORIGINAL_STEP, TOLERANCE = 4.9, (1.6, 2.1), 0.15
THREADS = os.environ["OMP_NUM_THREADS"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Figures = dict[str, float | str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="processes for each row (default 3)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a process (default 4)")
    parser.add_argument("--no-memory", action="store_true", help="skip batch 32")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(run_row(args.row, args.folder, args.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_recordings(Path(folder) / "data")
        datamodule(Path(folder), frozen_codec())
        found: dict[str, list[Figures]] = {row: [] for row in ROWS}
        for _ in range(args.turns):
            for row in ROWS:
                found[row].append(in_process(row, folder, args.steps))
        report_speed({row: medians(figures) for row, figures in found.items()})
        if not args.no_memory:
            for row in ("memory", "memory, activation checkpointing"):
                print(
                    f"batch {LARGE_BATCH}, {row:36} {in_process(row, folder, args.steps)['peak']}"
                )


def report_speed(rows: dict[str, Figures]) -> None:
    print(f"batch {BATCH}, {DEVICE.type}, {THREADS} threads")
    print(f"{'':8} {'encode s':>9} {'load s':>8} {'step s':>8} {'samples/s':>10} {'factor':>7}")
    rate = {row: BATCH / (f["encode"] + f["load"] + f["step"]) for row, f in rows.items()}
    for row, f in rows.items():
        times = f"{f['encode']:9.2f} {f['load']:8.4f} {f['step']:8.2f}"
        gpu = f"  GPU computes {f['busy']:.0%} of the time" if "busy" in f else ""
        print(f"{row:8} {times} {rate[row]:10.2f} {rate[row] / rate['plain']:7.1f}{gpu}")
    quickest = min(rows, key=lambda row: rows[row]["step"])
    ahead = rows[quickest]["step"] / rows[quickest]["load"]
    print(f"the loader alone is {ahead:.0f} times faster than the step of {quickest} needs")
    proportion = rows["plain"]["encode"] / rows["plain"]["step"]
    low, high = (ORIGINAL_ENCODING / step for step in reversed(ORIGINAL_STEP))
    alike = low * (1 - TOLERANCE) <= proportion <= high * (1 + TOLERANCE)
    print(
        f"plain path, encoding : step = {proportion:.2f}; the original's {low:.2f} to {high:.2f}: "
        f"{'' if alike else 'NOT '}within {TOLERANCE:.0%}"
    )


def in_process(row: str, folder: str, steps: int) -> Figures:
    command = [sys.executable, __file__, "--row", row, "--folder", folder, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{row}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(figures: list[Figures]) -> Figures:
    return {key: statistics.median(f[key] for f in figures) for key in figures[0]}


def run_row(row: str, folder: Path, steps: int) -> Figures:
    torch.manual_seed(0)
    torch.set_num_threads(int(THREADS))
    if row.startswith("memory"):
        return peak_memory("checkpointing" in row)
    codec = frozen_codec()
    torch.set_float32_matmul_precision("high")
    step = plain_step(codec.to(DEVICE)) if row == "plain" else our_step(codec, row == "bf16")
    batches = endless(datamodule(folder, codec, cache=row != "plain"))
    figures: dict[str, list[float]] = {"encode": [], "load": [], "step": []}
    for _ in range(WARMUP + steps):
        start = time.perf_counter()
        batch = next(batches)
        loaded = time.perf_counter()
        encode, network = step(batch.to(DEVICE))
        for key, value in zip(figures, (encode, loaded - start, network), strict=True):
            figures[key].append(value)
    result = {key: statistics.median(values[WARMUP:]) for key, values in figures.items()}
    return result | (
        {"busy": gpu_share(lambda: step(batch.to(DEVICE)))} if DEVICE.type == "cuda" else {}
    )


def now() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def our_step(codec: EncodecCodec, bf16: bool) -> Callable[[Tensor], tuple[float, float]]:
    torch.set_flush_denormal(True)
    module = InstrumentModule(UNet1d(), codec, KDistribution(0.001, 100.0, 9.0)).to(DEVICE)
    module.takes_latents = True
    optimizer = module.configure_optimizers()["optimizer"]
    count = 0

    def step(latents: Tensor) -> tuple[float, float]:
        nonlocal count
        start = now()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            z = module.normalised_latents(latents)
            noise, sigma, _ = module.draw(z, count)
            loss = module.denoiser.loss(z, noise, sigma).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        module.ema.update(module.denoiser)
        count += 1
        return 0.0, now() - start

    return step


def plain_step(codec: EncodecCodec) -> Callable[[Tensor], tuple[float, float]]:
    conv.Conv1d.forward, conv.ConvTranspose1d.forward = (
        torch.nn.Conv1d.forward,
        torch.nn.ConvTranspose1d.forward,
    )
    layers.Attention.forward = einsum_attention
    denoiser = Denoiser(UNet1d()).to(DEVICE)
    averaged = [p.detach().clone() for p in denoiser.parameters()]
    options = {
        "betas": (0.95, 0.999),
        "eps": 1e-6,
        "weight_decay": 1e-3,
        "foreach": False,
        "fused": False,
    }
    optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-4, **options)
    distribution = KDistribution(0.001, 100.0, 9.0)

    def step(wav: Tensor) -> tuple[float, float]:
        start = now()
        with torch.no_grad():
            z = codec.encode(wav)
        encoded = now()
        sigma = distribution(len(z), DEVICE)
        loss = denoiser.loss(z, torch.randn_like(z), sigma).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done = now()
        with torch.no_grad():
            for average, parameter in zip(averaged, denoiser.parameters(), strict=True):
                average.lerp_(parameter, 0.005)
        return encoded - start, done - encoded + (now() - done) / 10

    return step


def einsum_attention(self: layers.Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
    weights = (torch.einsum("bhnd,bhmd->bhnm", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return self.to_out(torch.einsum("bhnm,bhmd->bhnd", weights, v).transpose(1, 2).flatten(2))


def gpu_share(step: Callable[[], object]) -> float:
    """Share of time in kernels over three steps (one stream: kernels do not overlap)."""
    from torch.profiler import ProfilerActivity, profile

    now()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        start = time.perf_counter()
        for _ in range(3):
            step()
        seconds = now() - start
    return sum(event.self_device_time_total for event in found.key_averages()) / 1e6 / seconds


def peak_memory(checkpointing: bool) -> Figures:
    """Measure the peak memory of two steps of the large batch, with EMA and optimiser state."""
    if (
        DEVICE.type == "cpu"
    ):  # let allocations fail instead of the out-of-memory killer end the process
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
        )
        resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    try:
        distribution = KDistribution(0.001, 100.0, 9.0)
        module = InstrumentModule(
            UNet1d(), frozen_codec(), distribution, checkpoint_activations=checkpointing
        )
        module.to(DEVICE)
        optimizer = module.configure_optimizers()["optimizer"]
        z = torch.randn(LARGE_BATCH, 128, LENGTH // 320, device=DEVICE)
        for count in range(2):
            noise, sigma, _ = module.draw(z, count)
            optimizer.zero_grad()
            module.denoiser.loss(z, noise, sigma).mean().backward()
            optimizer.step()
            module.ema.update(module.denoiser)
    except RuntimeError as error:
        # "primitive": the message of the convolution library.
        if not any(word in str(error) for word in ("memory", "Memory", "primitive")):
            raise
        return {"peak": "does not fit in the memory of this machine"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else peak
    return {"peak": f"{peak / 2**30:.1f} GiB"}


def frozen_codec() -> EncodecCodec:
    torch.manual_seed(0)  # same weights in each process, to share the cache
    return load_codec("encodec", weights="random")


def make_recordings(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        wav = 0.1 * rng.standard_normal(30 * RATE)
        soundfile.write(folder / f"flute_{index}.flac", wav, RATE)


def datamodule(folder: Path, codec: EncodecCodec, cache: bool = True) -> Datamodule:
    dataset = InstrumentDataset(str(folder / "data"), length=LENGTH, crops_per_file=100)
    data = Datamodule(dataset, BATCH, cache=cache, cache_dir=folder / "cache")
    data.use_cache(codec)
    return data


def endless(data: Datamodule) -> Iterator[Tensor]:
    while True:
        yield from data.train_dataloader()


if __name__ == "__main__":
    main()
