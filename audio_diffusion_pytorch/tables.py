"""Figures as tables: lists of rows of text, headings first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from audio_diffusion_pytorch.evaluation import pair_name
from audio_diffusion_pytorch.summary import (
    AVERAGES,
    BRIDGE_AVERAGES,
    NOTHING,
    PAPER_PAIRS,
    TARGETS,
    TARGETS_EMBEDDER,
    Figure,
    Group,
    average,
    overall,
)

Table = list[list[str]]
_SHORT = {
    "taken": "taken",
    "dpd": "DPD",
    "rca_relative": "RCA / truth's",
    "frechet_share": "Frechet ({embedder}) / identity's",
    "log_mel_share": "log-mel / identity's",
}


def target_table(groups: Sequence[Group], embedder: str) -> Table:
    """The five lines with their targets, for one system and sigma; first row: headings."""
    pairs = [g.pair for g in groups]
    paper = sum(pair in PAPER_PAIRS for pair in pairs)
    others = f"the other {len(pairs) - paper} of 12, mean"
    table = [["", f"the paper's pairs, {paper} of 8, mean", "worst of them", others]]
    for target in TARGETS:
        cells = []
        comparable = target.name != "frechet_share" or embedder == TARGETS_EMBEDDER
        for figure, bound in zip(overall(groups, target.name), target.bounds, strict=True):
            cells.append(_with_interval(figure, target.percent))
            if comparable and not math.isnan(figure.value):
                met = figure.value >= bound if target.at_least else figure.value <= bound
                sign = ">=" if target.at_least else "<="
                cells[-1] += f" ({sign} {_number(bound, target.percent)}: {'yes' if met else 'NO'})"
        table.append([target.label.format(embedder=embedder), *cells])
    return table


def pair_table(groups: Sequence[Group], embedder: str) -> Table:
    """The five figures of every pair, of one system and sigma."""
    table = [["pair", "clips", "sigma", *(_SHORT[target.name].format(embedder=embedder) for target in TARGETS)]]
    for group in groups:
        sigma = "" if group.system.sigma is None else f"{group.system.sigma:g}"
        cells = [_with_interval(group.figures[target.name], target.percent) for target in TARGETS]
        table.append([pair_name(group.pair), str(len(group.rows)), sigma, *cells])
    return table


def system_table(groups: Sequence[Group], embedder: str) -> Table:
    """Every system, averaged over its pairs."""
    names = {"taken": "taken", "dpd": "DPD", **AVERAGES, "frechet": f"Frechet ({embedder})"}
    names |= {key: BRIDGE_AVERAGES[key] for key in ("evaluations", "seconds_per_second")}
    return [["system", "pairs", "clips", *names.values()], *_system_rows(groups, names)]


def middle_table(groups: Sequence[Group]) -> Table:
    """Noise in the middle and the way there and back, of the systems that tell."""
    names = {k: v for k, v in BRIDGE_AVERAGES.items() if k.startswith(("noise", "cycle"))}
    told = [group for group in groups if "noise_spread" in group.figures]
    return [["system", "pairs", "clips", *names.values()], *_system_rows(told, names)] if told else []


def _system_rows(groups: Sequence[Group], names: dict[str, str]) -> Table:
    rows = []
    for label in dict.fromkeys(group.label for group in groups):
        same = [group for group in groups if group.label == label]
        cells = []
        for name in names:
            value = average([group.figures.get(name, NOTHING) for group in same]).value
            cells.append(_number(value, name == "taken", name == "evaluations"))
        rows.append([label, str(len(same)), str(sum(len(group.rows) for group in same)), *cells])
    return rows


def real_table(real: Mapping[str, Mapping[str, Any]]) -> Table:
    """The real clips of each target, and the Frechet distance between two halves of them: the floor."""
    rows = [[name, str(r["clips"]), str(r["frames"]), _number(r["floor"])] for name, r in real.items()]
    return [["target", "clips", "frames", "floor"], *rows]


def layout(table: Sequence[Sequence[str]]) -> str:
    """A table as aligned text."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _with_interval(figure: Figure, percent: bool) -> str:
    value = _number(figure.value, percent)
    if math.isnan(figure.low):
        return value
    low, high = (_number(bound, percent).removesuffix(" %") for bound in (figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def _number(value: float | None, percent: bool = False, whole: bool = False) -> str:
    if value is None or math.isnan(value):
        return "-"
    if whole:
        return f"{value:.0f}"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"
