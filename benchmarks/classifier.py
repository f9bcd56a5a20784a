"""Accuracy and confusion matrix of the instrument classifier on clips outside its training set.

python benchmarks/classifier.py --data data/chorales/test data/chorales_paired/test

`--hear` selects versions of each clip: unchanged (`plain`), through the small `codec`, `backwards`
(attacks at the wrong end), or `spectrum`: noise with the average spectrum of the clip, without
notes. The last two measure the influence of notes compared to the average spectrum.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import instrument_of
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier, load_classifier
from audio_diffusion_pytorch.utils.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="folders of clips with the instrument in each file name",
    )
    parser.add_argument(
        "--model", type=Path, help="exported classifier (default: the shipped classifier)"
    )
    parser.add_argument(
        "--hear", nargs="+", choices=list(changes()), default=["plain"], help="default: plain"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=12.0,
        help="length of the middle section of each clip (default 12)",
    )
    parser.add_argument("--json", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    try:
        classifier = load_classifier(args.model)
        clips = read_clips(args.data, classifier, args.seconds)
    except InputError as error:
        parser.exit(2, f"classifier: error: {error}\n")
    figures = {}
    for name in args.hear:
        matrix = confusion(classifier, clips, changes()[name], name)
        figures[name] = {"instruments": classifier.instruments, "matrix": matrix.tolist()}
        print(f"{name}: {accuracy(matrix)}\n{table(matrix, classifier.instruments)}")
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")


def changes() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the changes of a clip: name -> function of wav [1, T] at the codec's rate."""
    codec = load_codec()

    def average_spectrum(wav: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(wav)
        phase = (
            2 * torch.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0))
        )
        return torch.fft.irfft(torch.polar(spectrum.abs(), phase), n=wav.shape[-1])

    return {
        "plain": lambda wav: wav,
        "codec": lambda wav: codec.decode(codec.encode(wav[None]), wav.shape[-1])[0],
        "backwards": lambda wav: wav.flip(-1),
        "spectrum": average_spectrum,
    }


def read_clips(
    folders: list[str], classifier: InstrumentClassifier, seconds: float
) -> list[tuple[int, Tensor]]:
    """Read label and wav [1, T] of the middle of each clip, at the classifier's rate.

    Raises:
        InputError: a folder is missing, or contains no clip of the classifier's instruments.
    """
    names = classifier.instruments
    clips = []
    for file in tqdm(find_files(folders, names), desc="reading", unit="clip"):
        header = audio.info(file)
        frames = min(round(seconds * header.sample_rate), header.frames)
        wav, rate = audio.read(file, (header.frames - frames) // 2, frames)
        wav = audio.resample(audio.to_mono(wav), rate, classifier.sample_rate)
        clips.append((names.index(instrument_of(file, names)), wav))
    return clips


@torch.inference_mode()
def confusion(
    classifier: InstrumentClassifier,
    clips: list[tuple[int, Tensor]],
    change: Callable[[Tensor], Tensor],
    title: str,
) -> Tensor:
    """Count clips [N, N]: row: instrument, column: prediction."""
    matrix = torch.zeros(len(classifier.instruments), len(classifier.instruments), dtype=torch.long)
    for label, wav in tqdm(clips, desc=title, unit="clip"):
        found = classifier.probabilities(change(wav), classifier.sample_rate)
        matrix[label, int(found.argmax())] += 1
    return matrix


def accuracy(matrix: Tensor) -> str:
    right = int(matrix.diagonal().sum())
    total = int(matrix.sum())
    shares = (matrix.diagonal() / matrix.sum(1))[matrix.sum(1) > 0]
    return (
        f"{right} of {total} clips correct, {100 * right / total:.1f} %; "
        f"worst instrument {100 * shares.min():.1f} %"
    )


def table(matrix: Tensor, names: tuple[str, ...]) -> str:
    """Format the matrix for a terminal; columns have the numbers of the rows."""
    lines = [
        "instrument \\ found".ljust(20)
        + "".join(f"{column:5}" for column in range(1, len(names) + 1))
    ]
    for row, (name, counts) in enumerate(zip(names, matrix.tolist(), strict=True), 1):
        lines.append(
            f"{row:2} {name}".ljust(20) + "".join(f"{count or '.':>5}" for count in counts)
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
