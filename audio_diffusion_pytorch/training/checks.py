"""Check the settings of a training, before torch is imported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_number, check_switch

if TYPE_CHECKING:
    from audio_diffusion_pytorch.codecs.base import Codec

_SWITCHES = ("dry_run", "train", "compile", "print_config", "ignore_warnings")
_NUMBERS: dict[str, dict[str, Any]] = {
    "seed": {"whole": True, "least": 0, "most": 2**32 - 1},
    "length": {"whole": True, "least": 1},
    "log_every_n_steps": {"whole": True, "least": 1},
    "ckpt_every_n_steps": {"whole": True, "least": 1},
    "model.lr": {"least": 0},
    "model.lr_weight_decay": {"least": 0},
    "model.ema_beta": {"least": 0, "most": 1},
}


def check_switches(cfg: DictConfig) -> None:
    """Check that every switch of a training configuration is true or false.

    Raises:
        InputError: a switch has another value.
    """
    for key in _SWITCHES:
        check_switch(key, cfg[key])


def check_numbers(cfg: DictConfig) -> None:
    """Check the numbers of a training configuration; null and absent numbers pass.

    Raises:
        InputError: a number is out of its limits.
    """
    for key, limits in _NUMBERS.items():
        value = OmegaConf.select(cfg, key)
        if value is not None:
            check_number(key, value, **limits)


def check_length(steps: float, total_steps: int | None) -> None:
    """Check that training ends within its one-cycle learning rate.

    Args:
        steps: steps of the whole run; infinity: no limit.
        total_steps: length of the cycle; None: a constant learning rate.

    Raises:
        InputError: training exceeds the cycle, or `total_steps` is not a whole number.
    """
    if total_steps is None:
        return
    check_number("total_steps", total_steps, whole=True)
    if steps <= total_steps:
        return
    planned = "has no end" if steps == math.inf else f"takes {steps} steps"
    longer = "" if steps == math.inf else f"set total_steps={steps}, too, or "
    raise InputError(
        f"training {planned}, but total_steps={total_steps} is the length of the learning rate's "
        f"cycle: {longer}end it with trainer.max_steps={total_steps}"
    )


def check_rate(datamodule: Any, codec: Codec) -> None:
    """Check that crops have the sample rate of the codec.

    Raises:
        InputError: the rates differ.
    """
    rate = getattr(datamodule.train_set, "sample_rate", codec.sample_rate)
    if rate != codec.sample_rate:
        raise InputError(
            f"sampling_rate={rate}: the codec works at {codec.sample_rate} Hz, and resamples all "
            f"recordings; omit sampling_rate, or set sampling_rate={codec.sample_rate}"
        )
