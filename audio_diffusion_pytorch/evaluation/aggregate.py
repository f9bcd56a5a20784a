"""Aggregate scores of clips to estimates for each pair and system, with bootstrap intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from audio_diffusion_pytorch.evaluation.extensions import METRICS
from audio_diffusion_pytorch.evaluation.judge import COLUMNS as JUDGE
from audio_diffusion_pytorch.evaluation.settings import IDENTITY, TRUTH
from audio_diffusion_pytorch.evaluation.systems import System
from audio_diffusion_pytorch.evaluation.targets import PAPER_PAIRS, TARGETS
from audio_diffusion_pytorch.evaluation.tasks import ScoredClip
from audio_diffusion_pytorch.metrics.frechet import Moments, frechet_distance

RESAMPLES = 1000
FRECHET_RESAMPLES = 200  # each takes milliseconds
TRITONE = 6.0  # semitones, the largest DPD: the DPD of an output without pitch


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % confidence interval.

    Attributes:
        value: the estimate; NaN if unknown.
        low: lower end of the interval; NaN if unknown.
        high: upper end of the interval; NaN if unknown.
        resampled: estimates [R] over resampled clips, which give the interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def plain(self) -> list[float | None]:
        """Return [value, low, high] for JSON, with None for NaN."""
        return [None if math.isnan(v) else v for v in (self.value, self.low, self.high)]


NOTHING = Estimate(math.nan)
# Scores in neither set have no better direction, for example a ratio that is best at 1.
LESS_IS_BETTER = {
    "dpd",
    "dpd_paper",
    "jd",
    "jd_paper",
    "frechet",
    "frechet_share",
    "log_mel_truth",
    "log_mel_share",
    "noise_channel_correlation",
    "noise_time_correlation",
    "cycle_latent",
    "cycle_log_mel",
    "evaluations",
    "seconds_per_second",
    "voicing_false_alarm",
    "onset_median",
    "onset_p95",
}
MORE_IS_BETTER = {
    *("taken", "rpa", "rca", "rca_relative", "note_precision", "note_recall", "note_f1"),
    *("level_envelope", "raw_pitch", "raw_chroma", "raw_chroma_p10", "voicing_recall"),
}
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
    "level_envelope": "level envelope",
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
    """Make an estimate with the 95 % percentile interval of values [R] without NaNs."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite) or math.isnan(value):
        return Estimate(value)
    low, high = np.quantile(finite, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high), resampled)


