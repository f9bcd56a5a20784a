"""Build AdamW with a one-cycle learning rate."""

from collections.abc import Iterable

import torch
from torch import nn

from audio_diffusion_pytorch.errors import InputError


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    total_steps: int | None = None,
    warmup: float = 0.1,
) -> dict:
    """Return AdamW and its schedule in the form of a LightningModule's `configure_optimizers`.

    Args:
        parameters: parameters in training.
        lr: learning rate, the peak of the cycle.
        betas: decays of the first and second moment.
        eps: term added to the denominator.
        weight_decay: weight decay.
        total_steps: steps of a one-cycle learning rate; None: constant.
        warmup: share of the cycle that rises.

    Raises:
        InputError: the cycle is too short.
    """
    optimizer = torch.optim.AdamW(parameters, lr, betas, eps, weight_decay, fused=True)
    # Lightning refuses to clip gradients if the optimiser unscales them; with this flag the scaler
    # unscales them.
    optimizer._step_supports_amp_scaling = False
    if total_steps is None:
        return {"optimizer": optimizer}
    if total_steps < 4:
        raise InputError(
            f"total_steps={total_steps}: a one-cycle learning rate needs 4 steps or more"
        )
    warmup = max(warmup, 2 / total_steps)  # a shorter rise would divide by zero
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps, pct_start=warmup, cycle_momentum=False
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def follow_configured_length(checkpoint: dict) -> None:
    """Remove the cycle's length from a checkpoint: a resumed run uses the configured one."""
    for state in checkpoint.get("lr_schedulers", []):
        for key in ("total_steps", "_schedule_phases"):
            state.pop(key, None)
