"""Cut the shipped clips from paired test performances: the same bars on each instrument.

python scripts/render_dataset.py --output data/chorales --splits train valid
python scripts/render_dataset.py --output data/chorales_paired --splits test --paired
python scripts/make_clips.py --data data/chorales_paired --training-data data/chorales
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

CLIPS = Path(__file__).resolve().parents[1] / "audio_diffusion_pytorch" / "assets" / "clips"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that render_dataset.py --paired wrote"
    )
    parser.add_argument(
        "--training-data", type=Path, required=True, help="training set of the models"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=CLIPS,
        help="folder to write (default: the package's assets/clips)",
    )
    parser.add_argument(
        "--instruments", nargs="+", default=["flute", "violin", "trumpet", "bassoon", "cello"]
    )
    parser.add_argument(
        "--ogg",
        nargs="*",
        default=["trumpet", "bassoon", "cello"],
        help="instruments to write as .ogg, a quarter of the size of .flac "
        "(default: trumpet bassoon cello)",
    )
    parser.add_argument("--count", type=int, default=4, help="number of performances (default 4)")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="length of a clip in seconds (default 12)"
    )
    args = parser.parse_args()
    try:
        make_clips(
            args.data,
            args.training_data,
            args.output,
            args.instruments,
            args.ogg,
            args.count,
            args.seconds,
        )
    except InputError as error:
        parser.exit(2, f"make_clips: error: {error}\n")


def make_clips(
    data: Path,
    training_data: Path,
    output: Path,
    instruments: list[str],
    lossy: list[str],
    count: int,
    seconds: float,
) -> None:
    """Write `count` clips for each instrument, spread over the test pieces, and `manifest.json`.

    Raises:
        InputError: `data` is not a paired test set, or has too few performances of the length.
    """
    manifest = read_manifest(data)
    training = read_manifest(training_data)
    folders = [data / "test" / name for name in instruments]
    stems = [
        {path.stem.removesuffix(f"_{name}") for path in folder.glob("*.flac")}
        for name, folder in zip(instruments, folders, strict=True)
    ]
    pieces: dict[str, str] = {}  # the first performance of sufficient length of each piece
    for stem in sorted(set.intersection(*stems)):
        note = json.loads(
            (folders[0] / f"{stem}_{instruments[0]}.json").read_text(encoding="utf-8")
        )
        if note["paired"] and note["duration"] >= seconds + 1:
            pieces.setdefault(note["piece"], stem)
    if len(pieces) < count:
        raise InputError(
            f"{data} has {len(pieces)} pieces with a performance on each of {instruments}, {count} "
            "are required"
        )
    chosen = [list(pieces.values())[i * len(pieces) // count] for i in range(count)]
    files = {}
    for stem in chosen:
        for name, folder in zip(instruments, folders, strict=True):
            clip = f"{stem}_{name}"
            written = f"{clip}.{'ogg' if name in lossy else 'flac'}"
            files[written] = cut(folder / f"{clip}.flac", output / written, seconds)
    kept = {key: manifest[key] for key in ("seed", "soundfonts", "programs", "versions")}
    kept["pieces"] = {**manifest["pieces"], **training["pieces"]}  # piece -> split
    with atomic_write(output / "manifest.json") as temporary:
        temporary.write_text(
            json.dumps({**kept, "seconds": seconds, "files": files}, indent=1) + "\n"
        )


def read_manifest(folder: Path) -> dict:
    try:
        return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read manifest.json in {folder}: render the folder with render_dataset.py"
        ) from error


def cut(source: Path, target: Path, seconds: float) -> dict[str, str]:
    """Cut the start of a clip and its notes; return the piece and the hashes of both files."""
    performance = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    wav, rate = audio.read(source, 0, round(seconds * performance["sample_rate"]))
    fade = rate // 20
    wav[:, -fade:] *= 1 - (1 + torch.arange(fade)) / fade  # avoid a click at the cut
    audio.write(target, wav, rate)
    notes = [
        [on, min(off, seconds), pitch] for on, off, pitch in performance["notes"] if on < seconds
    ]
    entry = {**performance, "duration": seconds, "notes": notes}
    del entry["sha256"]
    with atomic_write(target.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(entry) + "\n")
    return {
        "piece": performance["piece"],
        "cut_from_sha256": performance["sha256"],
        "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    main()
