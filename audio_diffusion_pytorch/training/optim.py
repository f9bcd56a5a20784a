"""AdamW and the one-cycle learning rate, for both kinds of training."""

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
    """What a LightningModule's `configure_optimizers` returns: AdamW, with a one-cycle schedule over `total_steps`."""
    optimizer = torch.optim.AdamW(parameters, lr, betas, eps, weight_decay, fused=True)
    # Lightning refuses to clip where the optimiser undoes the gradients' scaling itself; the scaler does so instead.
    optimizer._step_supports_amp_scaling = False
    if total_steps is None:
        return {"optimizer": optimizer}
    if total_steps < 4:
        raise InputError(
            f"total_steps={total_steps}: a one-cycle learning rate needs 4 steps or more"
        )
    warmup = max(warmup, 2 / total_steps)  # of one step or less it would divide by zero
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps, pct_start=warmup, cycle_momentum=False
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def follow_configured_length(checkpoint: dict) -> None:
    """Let a resumed one-cycle schedule end at the configuration's `total_steps`, not at the checkpoint's."""
    for state in checkpoint.get("lr_schedulers", []):
        for key in ("total_steps", "_schedule_phases"):
            state.pop(key, None)
