"""Targets of the project's own models."""

from dataclasses import dataclass

PAPER_PAIRS = (
    *(
        (a, b)
        for a in ("flute", "violin", "trumpet")
        for b in ("flute", "violin", "trumpet")
        if a != b
    ),
    ("bassoon", "cello"),
    ("cello", "bassoon"),
)


@dataclass(frozen=True)
class Target:
    """A line of the table of targets: what is measured, and the bounds for the paper's mean, its worst, the others."""

    name: str
    label: str
    bounds: tuple[float, float, float]
    at_least: bool
    percent: bool


TARGETS = (
    Target("taken", "target accuracy", (0.95, 0.88, 0.85), True, True),
    Target("dpd", "DPD (correct), median", (0.08, 0.15, 0.25), False, False),
    Target(
        "rca_relative",
        "raw chroma accuracy, relative to the true performance",
        (0.95, 0.90, 0.85),
        True,
        False,
    ),
    Target(
        "frechet_share",
        "Frechet distance ({embedder}), share of identity's",
        (0.20, 0.35, 0.35),
        False,
        True,
    ),
    Target(
        "log_mel_share",
        "log-mel distance to the truth, share of identity's",
        (0.60, 0.75, 0.75),
        False,
        True,
    ),
)
TARGETS_EMBEDDER = "small codec"  # of the bounds on the Frechet distance: other embedders' numbers are not comparable
