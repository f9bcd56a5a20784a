"""Convert a checkpoint of the original system to a model file, or a model to its layout.

python scripts/convert_checkpoint.py their.ckpt flute.safetensors --mean mean.pt --std std.pt
python scripts/convert_checkpoint.py flute.safetensors back.ckpt --to-original
"""

import argparse
import json
import sys
from pathlib import Path

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        type=Path,
        help="checkpoint of the original; with --to-original: one of our models",
    )
    parser.add_argument(
        "output", type=Path, help=".safetensors file to write; with --to-original: .ckpt file"
    )
    parser.add_argument(
        "--mean",
        type=Path,
        help="file with the mean of the latents (with --to-original: file to write; default "
        "OUTPUT_mean.pt)",
    )
    parser.add_argument(
        "--std",
        type=Path,
        help="file with their standard deviation (with --to-original: file to write; default "
        "OUTPUT_std.pt)",
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="averaged weights (default) or raw weights",
    )
    parser.add_argument(
        "--name", help="name of the instrument, for display (default: file name of the checkpoint)"
    )
    parser.add_argument(
        "--sigma-min", type=float, help="lowest noise level in training (default 0.001)"
    )
    parser.add_argument(
        "--sigma-max",
        type=float,
        help="highest noise level in training (default 100, as for the published flute and violin; "
        "5 for bassoon, cello, trumpet and pitch-shifted flute)",
    )
    parser.add_argument("--rho", type=float, help="spacing of the noise levels (default 9)")
    parser.add_argument(
        "--handoff-sigma", type=float, help="default noise level of a bridge's hand-off (default 4)"
    )
    parser.add_argument(
        "--unet",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="arguments of the UNet that its shapes do not encode, for example attention_heads=8 "
        "resnet_groups=8",
    )
    parser.add_argument(
        "--codec-output",
        type=Path,
        help=".safetensors file for the EnCodec weights of the checkpoint; use it with "
        "codec.weights=FILE",
    )
    parser.add_argument(
        "--to-original",
        action="store_true",
        help="write the layout of the original, for its code",
    )
    parser.add_argument(
        "--codec",
        type=Path,
        help="with --to-original: EnCodec weights to include (a folder from the hub, a checkpoint "
        "of the original)",
    )
    return parser.parse_args(argv)


def to_ours(args: argparse.Namespace) -> None:
    """Convert a checkpoint of the original to .safetensors in half precision."""
    from audio_diffusion_pytorch.codecs.encodec_weights import to_package, to_transformers
    from audio_diffusion_pytorch.models.original_checkpoint import (
        codec_state,
        is_original,
        load_original,
    )
    from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

    if args.codec is not None:
        raise InputError(
            "--codec requires --to-original; use --codec-output to write the codec of the "
            "checkpoint"
        )
    for path in (args.output, args.codec_output):
        if path is not None and path.suffix != ".safetensors":
            raise InputError(f"{path} must end in .safetensors")
    content = {} if args.source.suffix == ".safetensors" else read_checkpoint(args.source)
    if not is_original(content):
        raise InputError(
            f"{args.source} is not a checkpoint of the original system; one of our models needs "
            "--to-original"
        )
    fields = {
        key: getattr(args, key)
        for key in ("name", "sigma_min", "sigma_max", "rho", "handoff_sigma")
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    model = load_original(
        args.source,
        args.mean,
        args.std,
        args.weights,
        parse_unet(args.unet),
        content=content,
        **fields,
    )
    codec = codec_state(content)
    if args.codec_output is not None and not codec:
        raise InputError(f"{args.source} does not contain a codec: remove --codec-output")
    model.save(args.output, {"converted_from": args.source.name, "weights": args.weights})
    before = args.source.stat().st_size
    after = args.output.stat().st_size
    parameters = sum(p.numel() for p in model.denoiser.parameters())
    print(
        f"wrote {args.output}: {parameters / 1e6:.1f} M parameters, {size(after)}, "
        f"{before / after:.1f} times smaller than the checkpoint's {size(before)}"
    )
    if args.codec_output is not None:
        from safetensors.torch import save_file

        tensors = to_transformers(to_package(codec, str(args.source)))
        with atomic_write(args.codec_output) as temporary:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        print(f"wrote {args.codec_output}: {size(args.codec_output.stat().st_size)}")


def to_original(args: argparse.Namespace) -> None:
    """Convert a model to a checkpoint of the original's layout, and two files of statistics."""
    import torch

    from audio_diffusion_pytorch.codecs.encodec_weights import load_weights, to_transformers
    from audio_diffusion_pytorch.models.loading import load_instrument
    from audio_diffusion_pytorch.models.original_checkpoint import save_original

    if args.output.suffix != ".ckpt":
        raise InputError(f"{args.output} must end in .ckpt")
    model = load_instrument(args.source)
    codec = None if args.codec is None else to_transformers(load_weights(args.codec)[0])
    save_original(model, args.output, codec)
    print(f"wrote {args.output}: {size(args.output.stat().st_size)}, float32")
    for kind, path, value in (("mean", args.mean, model.mean), ("std", args.std, model.std)):
        path = path or args.output.with_name(f"{args.output.stem}_{kind}.pt")
        with atomic_write(path) as temporary:
            torch.save(value.clone(), temporary)
        print(f"wrote {path}")
    if codec is None:
        print(
            "without EnCodec's weights, the original's Lightning module loads it with strict=False "
            "only; include them with --codec"
        )


def parse_unet(pairs: list[str]) -> dict:
    """Parse ["attention_heads=2", "factors=[4,2]"] to {"attention_heads": 2, "factors": [4, 2]}."""
    arguments = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            arguments[key] = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(
                f"--unet {pair}: expected KEY=VALUE; VALUE is a number, true, false or a list such "
                "as [1,2]"
            ) from error
    return arguments


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        written = [path for path in (args.output, args.codec_output) if path is not None]
        for path in written:
            if path.exists() and args.source.exists() and path.samefile(args.source):
                raise InputError(f"{path} is the source itself: choose another output")
        (to_original if args.to_original else to_ours)(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
