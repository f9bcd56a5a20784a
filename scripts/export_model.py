"""Export a model from a run folder or checkpoint for transfer: averaged weights in half precision.

python scripts/export_model.py logs/flute_small flute.safetensors --handoff-from violin=3
"""

import argparse
from dataclasses import replace
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="run folder, .ckpt file, .safetensors file or shipped name")
    parser.add_argument("output", type=Path, help="file to write (.safetensors)")
    parser.add_argument("--name", help="name of the instrument (default: as in the model)")
    parser.add_argument(
        "--handoff-sigma", type=float, help="default noise level of the hand-off to this model"
    )
    parser.add_argument(
        "--handoff-from",
        nargs="+",
        default=[],
        metavar="SOURCE=SIGMA",
        help="noise level by source",
    )
    parser.add_argument(
        "--label-guidance",
        type=float,
        metavar="WEIGHT",
        help="weight of the label in the guidance of bridges to this model; a model of one "
        "instrument needs all.safetensors in the folder of OUTPUT (default: as in the model)",
    )
    parser.add_argument(
        "--plain-from", nargs="+", metavar="SOURCE", help="sources with a plain hand-off"
    )
    parser.add_argument(
        "--noise-from",
        type=Path,
        metavar="FOLDER",
        help="recordings to measure noise statistics from",
    )
    parser.add_argument(
        "--fit-schedules",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="fit solvers to the written model, for quality=instant, draft and normal, on "
        "recordings with names of instruments in FOLDER and on the shipped clips",
    )
    parser.add_argument(
        "--pitch-range", nargs=2, type=int, metavar=("LOW", "HIGH"), help="MIDI pitches in training"
    )
    args = parser.parse_args()

    from audio_diffusion_pytorch.errors import InputError
    from audio_diffusion_pytorch.models.loading import load_instrument
    from audio_diffusion_pytorch.utils.settings import check_number

    try:
        if args.output.suffix != ".safetensors":
            raise InputError(f"cannot write {args.output}: the name must end in .safetensors")
        if args.label_guidance is not None:
            check_number("--label-guidance", args.label_guidance, least=0)
        model = load_instrument(args.model, whole=True)
        changes = {
            "name": args.name,
            "handoff_sigma": args.handoff_sigma,
            "pitch_range": args.pitch_range,
            "label_guidance": args.label_guidance,
        }
        changes["handoff_sigmas"] = by_source(args.handoff_from) or None
        changes["handoffs"] = dict.fromkeys(args.plain_from, "plain") if args.plain_from else None
        changes["noise"] = None if args.noise_from is None else noise_of(model, args.noise_from)
        model.spec = replace(
            model.spec, **{key: value for key, value in changes.items() if value is not None}
        )
        model.save(args.output)
        print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.1f} MB): {model.spec.name}")
        if args.fit_schedules is not None:
            fit_schedules(args.output, args.fit_schedules)
    except InputError as error:
        parser.exit(2, f"export_model: error: {error}\n")


def fit_schedules(model: Path, folders: list[Path]) -> None:
    """Fit solvers to an exported model, with the defaults of `fit_schedule.py`."""
    from audio_diffusion_pytorch.commands.fit_schedule import fit_models, make_parser

    fit_models(make_parser().parse_args([str(model), "--data", *map(str, folders)]))


def noise_of(model, folder: Path) -> dict:
    """Measure noise statistics of up to 32 recordings of each instrument, the first 8 s of each."""
    from audio_diffusion_pytorch import audio
    from audio_diffusion_pytorch.bridge.noise_statistics import noise_of_instruments
    from audio_diffusion_pytorch.codecs.loading import load_codec
    from audio_diffusion_pytorch.data.files import find_files
    from audio_diffusion_pytorch.models.labels import Labels

    codec = model.codec or load_codec(model.spec.codec)
    wavs = {}
    for name in Labels(model.spec.labels).instruments or [model.spec.name]:
        wavs[name] = []
        files = find_files(folder, [name])
        for file in files[:: -(-len(files) // 32)]:
            info = audio.info(file)
            wav, rate = audio.read(file, 0, min(info.frames, 8 * info.sample_rate))
            wavs[name].append(audio.resample(audio.to_mono(wav), rate, codec.sample_rate))
    return noise_of_instruments(model, wavs, codec.sample_rate, codec)


def by_source(arguments: list[str]) -> dict[str, float]:
    """Parse ["flute=3", ...] to {"flute": 3.0, ...}."""
    from audio_diffusion_pytorch.errors import InputError

    sigmas = {}
    for argument in arguments:
        source, _, sigma = argument.partition("=")
        try:
            sigmas[source] = float(sigma)
        except ValueError as error:
            raise InputError(
                f"--handoff-from {argument}: expected SOURCE=SIGMA, for example flute=3"
            ) from error
    return sigmas


if __name__ == "__main__":
    main()
