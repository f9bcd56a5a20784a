"""Measure the losses of a codec: compare recordings with the same recordings after decoding.

python benchmarks/codec.py --data FOLDER
python benchmarks/codec.py --data FOLDER --codecs small FILE.safetensors --rounds 0 4 16

CREPE tracks the pitch of the recordings and of the decoded sound. The harmonics-to-noise ratio of
both uses the pitch of the recording.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.judge import analyse_crepe
from audio_diffusion_pytorch.metrics.harmonicity import harmonics_to_noise
from audio_diffusion_pytorch.metrics.pitch_tracks import frame_accuracy
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance

_COLUMNS = ("HNR, dB", "HNR lost, dB", "log-mel", "raw chroma", "decoding, s per s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="folders of recordings")
    add("--codecs", nargs="+", default=["small"], help="names or files (default: small)")
    add("--rounds", nargs="+", type=int, help="rounds of the phase reconstruction")
    add("--seconds", type=float, default=6.0, help="start of each recording (default 6)")
    args = parser.parse_args()
    try:
        codecs = {
            f"{name}, {codec.phase_rounds} rounds": codec
            for name in args.codecs
            for codec in variants(load_codec(name), args.rounds)
        }
        clips = read_clips(args.data, args.seconds)
    except InputError as error:
        parser.exit(2, f"codec: error: {error}\n")
    print(f"{len(clips)} recordings")
    print("| | " + " | ".join(_COLUMNS) + " |")
    print("| --- |" + " --- |" * len(_COLUMNS))
    for name, codec in codecs.items():
        scores = [
            loss(codec, wav, rate) for wav, rate in tqdm(clips, desc=name, leave=False, unit="clip")
        ]
        means = np.nanmean(np.array(scores), axis=0)
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in means) + " |", flush=True)


def variants(codec: Codec, rounds: list[int] | None) -> list[Codec]:
    return [codec] if rounds is None else [codec.with_phase_rounds(number) for number in rounds]


def read_clips(folders: list[str], seconds: float) -> list[tuple[Tensor, int]]:
    """Read the start of each recording: sound [T] and its rate."""
    clips = []
    for path in find_files(folders, None):
        wav, rate = audio.read_mono(path)
        clips.append((wav[0, : round(seconds * rate)], rate))
    return clips


@torch.inference_mode()
def loss(codec: Codec, wav: Tensor, rate: int) -> tuple[float, ...]:
    """Score the decoded sound of one recording; see `_COLUMNS`."""
    wav = audio.resample(wav[None], rate, codec.sample_rate)
    latents = codec.encode(wav[None])
    start = time.perf_counter()
    decoded = codec.decode(latents, wav.shape[-1])[0]
    seconds = time.perf_counter() - start
    before, after = analyse_crepe(torch.cat([wav, decoded]), codec.sample_rate)
    ratios = [harmonics_to_noise(x[0], codec.sample_rate, before.f0)["hnr"] for x in (wav, decoded)]
    return (
        ratios[1],
        ratios[0] - ratios[1],
        float(log_mel_distance(decoded, wav, codec.sample_rate)),
        frame_accuracy(before.f0, after.f0)["raw_chroma"],
        seconds * codec.sample_rate / wav.shape[-1],
    )


if __name__ == "__main__":
    main()
