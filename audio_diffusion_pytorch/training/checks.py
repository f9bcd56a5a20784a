"""Checks of a training's settings."""

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError


def check_length(steps: float, total_steps: int | None) -> None:
    """Fail before training where it would go on after the end of its one-cycle learning rate.

    Args:
        steps: of the whole run; infinity where nothing ends it.
        total_steps: length of the cycle; None: there is none.

    Raises:
        InputError: it would, or `total_steps` is no whole number.
    """
    if not isinstance(total_steps, int | None):
        raise InputError(f"total_steps={total_steps} must be a whole number")
    if total_steps is None or steps <= total_steps:
        return
    planned = "has no end" if steps == math.inf else f"takes {steps} steps"
    longer = "" if steps == math.inf else f"set total_steps={steps}, too, or "
    raise InputError(
        f"training {planned}, but total_steps={total_steps} is the length of the learning rate's cycle: {longer}end it "
        f"with trainer.max_steps={total_steps}"
    )


_NUMBERS = {  # setting: whole, lowest, highest
    "seed": (True, 0, 2**32 - 1),
    "length": (True, 1, math.inf),
    "log_every_n_steps": (True, 1, math.inf),
    "ckpt_every_n_steps": (True, 1, math.inf),
    "model.lr": (False, 0, math.inf),
    "model.lr_weight_decay": (False, 0, math.inf),
    "model.ema_beta": (False, 0, 1),
}


def check_numbers(cfg: DictConfig) -> None:
    """Fail early where a number of the configuration makes no sense.

    Raises:
        InputError: the message says which, and what it may be.
    """
    for key, (whole, lowest, highest) in _NUMBERS.items():
        value = OmegaConf.select(cfg, key)
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if value is not None and not (fits and lowest <= value <= highest):
            limit = f"from {lowest}" if highest == math.inf else f"from {lowest} to {highest}"
            raise InputError(f"{key}={value}: give a {'whole ' if whole else ''}number {limit}")


def check_rate(datamodule: Any, codec: Codec) -> None:
    """Fail where crops have another sample rate than the codec.

    Raises:
        InputError: they have.
    """
    rate = getattr(datamodule.train_set, "sample_rate", codec.sample_rate)
    if rate != codec.sample_rate:
        raise InputError(
            f"sampling_rate={rate}: the codec works at {codec.sample_rate} Hz, to which recordings of any rate are "
            f"resampled; leave it out, or set sampling_rate={codec.sample_rate}"
        )
