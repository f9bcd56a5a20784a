"""Error rates of the source analysis: wrong sources, several voices, and false warnings.

python benchmarks/listening.py [--real FOLDER ...]

A folder of real recordings has a folder for each instrument (`violin/`, `double_bass/`). Shipped
clips are split by chorale into two halves: thresholds were chosen on `tune`; report the rates of
`test`. Mixes are sums of two clips of different chorales, with a level difference of up to 6 dB,
and sums of a clip and its transposition by a third, a fourth or a fifth. `--sweep` prints the rates
over the thresholds.
"""

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch.audio import AudioReader, active_rms, resample
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.loading import shipped_instruments
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch
from audio_diffusion_pytorch.transfer import listening
from audio_diffusion_pytorch.transfer.listening import Analysis, analyse, analyse_wav

SECONDS = 15.0  # of a clip in a mix
INTERVALS = (3, 4, 5, 7)  # semitones


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", nargs="*", type=Path, default=[], help="folders with a folder for each instrument"
    )
    parser.add_argument(
        "--pairs", type=int, default=60, help="sums of two clips in each half (default 60)"
    )
    parser.add_argument("--sweep", action="store_true", help="print the rates over the thresholds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    groups = {}
    clips = sorted(
        path for path in (ASSETS / "clips").iterdir() if path.suffix in (".flac", ".ogg")
    )
    chorales = sorted({chorale(path) for path in clips})
    started = time.perf_counter()
    for name, part in (("tune", chorales[::2]), ("test", chorales[1::2])):
        half = [path for path in clips if chorale(path) in part]
        groups[name] = [
            (path.stem.rpartition("_")[2], analyse_file(path)) for path in tqdm(half, name)
        ]
        groups[f"{name} mixes"] = [("", found) for found in mixes(half, args.pairs)]
    for folder in args.real:
        groups[folder.name] = list(real(folder))
    print(f"{'':14}{'wrong warning':>16}{'wrong source':>16}{'several voices':>16}   of")
    for name, found in groups.items():
        print(f"{name:14}" + "".join(f"{text:>16}" for text in rates(found)) + f"   {len(found)}")
    if args.sweep:
        sweep(groups)
    print(f"{time.perf_counter() - started:.0f} s")


def rates(found: list[tuple[str, Analysis]]) -> list[str]:
    """Measure rates of warnings: false and correct ones of a wrong source, several voices."""
    single = [(name, analysis) for name, analysis in found if name]
    right = [analysis.is_unlikely(name) for name, analysis in single]
    wrong = [
        analysis.warning(other) is not None
        for name, analysis in single
        for other in shipped_instruments()
        if other != name
    ]
    return [share(right), share(wrong), share([analysis.several_voices for _, analysis in found])]


def share(values: list[bool]) -> str:
    return f"{sum(values)}/{len(values)} {sum(values) / len(values):.1%}" if values else "-"


def sweep(groups: dict[str, list[tuple[str, Analysis]]]) -> None:
    for key, values in (
        ("UNLIKELY", (0.01, 0.02, 0.05, 0.1)),
        ("SEVERAL_VOICES", (0.05, 0.1, 0.15, 0.2, 0.3)),
    ):
        before = getattr(listening, key)
        for value in values:
            setattr(listening, key, value)
            print(
                f"{key}={value:g}  "
                + "; ".join(f"{n}: {', '.join(rates(f))}" for n, f in groups.items())
            )
        setattr(listening, key, before)


def chorale(path: Path) -> str:
    return path.name.partition("_")[0]


def analyse_file(path: Path) -> Analysis:
    with AudioReader(path) as file:
        return analyse(file)


def real(folder: Path) -> Iterator[tuple[str, Analysis]]:
    """Yield instrument and analysis of each recording in a folder of instruments' folders."""
    for path in tqdm(sorted(folder.glob("*/*")), folder.name):
        try:
            yield path.parent.name.replace("_", " "), analyse_file(path)
        except InputError as error:
            print(f"skipped: {error}")


def mixes(paths: list[Path], count: int) -> Iterator[Analysis]:
    """Yield analyses of two simultaneous voices."""
    rng = random.Random(0)
    clips = {path: beginning(path) for path in paths}
    pairs = [(a, b) for a, b in itertools.combinations(paths, 2) if chorale(a) != chorale(b)]
    for a, b in tqdm(rng.sample(pairs, min(count, len(pairs))), "mixes"):
        (one, rate), (two, other_rate) = clips[a], clips[b]
        two = resample(two, other_rate, rate)
        length = min(one.shape[1], two.shape[1])
        gain = 10 ** (rng.uniform(-6, 6) / 20)
        one = one[:, :length] / active_rms(one, rate)
        two = two[:, :length] / active_rms(two, rate)
        yield analyse_wav(0.05 * (one + gain * two), rate)
    for path in tqdm(paths, "intervals"):
        wav, rate = clips[path]
        moved = torch.from_numpy(shift_pitch(wav.numpy(), rng.choice(INTERVALS), rate))
        yield analyse_wav(wav + moved, rate)


def beginning(path: Path) -> tuple[Tensor, int]:
    with AudioReader(path) as file:
        return file.read_mono(
            0, min(file.info.frames, round(SECONDS * file.info.sample_rate))
        ), file.info.sample_rate


if __name__ == "__main__":
    main()
