"""Transfer recordings from one instrument to another.

python transfer.py source=flute target=violin input=FILE output=FILE
python transfer.py source=flute target=violin input=FOLDER output=FOLDER
"""

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import run_command, start
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.paths import CONFIGS
from audio_diffusion_pytorch.transfer.arguments import check_arguments, check_plot
from audio_diffusion_pytorch.utils.registry import import_plugins

USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
PATH_KEYS = ("source", "target", "input", "output", "plot", "codec.repository", "codec.weights")


def transfer(cfg: DictConfig) -> None:
    """Resolve the jobs, skip finished ones, transfer the rest, and report.

    Args:
        cfg: configuration, as in `configs/transfer.yaml`.

    Raises:
        InputError: an argument is wrong, or some files failed.
        Interrupted: Ctrl-C or SIGTERM; finished files stay.
    """
    values = OmegaConf.to_container(cfg)
    check_arguments(values)
    plugins = import_plugins(cfg.plugins)
    from audio_diffusion_pytorch.transfer.progress import TransferProgress
    from audio_diffusion_pytorch.transfer.resolve import resolve_jobs
    from audio_diffusion_pytorch.transfer.run import TransferRun

    plan = resolve_jobs(values["input"], cfg.output, values["sigma"], cfg.format)
    check_plot(cfg.plot, plan.jobs)
    run = TransferRun.from_arguments(values, plugins)
    bridge = run.load()
    if notice := run.notice(bridge):
        print(notice)
    progress = TransferProgress(run, bridge, plan)
    for notice in progress.notices:
        print(notice)
    if cfg.dry_run:
        print(progress.dry_run())
        progress.raise_failures()
        return
    progress.run_jobs(Engine.from_arguments(values))
    if len(plan.jobs) > 1 or not progress.failures:
        print(progress.summary())
    progress.raise_failures()
    if cfg.plot is not None:
        from audio_diffusion_pytorch.transfer.report import plot

        plot(plan.jobs[0], cfg.plot)
        print(f"wrote {cfg.plot}")


@hydra.main(config_path=str(CONFIGS), config_name="transfer", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the command with a configuration from Hydra."""
    run_command(lambda: transfer(cfg), USAGE_ERRORS)


def cli() -> None:
    """Run the command line as typed."""
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.transfer import cli

    cli()
