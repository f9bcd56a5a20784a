"""Optimal-transport coupling of noise to data: each chunk of latents meets Gaussian chunks that lie near it."""

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError


class ChunkCoupling:
    """Rearranges the noise of one clip chunk by chunk, each drawn from its row of an entropic transport plan.

    The cost is the mean squared distance of two chunks. Time and memory are bounded by coupling within groups of at
    most `group` chunks, which go round the clip in turn: 128 x 1280 latents in 4 x 4 chunks are 10,240 chunks, whose
    whole plan would take 420 MB; in 20 groups of 512 it takes 21 MB and a twentieth of the time. Groups are equal, so
    their number is the smallest divisor of the number of chunks that keeps the bound.

    Args:
        channels, frames: size of a chunk.
        regularisation: weight of the plan's entropy, in units of the cost.
        iterations: Sinkhorn iterations.
        group: most chunks that are coupled with each other.

    Raises:
        InputError: a size that is no positive number.
    """

    def __init__(
        self,
        channels: int = 4,
        frames: int = 4,
        regularisation: float = 1e-3,
        iterations: int = 100,
        group: int = 512,
    ):
        for name, value in {
            "channels": channels,
            "frames": frames,
            "iterations": iterations,
            "group": group,
        }.items():
            if not isinstance(value, int) or value < 1:
                raise InputError(
                    f"model.coupling.{name} must be a whole number above 0, not {value!r}"
                )
        if not regularisation > 0:
            raise InputError(
                f"model.coupling.regularisation must be above 0, not {regularisation!r}"
            )
        self.channels, self.frames, self.group = channels, frames, group
        self.regularisation, self.iterations = regularisation, iterations

    @torch.no_grad()
    def __call__(
        self, z: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents z [D, L] and their standard normal noise [D, L] -> noise [D, L], of the type of `noise`.

        Raises:
            InputError: D or L is no multiple of the chunk's size.
        """
        if z.shape[0] % self.channels or z.shape[1] % self.frames:
            raise InputError(
                f"model.coupling.channels={self.channels} and model.coupling.frames={self.frames} must divide the "
                f"latents' {z.shape[0]} channels and {z.shape[1]} frames"
            )
        with torch.autocast(z.device.type, enabled=False):
            chunks, free = self._cut(z.float()), self._cut(noise.float())
            plan = transport_plan(
                squared_distance(chunks, free), self.regularisation, self.iterations
            )
            # Dividing by exponential variables makes the largest entry a draw from each row.
            drawn = (plan / torch.empty_like(plan).exponential_(generator=generator)).argmax(
                -1, keepdim=True
            )
            coupled = free.gather(1, drawn.expand_as(free))
        return self._join(coupled, noise.shape).to(noise.dtype)

    def _cut(self, z: Tensor) -> Tensor:
        """[D, L] -> [groups, chunks of a group, values of a chunk]; chunk i is in group i mod groups."""
        bands = z.unflatten(0, (-1, self.channels)).unflatten(
            2, (-1, self.frames)
        )  # [D / c, c, L / f, f]
        chunks = bands.permute(2, 0, 1, 3).flatten(2).flatten(0, 1)
        return chunks.unflatten(0, (-1, self._groups(len(chunks)))).transpose(0, 1).contiguous()

    def _join(self, chunks: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `_cut`."""
        rows, columns = shape[0] // self.channels, shape[1] // self.frames
        bands = chunks.transpose(0, 1).reshape(columns, rows, self.channels, self.frames)
        return bands.permute(1, 2, 0, 3).reshape(shape)

    def _groups(self, chunks: int) -> int:
        return next(
            count
            for count in range(1, chunks + 1)
            if chunks % count == 0 and chunks <= count * self.group
        )


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """x [..., N, V] and y [..., M, V] -> mean squared distance [..., N, M]."""
    # Not by matrix multiplication: its rounding, divided by the regularisation, would move the plan.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / x.shape[-1]


def transport_plan(cost: Tensor, regularisation: float, iterations: int) -> Tensor:
    """Entropic optimal transport between uniform marginals: Sinkhorn in the log domain (Cuturi 2013, algorithm 1).

    The regularisation falls geometrically from the mean cost over the first four fifths of the iterations. At 0.001 and
    100 iterations this matters: held constant, some columns are left with several times their share and the drawn noise
    is no longer normal.

    Args:
        cost: [..., N, M].

    Returns:
        [..., N, M], each row divided by its sum; the columns sum to N / M up to convergence.
    """
    start = max(float(cost.mean()), regularisation) if iterations > 1 else regularisation
    g = cost.new_zeros(*cost.shape[:-2], 1, cost.shape[-1])
    for i in range(iterations):
        progress = min(1.0, i / (0.8 * (iterations - 1))) if iterations > 1 else 1.0
        eps = start * (regularisation / start) ** progress
        f = -eps * _logsumexp((g - cost).div_(eps), -1)
        g = -eps * _logsumexp((f - cost).div_(eps), -2)
    return ((g - cost) / regularisation).softmax(dim=-1)


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """log sum exp over `dim`, kept; uses up x. Terms below e^-80 of the largest count as that."""
    top = x.amax(dim, keepdim=True)
    # Without the limit most exponentials are subnormal numbers, which a CPU takes twenty times as long for.
    return x.sub_(top).clamp_min_(-80).exp_().sum(dim, keepdim=True).log_().add_(top)
