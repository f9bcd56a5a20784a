"""Train an instrument's latent diffusion model, the small codec, or the instrument classifier.

python train.py exp=flute_latent dataset_path=FOLDER
"""

import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audio_diffusion_pytorch.cli import plain_warnings, run_command, start
from audio_diffusion_pytorch.command_line import fold_experiments
from audio_diffusion_pytorch.compat.config import adapt, arithmetic
from audio_diffusion_pytorch.models.labels import Labels
from audio_diffusion_pytorch.paths import CONFIGS, INSTALLED, ROOT
from audio_diffusion_pytorch.training.arguments import (
    PATH_KEYS,
    check_arguments,
    check_experiment,
    name_swept_experiment,
)
from audio_diffusion_pytorch.training.checks import check_switches
from audio_diffusion_pytorch.training.run_folder import hold_run_folder, remove_empty_folder
from audio_diffusion_pytorch.utils.registry import import_plugins

os.environ["PROJECT_ROOT"] = str(ROOT)  # configs/config.yaml searches it for exp/
if INSTALLED:
    os.environ.setdefault("DIR_LOGS", str(Path.cwd() / "logs"))
USAGE_ERRORS = (HydraException, OmegaConfBaseException, OSError)
OmegaConf.register_new_resolver("eval", arithmetic, replace=True)
OmegaConf.register_new_resolver("num_labels", lambda names: Labels(names or ()).count, replace=True)


def train(cfg: DictConfig) -> dict[str, float]:
    """Build, prepare, fit and export a run.

    Args:
        cfg: configuration as composed by Hydra.

    Returns:
        The latest values of all logged figures; empty if nothing was trained.

    Raises:
        InputError: the configuration or the data are unusable.
    """
    cfg = adapt_config(cfg)
    if cfg.save is None:
        check_arguments(cfg)
    # Imports of torch follow the checks of the configuration, so that errors appear at once.
    from audio_diffusion_pytorch.training.run import build_run
    from audio_diffusion_pytorch.training.save_part import save_part

    if cfg.save is not None:
        print(f"saved: {save_part(cfg)}")
        return {}
    with hold_run_folder(cfg) as ckpt:
        cfg.ckpt = ckpt
        run = build_run(cfg)
        if cfg.dry_run:
            print(run.report())
            return {}
        run.prepare()
        if not cfg.train:
            print("train=false: the run is built and prepared, not trained")
            return {}
        return run.fit()


def adapt_config(cfg: DictConfig) -> DictConfig:
    """Import plugins, translate the settings of the original system, and print the configuration.

    Args:
        cfg: configuration as composed by Hydra.

    Raises:
        InputError: the experiment is missing, or a setting is wrong.
    """
    check_experiment(cfg)
    check_switches(cfg)
    if cfg.ignore_warnings:
        warnings.simplefilter("ignore")
    import_plugins(cfg.plugins)
    cfg = adapt(cfg)
    if cfg.get("instruments") is None and OmegaConf.is_interpolation(cfg, "instrument_name"):
        cfg.instrument_name = "instrument"  # all files, of any instrument
    if cfg.print_config:
        print(OmegaConf.to_yaml(cfg, resolve=True))
    return cfg


@hydra.main(config_path=str(CONFIGS), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Run one configuration, and return its validation loss for sweeps."""
    metrics: dict[str, float] = {}
    plain_warnings()  # the processes of a sweep's launcher start here
    # The default of exp_tag contains the time, which every access would evaluate again.
    cfg.run_dir = HydraConfig.get().runtime.output_dir
    cfg.exp_tag = Path(cfg.run_dir).name
    try:
        run_command(lambda: metrics.update(train(cfg)), USAGE_ERRORS)
    finally:
        remove_empty_folder(Path(cfg.run_dir))
    return metrics.get("valid_loss")


def cli() -> None:
    """Run the command line as typed."""
    sys.argv[1:] = fold_experiments(sys.argv[1:])
    name_swept_experiment(sys.argv[1:])
    start(main, PATH_KEYS, USAGE_ERRORS)


if __name__ == "__main__":  # `python -m`, as the installed command runs it
    from audio_diffusion_pytorch.commands.train import cli

    cli()
