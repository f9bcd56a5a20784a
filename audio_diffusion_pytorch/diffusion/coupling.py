"""Optimal-transport coupling: assign nearby chunks of Gaussian noise to chunks of latents."""

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError


class ChunkCoupling:
    """Rearrange the noise of one clip: draw each chunk by its row of an entropic transport plan.

    The cost is the mean squared distance of two chunks. To limit time and memory, only chunks of
    the same group are coupled; chunk i is in group i modulo the number of groups. For 128 x 1280
    latents in 4 x 4 chunks (10,240 chunks) a full plan has 420 MB; 20 groups of 512 have 21 MB and
    run in a twentieth of the time. All groups have the same size: their number is the smallest
    divisor of the number of chunks that respects the limit.

    Args:
        channels: channels of a chunk.
        frames: frames of a chunk.
        regularisation: weight of the plan's entropy, in units of the cost.
        iterations: Sinkhorn iterations.
        group: largest number of chunks in a group.

    Raises:
        InputError: an argument is not positive, or a size is not a whole number.
    """

    def __init__(
        self,
        channels: int = 4,
        frames: int = 4,
        regularisation: float = 1e-3,
        iterations: int = 100,
        group: int = 512,
    ):
        sizes = {"channels": channels, "frames": frames, "iterations": iterations, "group": group}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise InputError(
                    f"model.coupling.{name} must be a whole number above 0, not {value!r}"
                )
        if not regularisation > 0:
            raise InputError(
                f"model.coupling.regularisation must be above 0, not {regularisation!r}"
            )
        self.channels = channels
        self.frames = frames
        self.regularisation = regularisation
        self.iterations = iterations
        self.group = group

    @torch.no_grad()
    def __call__(
        self, z: Tensor, noise: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Rearrange noise to match latents.

        Args:
            z: latents [D, L].
            noise: standard normal noise [D, L].
            generator: source of randomness.

        Returns:
            Noise [D, L] with the dtype of `noise`.

        Raises:
            InputError: D or L is not a multiple of the chunk's size.
        """
        if z.shape[0] % self.channels or z.shape[1] % self.frames:
            raise InputError(
                f"model.coupling.channels={self.channels} and model.coupling.frames={self.frames} "
                f"must divide the latents' {z.shape[0]} channels and {z.shape[1]} frames"
            )
        with torch.autocast(z.device.type, enabled=False):
            chunks = self._cut(z.float())
            candidates = self._cut(noise.float())
            cost = squared_distance(chunks, candidates)
            plan = transport_plan(cost, self.regularisation, self.iterations)
            # The largest ratio to exponential variables is a draw from each row (Gumbel-max).
            ratios = plan / torch.empty_like(plan).exponential_(generator=generator)
            drawn = ratios.argmax(-1, keepdim=True)
            coupled = candidates.gather(1, drawn.expand_as(candidates))
        return self._join(coupled, noise.shape).to(noise.dtype)

    def _cut(self, z: Tensor) -> Tensor:
        """Cut z [D, L] to [groups, chunks of a group, values]; chunk i is in group i mod groups."""
        rows = z.unflatten(0, (-1, self.channels))
        bands = rows.unflatten(2, (-1, self.frames))  # [D / c, c, L / f, f]
        chunks = bands.permute(2, 0, 1, 3).flatten(2).flatten(0, 1)
        return chunks.unflatten(0, (-1, self._groups(len(chunks)))).transpose(0, 1).contiguous()

    def _join(self, chunks: Tensor, shape: torch.Size) -> Tensor:
        """Invert `_cut`."""
        rows = shape[0] // self.channels
        columns = shape[1] // self.frames
        bands = chunks.transpose(0, 1).reshape(columns, rows, self.channels, self.frames)
        return bands.permute(1, 2, 0, 3).reshape(shape)

    def _groups(self, chunks: int) -> int:
        return next(
            count
            for count in range(1, chunks + 1)
            if chunks % count == 0 and chunks <= count * self.group
        )


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute the mean squared distances [..., N, M] of x [..., N, V] and y [..., M, V]."""
    # Avoid matrix multiplication: its rounding error, divided by the regularisation, would change
    # the plan.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / x.shape[-1]


def transport_plan(cost: Tensor, regularisation: float, iterations: int) -> Tensor:
    """Solve entropic optimal transport between uniform marginals.

    The method is log-domain Sinkhorn (Cuturi 2013, algorithm 1).

    The regularisation decreases geometrically from the mean cost over the first four fifths of the
    iterations. With a constant regularisation of 0.001 and 100 iterations, some columns would keep
    several times their share, and the drawn noise would not be normal.

    Args:
        cost: [..., N, M].
        regularisation: weight of the entropy, in units of the cost.
        iterations: number of iterations.

    Returns:
        Plan [..., N, M], each row divided by its sum; the columns sum to N / M up to convergence.
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
    """Compute log-sum-exp over `dim`, in place; limit terms to e^-80 of the largest."""
    top = x.amax(dim, keepdim=True)
    # Without the limit most exponentials are subnormal numbers, twenty times slower on a CPU.
    return x.sub_(top).clamp_min_(-80).exp_().sum(dim, keepdim=True).log_().add_(top)
