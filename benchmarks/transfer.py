"""Speed and accuracy of the bridge.

python benchmarks/transfer.py --data data/chorales_paired/test  # all parts, 20 minutes, two cores
python benchmarks/transfer.py --only speed                      # one part, or several

speed       the plain path (Heun, 100 points, float32, one clip at a time), and the presets: shipped
            models, and the full size with random weights; a clip of 17.07 s, and a folder of 16;
            each row in a new process
evaluation  one evaluation of each network, by precision and batch; codec; shares of the plain path
profile     seconds of the stages of a transfer, by preset; shipped models, a clip of 17.07 s
error       error relative to the converged solution, shipped models, on clips of --data
            (default: shipped clips)
where       error of normal by noise level
start       python transfer.py from start to file, 10 s clip; --help
hour        time and peak memory of an hour of audio and of ten minutes
gpu         full size, folder of 64 clips, share of time in kernels (with a GPU only)
"""

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import torch
from measuring import Table, run_process, timed
from solver_error import find_clips, measure, plain_options, where
from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.overlap_add import OverlapAdd
from audio_diffusion_pytorch.bridge.precision import DTYPES, at_precision
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.models.instrument import InstrumentModel, InstrumentSpec
from audio_diffusion_pytorch.models.loading import load_instrument

ROOT = Path(__file__).resolve().parent.parent
RATE, SAMPLES = 24000, 409600  # 17.07 s
SIZES = ("small", "full")
SETTINGS = ("plain", "instant", "draft", "normal", "high")
# Ratio of the codec (both directions, one clip) to one evaluation of the full network in float32.
ORIGINAL_PROPORTION = 2.4 / 0.19
TOLERANCE = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with a folder of clips for each instrument (default: shipped clips)",
    )
    parser.add_argument(
        "--clips", type=int, default=20, help="clips of the error part (default 20)"
    )
    parser.add_argument(
        "--pairs", nargs="+", default=["flute-violin", "violin-flute"], help="of the error part"
    )
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="of the error part (default all)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of speed and evaluation"
    )
    parser.add_argument("--folder", type=int, default=16, help="clips in the folder (default 16)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row is not None:
        print(json.dumps(run_row(**json.loads(args.row))))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {args.device}")
    for name in args.only:
        print(f"\n## {name}\n", flush=True)
        PARTS[name](args)


# Speed


def speed(args: argparse.Namespace) -> None:
    """Measure speed; the plain path of a folder is extrapolated from one clip ("~")."""
    figures = ("evaluations", "seconds", "real-time factor", "times faster", "peak MB")
    table = Table("size", "setting", "clips", *figures)
    for size in args.sizes:
        plain = None
        for setting in SETTINGS:
            for clips in (1, args.folder):
                if setting == "high" and clips > 1:
                    continue
                about = ""
                if setting == "plain" and clips > 1:
                    row = {**plain, "seconds": plain["seconds"] * clips}
                    about = "~"
                else:
                    about_row = {"size": size, "setting": setting, "clips": clips}
                    row = in_new_process(**about_row, device=args.device)
                plain = plain or row
                faster = plain["seconds"] * clips / row["seconds"]
                factor = row["seconds"] / (clips * SAMPLES / RATE)
                figures = (
                    f"{about}{row['seconds']:.2f}",
                    f"{factor:.3f}",
                    f"{faster:.1f}",
                    f"{row['peak_mb']:.0f}",
                )
                table.row(size, setting, clips, row["evaluations"], *figures)


def in_new_process(**row) -> dict:
    out, _, peak = run_process([sys.executable, __file__, "--row", json.dumps(row)])
    return json.loads(out) | {"peak_mb": peak}


def run_row(size: str, setting: str, clips: int, device: str) -> dict:
    """Time a row without loading; fast rows are the median of nine after a warm-up."""
    models, codec = load(size, device)
    options = {"quality": setting}
    if setting == "plain":
        reference = Bridge(*models, codec=codec, precision="32", device=device)
        options = plain_options(reference) | {"batch_size": 1}
    bridge = Bridge(*models, codec=codec, device=device, **options)
    wavs = [clip() for _ in range(clips)]
    seconds = [timed(lambda: transfer_folder(bridge, wavs))]
    if seconds[0] < 10 and clips == 1:
        seconds = [timed(lambda: transfer_folder(bridge, wavs)) for _ in range(9)]
    return {"evaluations": bridge.num_evaluations, "seconds": statistics.median(seconds)}


def load(size: str, device: str) -> tuple[list[InstrumentModel], Codec]:
    """Load two models and their codec; models of the full size are untrained."""
    if size == "small":
        return [load_instrument(name, device) for name in ("flute", "violin")], load_codec("small")
    torch.manual_seed(0)
    spec = InstrumentSpec("untrained", {}, "encodec", level_db=-18.0)
    models = [InstrumentModel(spec, torch.zeros(128), torch.ones(128)).eval() for _ in range(2)]
    return [model.requires_grad_(False).to(device) for model in models], EncodecCodec(
        "random"
    ).freeze()


def clip() -> Tensor:
    """Return 17.07 s of a repeated shipped recording."""
    wav, rate = audio.read(find_clips(None, "flute", 1)[0])
    wav = audio.resample(audio.to_mono(wav), rate, RATE)
    return wav.repeat(1, -(-SAMPLES // wav.shape[1]))[:, :SAMPLES]


def transfer_folder(bridge: Bridge, wavs: list[Tensor]) -> list[Tensor]:
    """Transfer recordings [C, T]; the batches contain windows of all recordings."""
    windows = []
    joiners = []
    for index, wav in enumerate(wavs):
        stats = RecordingStats(audio.active_rms(wav, RATE))
        cutter = WindowCutter(bridge.framing, RATE, len(wav), stats)
        windows.append(zip(repeat(index), cutter.windows([wav])))
        joiners.append(OverlapAdd(bridge.framing, RATE, len(wav), stats))
    parts: list[list[Tensor]] = [[] for _ in wavs]
    for index, window, latents in bridge.bridge_windows(chain.from_iterable(windows)):
        parts[index].append(joiners[index].add(window, latents))
    return [torch.cat(part, -1) for part in parts]


# One evaluation


@torch.inference_mode()
def evaluation(args: argparse.Namespace) -> None:
    """Measure precisions in turns, so that other load affects all equally; report the best."""
    notes = []
    table = Table("size", "batch", *(f"{name}: ms, share of 32" for name in DTYPES))
    for size in args.sizes:
        models, codec = load(size, args.device)
        model = models[0]
        nets = {name: at_precision(model.denoiser, dtype) for name, dtype in DTYPES.items()}
        for batch in (1, 4):
            x = torch.randn(batch, 128, model.spec.frames, device=args.device)
            sigma = torch.ones(batch, device=args.device)
            times = in_turns(
                {name: lambda net=net, x=x, s=sigma: net(x, s) for name, net in nets.items()}
            )
            cells = (f"{1000 * t:.1f}, {t / times['32']:.2f}" for t in times.values())
            table.row(size, batch, *cells)
            if batch == 1:
                single = times["32"]
        wav = clip()[None].to(args.device)
        latents = codec.to(args.device).encode(wav)
        codes = in_turns(
            {
                "encode": lambda c=codec, w=wav: c.encode(w),
                "decode": lambda c=codec, z=latents: c.decode(z),
            }
        )
        windows = Bridge(*models, codec=codec, device=args.device, precision="32").num_windows(
            SAMPLES, RATE
        )
        whole = 396 * windows * single
        note = (
            f"{size}: codec {codes['encode']:.2f} s + {codes['decode']:.2f} s a clip; plain path "
        )
        note += f"396 x {windows} x {1000 * single:.0f} ms = {whole:.1f} s of evaluations"
        notes.append(note)
        if size == "full":
            proportion = sum(codes.values()) / single
            alike = abs(proportion / ORIGINAL_PROPORTION - 1) <= TOLERANCE
            notes.append(
                f"full: codec : evaluation = {proportion:.1f}; the original's "
                f"{ORIGINAL_PROPORTION:.1f}: {'' if alike else 'NOT '}within {TOLERANCE:.0%}"
            )
    print("\n" + "\n".join(notes))


def in_turns(functions: dict[str, Callable], turns: int = 5) -> dict[str, float]:
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(turns):
        for name, function in functions.items():
            best[name] = min(best[name], timed(function))
    return best


# Stages

STAGES = {  # end of the file's path, function
    "level and tuning": ("bridge/bridge.py", "_measured"),
    "register": ("bridge/register.py", "octaves_into_range"),
    "encoder": ("bridge/model_pair.py", "encode_windows"),
    "melody": ("bridge/model_pair.py", "melody_of"),
    "networks": ("bridge/model_pair.py", "_solve"),
    "decoder network": ("codecs/mel.py", "predict"),
    "Griffin-Lim": ("codecs/griffin_lim.py", "forward"),
    "resampling": ("audio/dsp.py", "__call__"),
}


def profile_stages(args: argparse.Namespace) -> None:
    """Measure one thread, because a profile covers one."""
    table = Table("preset", "evaluations", "seconds", *STAGES, "rest")
    torch.set_num_threads(1)
    models, codec = load("small", args.device)
    wav = clip()
    for setting in SETTINGS[1:]:
        bridge = Bridge(*models, codec=codec, device=args.device, quality=setting)
        bridge(wav, RATE)
        profile = cProfile.Profile(time.process_time)
        profile.runcall(bridge, wav, RATE)
        stats = pstats.Stats(profile)
        seconds = dict.fromkeys(STAGES, 0.0)
        for (file, _, function), (*_, cumulative, _) in stats.stats.items():
            for stage, (end, name) in STAGES.items():
                if file.endswith(end) and function == name:
                    seconds[stage] += cumulative
        rest = stats.total_tt - sum(seconds.values())
        shares = (f"{value / stats.total_tt:.0%}" for value in (*seconds.values(), rest))
        table.row(setting, bridge.num_evaluations, f"{stats.total_tt:.2f}", *shares)


# Error


def error(args: argparse.Namespace) -> None:
    for pair in args.pairs:
        rows = measure(*pair.split("-"), args.data, args.clips, args.device, args.rows)
        print(f"\n{pair}, error against the converged solution, median / 90th percentile:\n")
        table = Table("setting", "evaluations", "noise", "result")
        for row in rows:
            table.row(*row)


def where_from(args: argparse.Namespace) -> None:
    for pair in args.pairs:
        print(f"\n{pair}:\n")
        table = Table("direction", "from sigma", "to sigma", "error added")
        for direction, start, end, added in where(
            *pair.split("-"), args.data, args.clips, args.device
        ):
            table.row(direction, f"{start:.3f}", f"{end:.3f}", f"{added:+.5f}")


# The command


def start(args: argparse.Namespace) -> None:
    table = Table("command", "seconds", "peak MB")
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder) / "in.wav", 10)
        for name, arguments in (
            ("--help", ["--help"]),
            ("10 s clip", transfer_arguments(folder, "in.wav")),
        ):
            runs = [command(arguments) for _ in range(3)]
            table.row(
                name,
                f"{statistics.median(r[0] for r in runs):.2f}",
                f"{max(r[1] for r in runs):.0f}",
            )


def hour(args: argparse.Namespace) -> None:
    table = Table("minutes", "seconds", "real-time factor", "peak MB")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (10, 60):
            write_clip(Path(folder) / "in.wav", 60 * minutes)
            seconds, peak = command(transfer_arguments(folder, "in.wav"))
            table.row(minutes, f"{seconds:.1f}", f"{seconds / 60 / minutes:.3f}", f"{peak:.0f}")


def transfer_arguments(folder: str, name: str) -> list[str]:
    return [
        "source=flute",
        "target=violin",
        f"input={folder}/{name}",
        f"output={folder}/out_{time.time_ns()}.wav",
    ]


def write_clip(path: Path, seconds: int) -> None:
    """Write a long recording of concatenated shipped clips."""
    parts = [audio.read(file)[0] for file in find_clips(None, "flute", 4)]
    rate = audio.info(find_clips(None, "flute", 1)[0]).sample_rate
    wav = torch.cat(parts, -1)
    audio.write(path, wav.repeat(1, -(-seconds * rate // wav.shape[1]))[:, : seconds * rate], rate)


def command(arguments: list[str]) -> tuple[float, float]:
    """Run transfer.py; return seconds from start to end, and peak memory in MB."""
    return run_process([sys.executable, str(ROOT / "transfer.py"), *arguments])[1:]


# GPU


def gpu(args: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        print("no GPU found")
        return
    from torch.profiler import ProfilerActivity, profile

    models, codec = load("full", "cuda")
    wavs = [clip() for _ in range(64)]
    table = Table(
        "compiled",
        "seconds",
        "times real time, a clip",
        "share of time in kernels",
        "peak MB of the GPU",
    )
    for compiled in (False, True):
        bridge = Bridge(*models, codec=codec, device="cuda", batch_size=16, compile=compiled)
        transfer_folder(bridge, wavs[:32])
        torch.cuda.reset_peak_memory_stats()
        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            seconds = timed(lambda bridge=bridge: transfer_folder(bridge, wavs))
        busy = sum(event.self_device_time_total for event in trace.key_averages()) / 1e6
        peak = torch.cuda.max_memory_allocated() / 1e6
        table.row(
            compiled,
            f"{seconds:.1f}",
            f"{64 * SAMPLES / RATE / seconds:.0f}",
            f"{busy / seconds:.0%}",
            f"{peak:.0f}",
        )


PARTS = {
    "speed": speed,
    "evaluation": evaluation,
    "profile": profile_stages,
    "error": error,
    "where": where_from,
    "start": start,
    "hour": hour,
    "gpu": gpu,
}

if __name__ == "__main__":
    main()