def bootstrap(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Estimate:
    """Estimate a statistic over clips, and its percentile interval over resampled clips.

    Args:
        values: K numbers of each clip [N, K]; rows with a NaN are left out.
        statistic: function of [..., N, K] that returns [...].
        seed: seed of the resampling.

    Returns:
        The estimate; without an interval for a single clip, `NOTHING` for none.
    """
    values = values[~np.isnan(values).any(1)]
    if not len(values):
        return NOTHING
    chosen = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    resampled = statistic(values[chosen]) if len(values) > 1 else np.empty(0)
    return interval(float(statistic(values)), resampled)


def mean(values: np.ndarray) -> np.ndarray:
    """Average the first column of [..., N, K] over N."""
    return values[..., 0].mean(-1)


def median(values: np.ndarray) -> np.ndarray:
    """Take the median of the first column of [..., N, K] over N."""
    return np.median(values[..., 0], -1)


def tenth_percentile(values: np.ndarray) -> np.ndarray:
    """Take the tenth percentile of the first column of [..., N, K] over N."""
    return np.quantile(values[..., 0], 0.1, -1)


def ratio(values: np.ndarray) -> np.ndarray:
    """Divide the mean of the first column of [..., N, 2] by the mean of the second."""
    return values[..., 0].mean(-1) / np.maximum(values[..., 1].mean(-1), 1e-12)


@dataclass
class Group:
    """The clips of one pair and system.

    Attributes:
        pair: source and target instrument.
        system: system that made the outputs.
        clips: scored clips.
        moments: moments of each clip's output.
        figures: name of each score -> its estimate.
    """

    pair: tuple[str, str]
    system: System
    clips: list[ScoredClip] = field(default_factory=list)
    moments: list[Moments] = field(default_factory=list)
    figures: dict[str, Estimate] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name of the system in tables."""
        return self.system.label


def group_clips(clips: Sequence[ScoredClip], moments: Sequence[Moments]) -> list[Group]:
    """Group clips by pair and system.

    Args:
        clips: scored clips.
        moments: moments of each clip's output.

    Returns:
        The groups in the order of their first clips.
    """
    groups: dict[tuple, Group] = {}
    for clip, moment in zip(clips, moments, strict=True):
        task = clip.task
        group = groups.setdefault((task.pair, task.system.label), Group(task.pair, task.system))
        group.clips.append(clip)
        group.moments.append(moment)
    return list(groups.values())


def summarise(
    groups: Sequence[Group],
    real: Mapping[str, Sequence[Moments]],
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Estimate the figures of every group.

    Args:
        groups: groups, whose `figures` are filled in.
        real: name of each target -> moments of its real clips.
        progress: called after each group.
    """
    by_pair = {(group.pair, group.label): group for group in groups}
    for group in groups:
        identity = by_pair.get((group.pair, IDENTITY))
        truth = by_pair.get((group.pair, TRUTH))
        figures = group.figures
        figures["taken"] = bootstrap(_column(group, "taken"), mean)
        figures["dpd"] = bootstrap(_dpd(group), median)
        for name in (*AVERAGES, *BRIDGE_AVERAGES, *JUDGE, *METRICS):
            if name in group.clips[0].scores:
                figures[name] = bootstrap(_column(group, name), mean)
        if "raw_chroma" in figures:
            figures["raw_chroma_p10"] = bootstrap(_column(group, "raw_chroma"), tenth_percentile)
        figures["rca_relative"] = bootstrap(_paired(group, truth, "rca"), ratio)
        figures["log_mel_share"] = bootstrap(_paired(group, identity, "log_mel_truth"), ratio)
        figures |= _frechet(group, identity, real.get(group.pair[1], []))
        progress()


def _column(group: Group, name: str) -> np.ndarray:
    """Collect a score of each clip [N, 1]."""
    values = [clip.scores.get(name) for clip in group.clips]
    return np.array([[math.nan if value is None else value] for value in values], float)


def _dpd(group: Group) -> np.ndarray:
    """Collect the DPD of each clip [N, 1]; an output without pitch counts as the largest DPD."""
    scores = [clip.scores for clip in group.clips]
    return np.array([[TRITONE if score["voiced"] == 0 else score["dpd"]] for score in scores])


def _paired(group: Group, other: Group | None, name: str) -> np.ndarray:
    """Collect a score of each clip in this and in another group [N, 2]."""
    if other is None:
        return np.empty((0, 2))
    theirs = {clip.scores["clip"]: clip.scores[name] for clip in other.clips}
    return np.array(
        [[clip.scores[name], theirs.get(clip.scores["clip"], math.nan)] for clip in group.clips],
        float,
    )


def real_vs_real(real: Sequence[Moments]) -> float:
    """Return the Frechet distance between halves of the real clips: that of a perfect system.

    Args:
        real: moments of real clips; every other clip is in the first half.

    Returns:
        The distance; NaN if a half has too few frames.
    """
    if len(real) < 2:
        return math.nan
    return _distance(Moments.pool(real[::2]), Moments.pool(real[1::2]))


def _distance(a: Moments, b: Moments) -> float:
    return frechet_distance(a, b) if a.enough() and b.enough() else math.nan


def _frechet(group: Group, identity: Group | None, real: Sequence[Moments]) -> dict[str, Estimate]:
    """Estimate the distance to the real clips, and its share of the distance of identity.

    Both distances of the share are resampled together. Reference points get no interval, to save
    time.
    """
    figures = {"frechet": NOTHING, "frechet_share": NOTHING}
    if not real or len(group.moments) < 2:
        return figures
    pooled = Moments.pool(real)
    value = _distance(Moments.pool(group.moments), pooled)
    if math.isnan(value):
        return figures
    resample = not group.system.reference
    distances = _resampled_distances(group.moments, pooled) if resample else np.empty(0)
    figures["frechet"] = interval(value, distances)
    same = _same_clips(group, identity)
    if same is not None:
        base = _distance(Moments.pool(same), pooled)
        ratios = distances
        if resample:
            ratios = distances / np.maximum(_resampled_distances(same, pooled), 1e-12)
        figures["frechet_share"] = interval(value / max(base, 1e-12), ratios)
    return figures


def _same_clips(group: Group, identity: Group | None) -> list[Moments] | None:
    """Return identity's moments of the group's clips; None unless identity has all of them."""
    if identity is None:
        return None
    theirs = dict(zip(_names(identity), identity.moments, strict=True))
    names = _names(group)
    return [theirs[name] for name in names] if theirs.keys() >= set(names) else None


def _resampled_distances(parts: Sequence[Moments], real: Moments) -> np.ndarray:
    """Return distances [R] of resampled parts; sets of as many parts are resampled alike."""
    size = len(parts)
    chosen = np.random.default_rng(0).integers(size, size=(FRECHET_RESAMPLES, size))
    weights = np.stack([np.bincount(drawn, minlength=size) for drawn in chosen]).astype(float)
    # few clips give many equal samples
    weights, which = np.unique(weights, axis=0, return_inverse=True)
    counts = weights @ [p.count for p in parts]
    totals = weights @ np.stack([p.total for p in parts])
    products = np.tensordot(weights, np.stack([p.products for p in parts]), 1)
    distances = [
        _distance(Moments(*moments), real) for moments in zip(counts, totals, products, strict=True)
    ]
    return np.array(distances)[which]


def _names(group: Group) -> list[str]:
    return [clip.scores["clip"] for clip in group.clips]


def overall(groups: Sequence[Group], name: str) -> tuple[Estimate, Estimate, Estimate]:
    """Combine the estimates of a target's score over the pairs of one system.

    Args:
        groups: groups of one system.
        name: name of a score in `TARGETS`.

    Returns:
        The mean over the paper's pairs, the worst of the paper's pairs, and the mean over all other
        pairs.
    """
    target = next(target for target in TARGETS if target.name == name)
    paper = [group.figures[name] for group in groups if group.pair in PAPER_PAIRS]
    others = [group.figures[name] for group in groups if group.pair not in PAPER_PAIRS]
    worst = np.min if target.at_least else np.max
    return average(paper), average(paper, worst), average(others)


def average(figures: Sequence[Estimate], function: Callable = np.mean) -> Estimate:
    """Combine the estimates of several pairs.

    Args:
        figures: the estimates; unknown ones are left out.
        function: combines the values, for example `numpy.mean`.

    Returns:
        The combined estimate, with an interval if all estimates have one.
    """
    known = [figure for figure in figures if not math.isnan(figure.value)]
    if not known:
        return NOTHING
    value = float(function([figure.value for figure in known]))
    if not all(len(figure.resampled) for figure in known):
        return Estimate(value)
    return interval(value, function(np.stack([figure.resampled for figure in known]), axis=0))
