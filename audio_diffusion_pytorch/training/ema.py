"""Average the weights of a network exponentially."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def ema_decay(step: int, beta: float = 0.995, power: float = 0.7, start: int = 100) -> float:
    """Return the decay of the average.

    The decay is 0 until `start`, then min(beta, 1 - (1 + n)^-power) with n = step - start - 1, so
    that the average follows the weights closely at first. Source: the warm-up of the original's
    EMA, which updates at every tenth step; this average updates at every step.

    Args:
        step: optimiser step, counted from 1.
        beta: highest decay.
        power: exponent of the warm-up.
        start: last step without averaging.
    """
    n = step - start - 1
    return 0.0 if n <= 0 else min(beta, 1.0 - (1.0 + n) ** -power)


class EMA(nn.Module, Generic[Network]):
    """Average the weights of a network.

    Call `update(online)` once after each optimiser step.

    Args:
        online: network in training.
        beta: highest decay, see `ema_decay`.
        power: exponent of the warm-up, see `ema_decay`.

    Attributes:
        model: copy of the network with the averaged weights, in evaluation mode.
        step: number of updates.
    """

    model: Network
    step: Tensor

    def __init__(self, online: Network, beta: float = 0.995, power: float = 0.7):
        super().__init__()
        self.beta = beta
        self.power = power
        self.model = copy.deepcopy(online).eval().requires_grad_(False)
        self.register_buffer("step", torch.tensor(0))
        self._known = (0, -1, 0)  # identity and version of `step`, and its value

    @property
    def decay(self) -> float:
        """Decay of the latest update."""
        return ema_decay(self._count(), self.beta, self.power)

    @torch.no_grad()
    def update(self, online: Network) -> None:
        """Move the average towards the weights of `online`; copy its buffers."""
        count = self._count() + 1
        self.step += 1
        self._known = (id(self.step), self.step._version, count)
        decay = self.decay
        torch._foreach_lerp_(list(self.model.parameters()), list(online.parameters()), 1.0 - decay)
        for own, other in zip(self.model.buffers(), online.buffers(), strict=True):
            own.copy_(other)

    def _count(self) -> int:
        """Return the number of updates; read `step` only after a change from outside.

        Reading it at every step would wait for the GPU.
        """
        if self._known[:2] != (id(self.step), self.step._version):
            self._known = (id(self.step), self.step._version, int(self.step))
        return self._known[2]

    def train(self, mode: bool = True) -> "EMA[Network]":
        """Stay in evaluation mode: nothing trains the average."""
        return super().train(False)
