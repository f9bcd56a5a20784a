"""EDM preconditioning, loss, and distributions of training noise levels (Karras et al. 2022)."""

from typing import Any

import torch
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Denoiser D(x; sigma) = c_skip x + c_out F(c_in x, c_noise), with the raw network F.

    Source: Karras et al. 2022, eq. 7 and table 1.

    Args:
        net: F(x [B, C, T], c_noise [B]) -> [B, C, T].
        sigma_data: standard deviation of the clean latents.

    Raises:
        ValueError: `sigma_data` is not positive.
    """

    def __init__(self, net: nn.Module, sigma_data: float = 1.0):
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.net: Any = net  # a network of the user has attributes of its own
        self.sigma_data = sigma_data

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        label: Tensor | None = None,
        melody: Tensor | None = None,
        end: Tensor | float | None = None,
        melody_features: Tensor | None = None,
    ) -> Tensor:
        """Estimate the clean latents.

        Args:
            x: noisy latents [B, C, T].
            sigma: noise level, [B] or one number; positive.
            label: label [B], for a network with labels.
            melody: melody [B, M, T], for a network with a melody input; None: without melody.
            end: last noise level of the solver, [B] or one number, for a network with `end_level`.
            melody_features: the melody as `melody_conditions` returns it.

        Returns:
            Denoised latents [B, C, T] with the dtype of x.
        """
        sigma = expand_sigma(sigma, x)
        variance = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / variance
        c_out = sigma * self.sigma_data * variance.rsqrt()
        c_in = variance.rsqrt()
        c_noise = sigma.flatten().log() / 4
        c_end = None if end is None else (expand_sigma(end, x).flatten().log() / 4).to(x.dtype)
        # A network of the user may have none of these inputs.
        given = {
            "label": label,
            "melody": melody,
            "c_end": c_end,
            "melody_features": melody_features,
        }
        conditions = {name: value for name, value in given.items() if value is not None}
        output = self.net((c_in * x).to(x.dtype), c_noise.to(x.dtype), **conditions)
        return (c_skip * x + c_out * output).to(x.dtype)

    def melody_conditions(self, melody: Tensor) -> dict[str, Tensor]:
        """Return a melody [B, M, T] as keywords of `forward`, embedded once for many calls."""
        if not hasattr(self.net, "embed_melody"):  # a network of the user
            return {"melody": melody}
        return {"melody_features": self.net.embed_melody(melody)}

    def loss(
        self,
        x: Tensor,
        noise: Tensor,
        sigma: Tensor | float,
        weighted: bool = True,
        label: Tensor | None = None,
        melody: Tensor | None = None,
    ) -> Tensor:
        """Compute the squared error of each sample, a mean over channels and time.

        Source: Karras et al. 2022, eq. 2 and table 1.

        Args:
            x: clean latents [B, C, T].
            noise: standard normal noise [B, C, T].
            sigma: noise level, [B] or one number; positive.
            weighted: multiply by 1 / c_out^2 = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, so
                that the network F regresses on values of unit variance.
            label: label [B], for a network with labels.
            melody: melody [B, M, T], for a network with a melody input; None: without melody.

        Returns:
            Loss [B].
        """
        sigma = expand_sigma(sigma, x)
        denoised = self(x + sigma * noise, sigma.flatten(), label, melody)
        loss = (denoised - x).square().mean(dim=(1, 2))
        if weighted:
            weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
            loss = loss * weight.flatten()
        return loss


def expand_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Expand a noise level to [B, 1, 1], in single precision or better, on the device of x.

    Args:
        sigma: noise level, [B] or one number.
        x: latents [B, C, T].

    Raises:
        ValueError: a number is not positive, or a tensor is neither [B] nor a single value. (Values
            of a tensor are not checked: the check would synchronise with the device.)
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not isinstance(sigma, Tensor):
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        return torch.full((x.shape[0], 1, 1), float(sigma), dtype=dtype, device=x.device)
    if sigma.numel() not in (1, x.shape[0]):
        raise ValueError(f"sigma must be [{x.shape[0]}] or a single value, got {list(sigma.shape)}")
    return sigma.to(x.device, dtype).reshape(-1, 1, 1).expand(x.shape[0], 1, 1)


class SigmaDistribution:
    """Base class of distributions of noise levels, defined by their inverse CDF.

    Callers that key their randomness pass their own uniform numbers to `icdf`.
    """

    def icdf(self, u: Tensor) -> Tensor:
        """Map uniform numbers u in (0, 1), of any shape, to noise levels of the same shape."""
        raise NotImplementedError

    def __call__(
        self,
        num_samples: int,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw [num_samples] noise levels."""
        return self.icdf(torch.rand(num_samples, device=device, generator=generator))


class KDistribution(SigmaDistribution):
    """Uniform sigma^(1/rho): the density of the sampling steps (Karras et al. 2022, eq. 5).

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        rho: spacing.

    Raises:
        ValueError: unless 0 < sigma_min <= sigma_max and rho > 0.
    """

    def __init__(self, sigma_min: float, sigma_max: float, rho: float = 7.0):
        if not (0 < sigma_min <= sigma_max and rho > 0):
            raise ValueError(
                "need 0 < sigma_min <= sigma_max and rho > 0, got "
                f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}"
            )
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.rho = rho

    def icdf(self, u: Tensor) -> Tensor:
        """Map u to noise levels, from sigma_max at u = 0 down to sigma_min at u = 1 (eq. 5)."""
        start = self.sigma_max ** (1 / self.rho)
        end = self.sigma_min ** (1 / self.rho)
        return (start + u * (end - start)) ** self.rho


class LogNormalDistribution(SigmaDistribution):
    """Normal ln(sigma) (Karras et al. 2022, table 1, "Training").

    Args:
        mean: mean of ln(sigma).
        std: standard deviation of ln(sigma).

    Raises:
        ValueError: std is negative.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2):
        if std < 0:
            raise ValueError(f"std must not be negative, got {std}")
        self.mean = mean
        self.std = std

    def icdf(self, u: Tensor) -> Tensor:
        """Map u to increasing noise levels; clamp u, because sigma is 0 at 0 and infinite at 1."""
        eps = torch.finfo(u.dtype).eps / 2
        return (self.mean + self.std * torch.special.ndtri(u.clamp(eps, 1 - eps))).exp()


class UniformDistribution(SigmaDistribution):
    """Uniform sigma.

    Args:
        vmin: lowest noise level.
        vmax: highest noise level.

    Raises:
        ValueError: unless 0 <= vmin <= vmax.
    """

    def __init__(self, vmin: float = 0.0, vmax: float = 1.0):
        if not 0 <= vmin <= vmax:
            raise ValueError(f"need 0 <= vmin <= vmax, got vmin={vmin}, vmax={vmax}")
        self.vmin = vmin
        self.vmax = vmax

    def icdf(self, u: Tensor) -> Tensor:
        """Map u to noise levels from vmin to vmax."""
        return self.vmin + u * (self.vmax - self.vmin)
