"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import Tensor, nn


def ema_decay(step: int, beta: float = 0.995, power: float = 0.7, start: int = 100) -> float:
    """Decay at optimiser step `step` (counted from 1): 0 until `start`, then min(beta, 1 - (1 + n)^-power).

    n = step - start - 1, so that the average follows the weights closely at first. Source: the warm-up of the
    original's EMA, there applied every tenth step, here after every one.
    """
    n = step - start - 1
    return 0.0 if n <= 0 else min(beta, 1.0 - (1.0 + n) ** -power)


class EMA(nn.Module):
    """Holds `model`, a copy of `online` whose weights follow those of `online`.

    `update(online)` is called once after every optimiser step; `step` counts the calls.
    """

    step: Tensor

    def __init__(self, online: nn.Module, beta: float = 0.995, power: float = 0.7):
        super().__init__()
        self.beta, self.power = beta, power
        self.model = copy.deepcopy(online).eval().requires_grad_(False)
        self.register_buffer("step", torch.tensor(0))

    @property
    def decay(self) -> float:
        return ema_decay(int(self.step), self.beta, self.power)

    @torch.no_grad()
    def update(self, online: nn.Module) -> None:
        self.step += 1
        decay = self.decay
        torch._foreach_lerp_(list(self.model.parameters()), list(online.parameters()), 1.0 - decay)
        for own, other in zip(self.model.buffers(), online.buffers(), strict=True):
            own.copy_(other)

    def train(self, mode: bool = True) -> "EMA":
        return super().train(False)  # the average is only ever evaluated
