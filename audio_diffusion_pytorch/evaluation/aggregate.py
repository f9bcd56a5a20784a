"""From scores of clips to figures of pairs and of all: averages, ratios, bootstrap confidence intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from audio_diffusion_pytorch.evaluation.settings import IDENTITY, TRUTH
from audio_diffusion_pytorch.evaluation.systems import System
from audio_diffusion_pytorch.evaluation.targets import PAPER_PAIRS, TARGETS
from audio_diffusion_pytorch.evaluation.tasks import ScoredClip
from audio_diffusion_pytorch.metrics.frechet import Moments, frechet_distance

RESAMPLES, FRECHET_RESAMPLES = 1000, 200
TRITONE = 6.0  # the worst DPD: that of an output without any pitch


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval; `resampled` [R] is what the interval comes from."""

    value: float
    low: float = math.nan
    high: float = math.nan
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def plain(self) -> list[float | None]:
        return [None if math.isnan(v) else v for v in (self.value, self.low, self.high)]


NOTHING = Estimate(math.nan)
# Scores of which less is better; of those in neither set, as of a ratio that is best at 1, nothing is.
LESS_IS_BETTER = {
    *(
        "dpd",
        "dpd_paper",
        "jd",
        "jd_paper",
        "frechet",
        "frechet_share",
        "log_mel_truth",
        "log_mel_share",
    ),
    *("noise_channel_correlation", "noise_time_correlation", "cycle_latent", "cycle_log_mel"),
    *("evaluations", "seconds_per_second"),
}
MORE_IS_BETTER = {"taken", "rpa", "rca", "rca_relative", "note_precision", "note_recall", "note_f1"}
# Columns of the table of systems: score, heading.
AVERAGES = {
    "dpd_paper": "DPD paper",
    "jd": "JD",
    "jd_paper": "JD paper",
    "rpa": "RPA",
    "rca": "RCA",
    "note_precision": "notes P",
    "note_recall": "R",
    "note_f1": "F1",
    "log_mel_truth": "log-mel",
}
BRIDGE_AVERAGES = {
    "noise_spread": "spread",
    "noise_channel_correlation": "channels",
    "noise_time_correlation": "time",
    "cycle_latent": "cycle",
    "cycle_log_mel": "cycle log-mel",
    "evaluations": "evaluations",
    "seconds_per_second": "s per s",
}


def interval(value: float, resampled: np.ndarray) -> Estimate:
    kept = resampled[np.isfinite(resampled)]
    if not len(kept) or math.isnan(value):
        return Estimate(value)
    return Estimate(float(value), *map(float, np.quantile(kept, (0.025, 0.975))), resampled)


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Estimate:
    """A statistic over clips, and its percentile interval over resampled clips.

    Args:
        values: [N, K], K numbers of each clip; rows with a NaN are left out.
        statistic: [..., N, K] -> [...].
    """
    values = values[~np.isnan(values).any(1)]
    if not len(values):
        return NOTHING
    chosen = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    resampled = statistic(values[chosen]) if len(values) > 1 else np.empty(0)
    return interval(float(statistic(values)), resampled)


def mean(values: np.ndarray) -> np.ndarray:
    return values[..., 0].mean(-1)


def median(values: np.ndarray) -> np.ndarray:
    return np.median(values[..., 0], -1)


def ratio(values: np.ndarray) -> np.ndarray:
    """Mean of the first column over mean of the second."""
    return values[..., 0].mean(-1) / np.maximum(values[..., 1].mean(-1), 1e-12)


@dataclass
class Group:
    """The rows of one pair and system, with their figures by name."""

    pair: tuple[str, str]
    system: System
    clips: list[ScoredClip] = field(default_factory=list)
    moments: list[Moments] = field(default_factory=list)
    figures: dict[str, Estimate] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.system.label


def group_clips(clips: Sequence[ScoredClip], moments: Sequence[Moments]) -> list[Group]:
    groups: dict[tuple, Group] = {}
    for clip, moment in zip(clips, moments, strict=True):
        task = clip.task
        group = groups.setdefault((task.pair, task.system.label), Group(task.pair, task.system))
        group.clips.append(clip)
        group.moments.append(moment)
    return list(groups.values())


