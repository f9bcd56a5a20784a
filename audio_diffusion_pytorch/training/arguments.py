"""Arguments of `train.py`: paths, sweeps, and checks before torch is imported."""

import os
import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.command_line import typed
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.checks import check_numbers

PATH_KEYS = (
    "dataset_path",
    "ckpt",
    "init_from",
    "mean_path",
    "std_path",
    "logs_dir",
    "ckpt_dir",
    "exp_tag",
    "codec.repository",
    "codec.weights",
    "datamodule.cache_dir",
    "datamodule.dataset.pitch_shift.cache",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "callbacks.preview.clip",
    "callbacks.preview.other",
)


def name_swept_experiment(argv: Sequence[str]) -> None:
    """Export the first experiment of `-m exp=A,B` to configs/config.yaml.

    Hydra composes the common part of a sweep without the swept experiment, and would reject the
    settings of the experiment.

    Args:
        argv: arguments as typed.
    """
    if not {"-m", "--multirun"} & set(argv):
        return
    for argument in argv:
        if found := re.fullmatch(r"exp=([\w-]+)(,[\w-]+)+", argument):
            os.environ["SWEPT_EXP"] = found[1]


def check_experiment(cfg: DictConfig) -> None:
    """Check that a configuration contains an experiment.

    Args:
        cfg: configuration as composed by Hydra.

    Raises:
        InputError: the experiment is missing.
    """
    if "model" not in cfg:
        raise InputError(
            "no experiment given: add exp=NAME, for example exp=flute_small; "
            f"{typed('train')} --help lists them"
        )


def check_arguments(cfg: DictConfig) -> None:
    """Check data, numbers and checkpoints of an adapted configuration.

    Args:
        cfg: adapted configuration.

    Raises:
        InputError: the data set is missing, or a setting is wrong.
    """
    if OmegaConf.is_missing(cfg, "dataset_path"):
        raise InputError("no data given: add dataset_path=FOLDER, a folder of recordings")
    check_numbers(cfg)
    if cfg.ckpt not in (None, "auto") and cfg.init_from is not None:
        raise InputError(
            f"ckpt={cfg.ckpt} resumes a run and init_from={cfg.init_from} starts a new one: "
            "set only one"
        )
