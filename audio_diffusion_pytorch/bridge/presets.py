"""Presets of a bridge, with measured settings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """Accuracy with which a bridge solves its two ODEs.

    Args:
        solver: name in `SOLVERS`.
        num_steps: points of the schedule of each half.
        sigma_min: noise level at the data end, at least the models' sigma_min; None: the models'
            sigma_min.
        rho: spacing of the schedule.
        fitted: points of the solvers that were fitted to the models, which take the place of the
            schedule where they exist, see `bridge.schedules`; None: none.
        student: use students of the models, where they exist, see `models.students`.
        guidance: weight of the melody in target models that receive it, see `MelodyUse`.
    """

    solver: str
    num_steps: int
    sigma_min: float | None
    rho: float
    fitted: int | None = None
    student: bool = False
    guidance: float = 1.0


# Chosen by the relative error of the target's latents against the converged solution, at the
# default hand-off of the shipped models: `python benchmarks/transfer.py --only error`.
QUALITY = {
    "instant": Quality("unipc", 5, 0.1, 7.0, fitted=5, student=True),
    "draft": Quality("unipc", 9, 0.05, 7.0, fitted=6),
    "normal": Quality("unipc", 14, 0.02, 6.0, fitted=9, guidance=3.0),
    "high": Quality("unipc", 32, None, 7.0, guidance=3.0),
}
