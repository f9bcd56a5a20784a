"""Pack recordings of one instrument: latents and melodies in one file, to train without the audio.

python scripts/pack_latents.py --data data/chorales/train data/notes/train --instrument violin \\
    --output packs/violin.safetensors --octaves -2 -1
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="FOLDER", help="folders of recordings")
    add("--instrument", required=True, help="name that the file names contain")
    add("--output", type=Path, required=True, help="file to write (.safetensors)")
    add("--codec", default="small", help="codec of the latents (default: small)")
    add("--variants", type=int, default=1, help="varied copies of each recording (default 1)")
    add("--octaves", nargs="*", type=int, default=[], help="octaves that varied copies move by")
    add("--valid-share", type=float, default=0.05, help="share of validation files (default 0.05)")
    add("--seed", type=int, default=0, help="key of the variations (default 0)")
    add("--sources", default="", help="origin and licences of the recordings, stored in the file")
    add("--workers", type=int, default=1, help="processes that read and vary (default 1)")
    add("--device", default="cpu", help="device that encodes (default cpu)")
    args = parser.parse_args()

    from audio_diffusion_pytorch.codecs.loading import load_codec
    from audio_diffusion_pytorch.data.augment import RecordingAugment
    from audio_diffusion_pytorch.data.pack_recordings import Preparation, pack_recordings
    from audio_diffusion_pytorch.data.packed import PackMetadata, write_pack
    from audio_diffusion_pytorch.data.recordings import Recordings
    from audio_diffusion_pytorch.errors import InputError

    try:
        if args.output.suffix != ".safetensors":
            raise InputError(f"cannot write {args.output}: the name must end in .safetensors")
        found = Recordings.scan(args.data, [args.instrument])
        codec = load_codec(args.codec)
        preparation = Preparation(
            codec.sample_rate, args.variants, tuple(args.octaves), RecordingAugment(), args.seed
        )
        recordings, level = pack_recordings(
            list(found.headers),
            args.instrument,
            codec,
            preparation,
            args.valid_share,
            args.workers,
            args.device,
        )
        metadata = PackMetadata(
            codec.name,
            codec.fingerprint(),
            codec.sample_rate,
            codec.hop_length,
            (args.instrument,),
            level,
            args.sources,
        )
        write_pack(args.output, recordings, metadata)
    except InputError as error:
        parser.exit(2, f"pack_latents: error: {error}\n")
    frames = sum(len(one.latents) for one in recordings)
    hours = frames * codec.hop_length / codec.sample_rate / 3600
    print(f"{args.output}: {len(recordings)} recordings and sections, {hours:.2f} h")


if __name__ == "__main__":
    main()