def summarise(
    groups: Sequence[Group],
    real: dict[str, list[Moments]],
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Fill in the figures of every group.

    Args:
        real: the moments of real clips of each target.
        progress: called after each group.
    """
    by_pair = {(g.pair, g.label): g for g in groups}
    for group in groups:
        identity, truth = (by_pair.get((group.pair, name)) for name in (IDENTITY, TRUTH))
        figures = group.figures
        figures["taken"] = bootstrap(_column(group, "taken"), mean)
        figures["dpd"] = bootstrap(_dpd(group), median)
        for name in (*AVERAGES, *BRIDGE_AVERAGES):
            if name in group.clips[0].scores:
                figures[name] = bootstrap(_column(group, name), mean)
        figures["rca_relative"] = bootstrap(_paired(group, truth, "rca"), ratio)
        figures["log_mel_share"] = bootstrap(_paired(group, identity, "log_mel_truth"), ratio)
        figures |= _frechet(group, identity, real.get(group.pair[1], []))
        progress()


def _column(group: Group, name: str) -> np.ndarray:
    """[N, 1]."""
    values = [clip.scores.get(name) for clip in group.clips]
    return np.array([[math.nan if value is None else value] for value in values], float)


def _dpd(group: Group) -> np.ndarray:
    """[N, 1]; an output in which no pitch is heard is as far as can be."""
    return np.array(
        [[TRITONE if clip.scores["voiced"] == 0 else clip.scores["dpd"]] for clip in group.clips]
    )


def _paired(group: Group, other: Group | None, name: str) -> np.ndarray:
    """A score of the group's clips and of the same clips in another group, [N, 2]."""
    if other is None:
        return np.empty((0, 2))
    theirs = {clip.scores["clip"]: clip.scores[name] for clip in other.clips}
    return np.array(
        [[clip.scores[name], theirs.get(clip.scores["clip"], math.nan)] for clip in group.clips],
        float,
    )


def real_vs_real(real: Sequence[Moments]) -> float:
    """Frechet distance between two halves of a real set: every other clip; NaN where a half is too small."""
    if len(real) < 2:
        return math.nan
    return _distance(Moments.pool(real[::2]), Moments.pool(real[1::2]))


def _distance(a: Moments, b: Moments) -> float:
    return frechet_distance(a, b) if a.enough() and b.enough() else math.nan


def _frechet(group: Group, identity: Group | None, real: Sequence[Moments]) -> dict[str, Estimate]:
    """Distance to the real clips, and its share of identity's over the same clips, resampled together.

    Reference points get no interval: each resampled distance takes milliseconds.
    """
    figures = {"frechet": NOTHING, "frechet_share": NOTHING}
    if not real or len(group.moments) < 2:
        return figures
    pooled = Moments.pool(real)
    value, resampled = _distance(Moments.pool(group.moments), pooled), not group.system.reference
    if math.isnan(value):
        return figures
    distances = _resampled_distances(group.moments, pooled) if resampled else np.empty(0)
    figures["frechet"] = interval(value, distances)
    theirs = {} if identity is None else dict(zip(_clips(identity), identity.moments, strict=True))
    same = [theirs.get(clip) for clip in _clips(group)]
    if all(moments is not None for moments in same):
        base = _distance(Moments.pool(same), pooled)
        ratios = (
            distances / np.maximum(_resampled_distances(same, pooled), 1e-12)
            if resampled
            else distances
        )
        figures["frechet_share"] = interval(value / max(base, 1e-12), ratios)
    return figures


def _resampled_distances(parts: Sequence[Moments], real: Moments) -> np.ndarray:
    """[R]: the parts resampled, the same ones for every set of as many parts."""
    size = len(parts)
    chosen = np.random.default_rng(0).integers(size, size=(FRECHET_RESAMPLES, size))
    weights = np.stack([np.bincount(drawn, minlength=size) for drawn in chosen]).astype(float)
    weights, which = np.unique(
        weights, axis=0, return_inverse=True
    )  # of few clips, many samples are the same
    counts = weights @ [p.count for p in parts]
    totals = weights @ np.stack([p.total for p in parts])
    products = np.tensordot(weights, np.stack([p.products for p in parts]), 1)
    return np.array(
        [_distance(Moments(*m), real) for m in zip(counts, totals, products, strict=True)]
    )[which]


def _clips(group: Group) -> list[str]:
    return [clip.scores["clip"] for clip in group.clips]


def overall(groups: Sequence[Group], name: str) -> tuple[Estimate, Estimate, Estimate]:
    """A figure of one system and sigma over pairs: the paper's mean, the worst of the paper's, the others' mean."""
    target = next(t for t in TARGETS if t.name == name)
    paper = [g.figures[name] for g in groups if g.pair in PAPER_PAIRS]
    others = [g.figures[name] for g in groups if g.pair not in PAPER_PAIRS]
    worst = np.min if target.at_least else np.max
    return average(paper, np.mean), average(paper, worst), average(others, np.mean)


def average(figures: Sequence[Estimate], function: Callable = np.mean) -> Estimate:
    """`function` over figures of several pairs; those that are not there are left out."""
    figures = [figure for figure in figures if not math.isnan(figure.value)]
    if not figures:
        return NOTHING
    value = float(function([figure.value for figure in figures]))
    if not all(len(figure.resampled) for figure in figures):
        return Estimate(value)
    return interval(value, function(np.stack([figure.resampled for figure in figures]), axis=0))
