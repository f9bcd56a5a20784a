"""Flow map of the probability-flow ODE: one network call maps latents from one level to another.

With theta = arctan(sigma / sigma_data) and y = cos(theta) x, the ODE of a denoiser with EDM
preconditioning reads dy/dtheta = -sigma_data F(y / sigma_data): the raw network is the velocity (Lu
and Song 2024, TrigFlow, arXiv 2410.11081, section 3). A flow map replaces it by the mean velocity
between two levels (Boffi et al. 2024, arXiv 2406.07507, eq. 2.1).
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.diffusion.denoiser import expand_sigma


class FlowMap(nn.Module):
    """Map x at level sigma to the solution of the ODE at level `end`, in either direction.

    y_end = y + (theta - theta_end) sigma_data F(y / sigma_data, sigma, end). A network that ignores
    `end` makes this a step of Euler's method in theta.

    Args:
        net: F(x [B, C, T], c_noise [B], c_end=[B]) -> [B, C, T], a network with `end_level`.
        sigma_data: standard deviation of the clean latents.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 1.0):
        super().__init__()
        self.net: Any = net
        self.sigma_data = sigma_data

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        end: Tensor | float,
        label: Tensor | None = None,
        melody: Tensor | None = None,
    ) -> Tensor:
        """Map latents between two noise levels.

        Args:
            x: latents at level `sigma` [B, C, T].
            sigma: noise level, [B] or one number; positive.
            end: noise level of the result, likewise.
            label: label [B], for a network with labels.
            melody: melody [B, M, T], for a network with a melody input; None: without melody.

        Returns:
            Latents at level `end` [B, C, T] with the dtype of x.
        """
        sigma, end = expand_sigma(sigma, x), expand_sigma(end, x)
        theta = torch.atan(sigma / self.sigma_data)
        theta_end = torch.atan(end / self.sigma_data)
        levels = [(level.flatten().log() / 4).to(x.dtype) for level in (sigma, end)]
        given = {"label": label, "melody": melody}
        conditions = {name: value for name, value in given.items() if value is not None}
        y = theta.cos() * x
        inputs = (y / self.sigma_data).to(x.dtype), levels[0]
        velocity = self.net(*inputs, c_end=levels[1], **conditions)
        y_end = y + (theta - theta_end) * self.sigma_data * velocity
        return (y_end / theta_end.cos()).to(x.dtype)


def follow(flow: Callable[..., Tensor], x: Tensor, sigmas: Tensor, **conditions: Tensor) -> Tensor:
    """Map x over noise levels, each to the next.

    Args:
        flow: a `FlowMap`.
        x: latents at the first level [B, C, T].
        sigmas: noise levels [N], rising or falling.
        **conditions: label or melody.

    Returns:
        Latents at the last level [B, C, T], after N - 1 network calls.
    """
    for sigma, end in pairwise(sigmas.tolist()):
        levels = (torch.full((len(x),), level, device=x.device) for level in (sigma, end))
        x = flow(x, *levels, **conditions)
    return x
