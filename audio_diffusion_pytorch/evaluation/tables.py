"""Figures as tables: lists of rows of text, headings first; as plain text, Markdown or LaTeX."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from audio_diffusion_pytorch.evaluation.aggregate import (
    AVERAGES,
    BRIDGE_AVERAGES,
    LESS_IS_BETTER,
    MORE_IS_BETTER,
    NOTHING,
    Estimate,
    Group,
    average,
    overall,
)
from audio_diffusion_pytorch.evaluation.extensions import METRICS
from audio_diffusion_pytorch.evaluation.targets import PAPER_PAIRS, TARGETS, TARGETS_EMBEDDER
from audio_diffusion_pytorch.evaluation.tasks import pair_name

Table = list[list[str]]
_SHORT = {
    "taken": "target accuracy",
    "dpd": "DPD",
    "rca_relative": "RCA / truth's",
    "frechet_share": "Frechet / identity's",
    "log_mel_share": "log-mel / identity's",
}
_MAIN = {
    "taken": "target accuracy",
    "dpd": "DPD",
    "rca": "RCA",
    "log_mel_truth": "log-mel",
    "frechet": "Frechet",
    "seconds_per_second": "s per s",
}


def heading(name: str, text: str) -> str:
    """A column's heading, with an arrow to what is better."""
    arrow = " ↑" if name in MORE_IS_BETTER else " ↓" if name in LESS_IS_BETTER else ""
    return text + arrow


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


def pair_table(groups: Sequence[Group]) -> Table:
    """The five figures of every pair, of one system and sigma."""
    names = [heading(name, text) for name, text in _SHORT.items()]
    table = [["pair", "clips", "sigma", *names]]
    for group in groups:
        sigma = "" if group.system.sigma is None else f"{group.system.sigma:g}"
        cells = [_with_interval(group.figures[target.name], target.percent) for target in TARGETS]
        table.append([pair_name(group.pair), str(len(group.clips)), sigma, *cells])
    return table


def main_table(groups: Sequence[Group]) -> Table:
    """Every system, averaged over its pairs: the figures that say most."""
    rows = _system_table(groups, _MAIN)
    return [[row[0], *row[3:], *row[1:3]] for row in rows]  # a phone shows the first columns


def system_table(groups: Sequence[Group]) -> Table:
    """The other averages of every system."""
    own = {name: name for name in METRICS}
    names = {**AVERAGES, **own, "evaluations": BRIDGE_AVERAGES["evaluations"]}
    return _system_table(groups, names)


def middle_table(groups: Sequence[Group]) -> Table:
    """Noise in the middle and the way there and back, of the systems that tell."""
    names = {k: v for k, v in BRIDGE_AVERAGES.items() if k.startswith(("noise", "cycle"))}
    told = [group for group in groups if "noise_spread" in group.figures]
    return _system_table(told, names) if told else []


def _system_table(groups: Sequence[Group], names: Mapping[str, str]) -> Table:
    rows = [["system", "pairs", "clips", *(heading(name, text) for name, text in names.items())]]
    for label in dict.fromkeys(
        group.label for group in sorted(groups, key=lambda group: not group.system.reference)
    ):
        same = [group for group in groups if group.label == label]
        cells = []
        for name in names:
            value = average([group.figures.get(name, NOTHING) for group in same]).value
            cells.append(_number(value, name == "taken", name == "evaluations"))
        rows.append([label, str(len(same)), str(sum(len(group.clips) for group in same)), *cells])
    return rows


def real_table(real: Mapping[str, Mapping[str, Any]]) -> Table:
    """The real clips of each target, and the Frechet distance between two halves of them: the floor."""
    rows = [
        [name, str(r["clips"]), str(r["frames"]), _number(r["floor"])] for name, r in real.items()
    ]
    return [["target", "clips", "frames", "real vs real"], *rows]


def without_empty_columns(table: Table) -> Table:
    """A table without the columns in which no row has a figure."""
    kept = [column for column in zip(*table, strict=True) if set(column[1:]) - {"-", ""}]
    return [list(row) for row in zip(*kept, strict=True)]


def layout(table: Sequence[Sequence[str]]) -> str:
    """A table as aligned text."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """A table in Markdown, as GitHub and Pandoc read it."""
    head, *body = [
        [re.sub(r"([\\`*_|<>\[\]])", r"\\\1", _one_line(cell)) for cell in row] for row in table
    ]
    marks = [":---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, marks, *body))


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$"},
}


def latex(table: Table, title: str) -> str:
    """A table in LaTeX, for the package booktabs."""
    rows = [" & ".join(map(_latex, row)) for row in table]
    # after the end of a row an opening bracket or a star would be read as its argument
    head, *body = [("{}" if row.startswith(("[", "*")) else "") + row + r" \\" for row in rows]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(title)}}}"]
    lines += [
        rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    """Names of files may hold line breaks, and bytes that are no text."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _with_interval(figure: Estimate, percent: bool) -> str:
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
