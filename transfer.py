"""Bridge a recording from one instrument to another.

python transfer.py source=flute target=violin input=FILE output=FILE
"""

import os
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import run_command, start
from audio_diffusion_pytorch.errors import InputError

ROOT = Path(__file__).resolve().parent
USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("source", "target", "input", "output", "plot", "codec.repository", "codec.weights")


def transfer(cfg: DictConfig) -> None:
    """Read, bridge, write.

    Raises:
        InputError: something given cannot be used.
    """
    _check_arguments(cfg)
    from tqdm import tqdm

    from audio_diffusion_pytorch import audio
    from audio_diffusion_pytorch.bridge import Bridge
    from audio_diffusion_pytorch.instrument import load_instrument, shared_codec

    header = audio.info(cfg.input)
    device = _device(cfg.device)
    source, target = load_instrument(cfg.source), load_instrument(cfg.target)
    options = {key: value for key, value in cfg.codec.items() if value is not None}
    bridge = Bridge(
        source,
        target,
        cfg.sigma,
        cfg.num_steps,
        cfg.solver,
        quality=cfg.quality,
        batch_size=cfg.batch_size,
        codec=shared_codec(source, target, **options),
        device=device,
    )
    plan = f"{source.spec.name} -> {target.spec.name}, sigma {bridge.sigma:g}, {header.seconds:.1f} s on {device}"
    windows = bridge.num_windows(header.frames, header.sample_rate) * header.channels
    if cfg.dry_run:
        print(f"{plan}: {windows} windows; would write {cfg.output}")
        return
    wav, sample_rate = audio.read(cfg.input)
    with tqdm(desc=plan, unit="window", total=windows) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        out = bridge(wav, sample_rate, progress)
    audio.write(cfg.output, out, sample_rate, header.subtype)
    print(f"wrote {cfg.output}")
    if cfg.plot is not None:
        from audio_diffusion_pytorch.plots import plot_spectrograms

        clips = {f"input: {source.spec.name}": (wav, sample_rate), f"output: {target.spec.name}": (out, sample_rate)}
        plot_spectrograms(clips, cfg.plot)
        print(f"wrote {cfg.plot}")


def _device(name: str):
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=str(name)).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name} cannot be used ({reason}): use cpu, cuda, cuda:1 ... or auto") from error


def _check_arguments(cfg: DictConfig) -> None:
    """What can be told before anything heavy is imported or computed."""
    missing = [f"{key}=..." for key in ("source", "target", "input", "output") if OmegaConf.is_missing(cfg, key)]
    if missing:
        raise InputError(f"missing: {' '.join(missing)}; see python transfer.py --help")
    if Path(cfg.input).is_dir():
        raise InputError(f"input={cfg.input} is a folder: give one audio file")
    if not Path(cfg.input).is_file():
        raise InputError(f"no such audio file: {cfg.input}")
    for key, endings in (("output", (".wav", ".flac", ".ogg")), ("plot", (".png", ".pdf", ".svg"))):
        if cfg[key] is None:
            continue
        path = Path(cfg[key])
        if path.suffix.lower() not in endings:
            raise InputError(f"{key}={path} must end in {', '.join(endings)}")
        if path.exists() and os.path.samefile(path, cfg.input):
            raise InputError(f"{key} and input are the same file, {path}: choose another {key}")
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; give a file name")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise InputError(f"cannot write {path}: {folder} is no folder that can be written to; choose another {key}")
    for key, kind in (("sigma", float), ("num_steps", int), ("batch_size", int)):
        value = cfg[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | kind) or not value > 0):
            raise InputError(f"{key}={value} must be a positive {'whole ' if kind is int else ''}number")


@hydra.main(config_path=str(ROOT / "configs"), config_name="transfer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    run_command(lambda: transfer(cfg), USAGE_ERRORS)


if __name__ == "__main__":
    start(main, PATH_KEYS, USAGE_ERRORS)
