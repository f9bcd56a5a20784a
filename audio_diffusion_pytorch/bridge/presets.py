"""Measured settings of a bridge."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """How finely a bridge solves its two ODEs.

    Args:
        solver: name in `SOLVERS`.
        num_steps: points of the schedule of each half.
        sigma_min: noise level at the data end, no less than the models' own; None: the models' own.
        rho: spacing of the schedule.
    """

    solver: str
    num_steps: int
    sigma_min: float | None
    rho: float


# Relative error of the target's latents against the converged solution from the models' own sigma_min, at the shipped
# models' default hand-off: `python benchmarks/transfer.py --only error`.
QUALITY = {
    "draft": Quality("unipc", 9, 0.05, 7.0),
    "normal": Quality("unipc", 14, 0.02, 6.0),
    "high": Quality("unipc", 32, None, 7.0),
}
