"""Speed of the loader with and without pitch-shift augmentation.

python benchmarks/loader.py --data FOLDER [--instrument flute] [--workers 0]

The benchmark reads the training crops of several epochs in turns, so other load affects both
equally. `prepare` is the time to shift all recordings once; the factor is the median over the
turns.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.pitch_shift import PitchShift

# The data of the full-size and of the small experiments.
CASES = {"17.07 s": (409600, None), "3.41 s, RecordingAugment": (81920, RecordingAugment())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of recordings")
    parser.add_argument("--instrument", default="flute")
    parser.add_argument("--files", type=int, default=40, help="number of recordings (default 40)")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes of the loader (default 0)"
    )
    parser.add_argument("--turns", type=int, default=7, help="pairs of epochs (default 7)")
    parser.add_argument(
        "--cache", help="folder of shifted recordings (default: a temporary folder)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'crops':26} {'plain ms':>9} {'shifted ms':>11} {'factor':>7} {'prepare s':>10}")
        for name, (length, augment) in CASES.items():
            plain = datamodule(args, length, augment, None)
            shifted = datamodule(args, length, augment, PitchShift(-1, args.cache or folder))
            start = time.perf_counter()
            shifted.train_dataloader()
            prepare = time.perf_counter() - start
            pairs = [
                (epoch_time(plain, turn), epoch_time(shifted, turn)) for turn in range(args.turns)
            ]
            plain_ms, shifted_ms = (
                1000 * statistics.median(side) for side in zip(*pairs, strict=True)
            )
            factor = statistics.median(after / before for before, after in pairs)
            print(f"{name:26} {plain_ms:9.1f} {shifted_ms:11.1f} {factor:7.2f} {prepare:10.1f}")


def datamodule(
    args: argparse.Namespace,
    length: int,
    augment: RecordingAugment | None,
    pitch_shift: PitchShift | None,
) -> Datamodule:
    dataset = InstrumentDataset(
        args.data,
        [args.instrument],
        length=length,
        augment=augment,
        pitch_shift=pitch_shift,
        crops_per_file=2,
    )
    few = dataset.with_files(dataset.wavs[: args.files])
    return Datamodule(few, batch_size=8, num_workers=args.workers)


def epoch_time(data: Datamodule, epoch: int) -> float:
    """Seconds a crop."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    start = time.perf_counter()
    items = sum(len(batch) for batch in loader)
    return (time.perf_counter() - start) / items


if __name__ == "__main__":
    main()
