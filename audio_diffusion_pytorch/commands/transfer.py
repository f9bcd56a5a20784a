"""Bridge recordings from one instrument to another.

python transfer.py source=flute target=violin input=FILE output=FILE
python transfer.py source=flute target=violin input=FOLDER output=FOLDER
"""

import math
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import ending_on_terminate, run_command, start
from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.instruments import MAX_OCTAVES
from audio_diffusion_pytorch.paths import CONFIGS
from audio_diffusion_pytorch.utils.registry import import_plugins

if TYPE_CHECKING:
    from audio_diffusion_pytorch.transfer.jobs import Job

USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("source", "target", "input", "output", "plot", "codec.repository", "codec.weights")
PICTURES = (".png", ".pdf", ".svg")
TEXTS = ("source", "target", "input", "output")
SWITCHES = ("overwrite", "report", "dry_run", "compile", "listen")
LISTS = ("input", "sigma", "codec", "plugins")  # may be more than one value
BRIDGE_KEYS = ("quality", "num_steps", "solver", "handoff", "batch_size", "precision", "compile")


def transfer(cfg: DictConfig) -> None:
    """Plan, leave out what is done, bridge the rest.

    Raises:
        InputError: something given cannot be used, or some of the files failed.
        Interrupted: Ctrl-C or SIGTERM; what is finished stays.
    """
    _check_arguments(cfg)
    plugins = import_plugins(cfg.plugins)
    from audio_diffusion_pytorch.models.instrument import pitch_range
    from audio_diffusion_pytorch.transfer.progress import TransferProgress
    from audio_diffusion_pytorch.transfer.resolve import resolve_jobs
    from audio_diffusion_pytorch.transfer.workers import AUTO, TransferRun

    values = OmegaConf.to_container(cfg)
    plan = resolve_jobs(values["input"], cfg.output, values["sigma"], cfg.format)
    _check_plot(cfg.plot, plan.jobs)
    run = TransferRun(
        AUTO if cfg.source.lower() == AUTO else cfg.source,
        cfg.target,
        cfg.device,
        bridge={key: values[key] for key in BRIDGE_KEYS},
        codec={key: value for key, value in values["codec"].items() if value is not None},
        mid=cfg.channels == "mid",
        transpose=cfg.transpose,
        overwrite=cfg.overwrite,
        report=cfg.report,
        listen=cfg.listen,
        plugins=plugins,
    )
    bridge = run.load()
    if cfg.transpose == "auto" and pitch_range(bridge.target.spec) is None:
        print(f"the range of {bridge.target.spec.name} is not known: transpose=auto moves nothing")
    tally = TransferProgress(run, bridge, plan)
    if cfg.dry_run:
        print(tally.dry_run())
        tally.raise_failures()
        return
    try:
        with ending_on_terminate(), tally:
            if min(cfg.workers, len(tally.todo)) > 1:
                run.do_in_processes(cfg.workers, tally.todo, tally)
            else:
                run.do(bridge, tally.todo, tally)
    except (KeyboardInterrupt, Interrupted) as stop:
        raise Interrupted(getattr(stop, "signal", signal.SIGINT), tally.interrupted()) from None
    if len(plan.jobs) > 1 or not tally.failures:
        print(tally.summary())
    tally.raise_failures()
    if cfg.plot is not None:
        from audio_diffusion_pytorch.transfer.report import plot

        plot(plan.jobs[0], cfg.plot)
        print(f"wrote {cfg.plot}")


def _check_arguments(cfg: DictConfig) -> None:
    """What can be told before anything heavy is imported or computed."""
    missing = [f"{key}=..." for key in TEXTS if OmegaConf.is_missing(cfg, key)]
    if missing:
        raise InputError(f"missing: {' '.join(missing)}; see {typed('transfer')} --help")
    _check_kinds(cfg)
    if cfg.channels not in ("each", "mid"):
        raise InputError(f"channels={cfg.channels}: each or mid")
    whole = isinstance(cfg.transpose, int) and not isinstance(cfg.transpose, bool)
    if cfg.transpose != "auto" and not (whole and abs(cfg.transpose) <= MAX_OCTAVES):
        raise InputError(
            f"transpose={cfg.transpose}: whole octaves from -{MAX_OCTAVES} to {MAX_OCTAVES}, or auto"
        )
    sigmas = (
        (list(cfg.sigma) or [[]])
        if OmegaConf.is_list(cfg.sigma)
        else []
        if cfg.sigma is None
        else [cfg.sigma]
    )
    numbers = [("sigma", value, float) for value in sigmas]
    counts = ["batch_size", "workers", *(["num_steps"] if cfg.num_steps is not None else [])]
    for key, value, kind in [*numbers, *((key, cfg[key], int) for key in counts)]:
        if isinstance(value, bool) or not isinstance(value, int | kind) or not 0 < value < math.inf:
            raise InputError(
                f"{key}={value} must be a positive {'whole ' if kind is int else ''}number"
            )


def _check_kinds(cfg: DictConfig) -> None:
    """Lists, texts and switches where they belong: `no` is text, which would count as true."""
    if not OmegaConf.is_dict(cfg.codec):
        raise InputError(f"codec={cfg.codec}: give codec.weights or codec.repository")
    for key, value in cfg.items():
        if OmegaConf.is_config(value) and key not in LISTS:
            raise InputError(f"{key}={value} must be one value")
        if key in SWITCHES and not isinstance(value, bool):
            raise InputError(f"{key}={value}: true or false")
        for one in (value or [None]) if OmegaConf.is_list(value) else [value]:
            if key in TEXTS and not (isinstance(one, str) and one):
                raise InputError(f"{key}={value} names nothing; see {typed('transfer')} --help")


def _check_plot(plot: str | None, jobs: "list[Job]") -> None:
    if plot is None:
        return
    from audio_diffusion_pytorch.transfer.jobs import check_output

    if len(jobs) > 1:
        raise InputError("plot is for one file: use report=true, which draws each")
    if Path(plot).suffix.lower() not in PICTURES:
        raise InputError(f"plot={plot} must end in {', '.join(PICTURES)}")
    check_output(Path(plot), jobs[0].input, "plot")


@hydra.main(config_path=str(CONFIGS), config_name="transfer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    run_command(lambda: transfer(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.transfer import cli

    cli()
