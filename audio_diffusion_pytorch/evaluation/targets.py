"""The targets that this project sets for its own models."""

from dataclasses import dataclass

_TRIO = ("flute", "violin", "trumpet")
PAPER_PAIRS = (
    *((a, b) for a in _TRIO for b in _TRIO if a != b),
    ("bassoon", "cello"),
    ("cello", "bassoon"),
)


@dataclass(frozen=True)
class Target:
    """A line of the table of targets.

    Attributes:
        name: name of the score.
        label: text of the line; `{embedder}` stands for the embedder's name.
        bounds: bounds of the paper's mean, of the paper's worst pair, and of the mean over other
            pairs.
        at_least: whether the score must be at least the bound; otherwise at most.
        percent: whether the score is shown in percent.
    """

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
TARGETS_EMBEDDER = "small codec"  # the Frechet bounds hold for this embedder only
