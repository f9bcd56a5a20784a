"""Tables of results: rows of text with the headings first, as plain text, Markdown or LaTeX."""

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
from audio_diffusion_pytorch.evaluation.judge import COLUMNS as JUDGE
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
    """Add an arrow to a heading: up if more is better, down if less is better.

    Args:
        name: name of the score.
        text: the heading.

    Returns:
        The heading with its arrow.
    """
    arrow = " ↑" if name in MORE_IS_BETTER else " ↓" if name in LESS_IS_BETTER else ""
    return text + arrow


def target_table(groups: Sequence[Group], embedder: str) -> Table:
    """Make the table of targets for one system and noise level.

    Args:
        groups: groups of the system.
        embedder: name of the embedder of the Frechet distances.

    Returns:
        The table.
    """
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
    """Make the table of pairs for one system and noise level."""
    names = [heading(name, text) for name, text in _SHORT.items()]
    table = [["pair", "clips", "sigma", *names]]
    for group in groups:
        sigma = "" if group.system.sigma is None else f"{group.system.sigma:g}"
        cells = [_with_interval(group.figures[target.name], target.percent) for target in TARGETS]
        table.append([pair_name(group.pair), str(len(group.clips)), sigma, *cells])
    return table


def main_table(groups: Sequence[Group]) -> Table:
    """Make the main table: the most important scores of every system, averaged over its pairs."""
    rows = _system_table(groups, _MAIN)
    # scores before counts: a phone shows the first columns
    return [[row[0], *row[3:], *row[1:3]] for row in rows]


def system_table(groups: Sequence[Group]) -> Table:
    """Make the table of further scores of every system, averaged over its pairs."""
    own = {name: name for name in METRICS}
    names = {**AVERAGES, **own, "evaluations": BRIDGE_AVERAGES["evaluations"]}
    return _system_table(groups, names)


def middle_table(groups: Sequence[Group]) -> Table:
    """Make the table of the noise at the hand-off and of the way back."""
    names = {k: v for k, v in BRIDGE_AVERAGES.items() if k.startswith(("noise", "cycle"))}
    scored = [group for group in groups if "noise_spread" in group.figures]
    return _system_table(scored, names) if scored else []


def judge_table(groups: Sequence[Group]) -> Table:
    """Make the table of the judge's scores; empty without a judge."""
    judged = [group for group in groups if "raw_chroma" in group.figures]
    names = {"raw_chroma": "raw chroma", "raw_chroma_p10": "its 10th percentile", **JUDGE}
    return _system_table(judged, names) if judged else []


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
    """Make the table of real clips: number, and Frechet distance between two halves.

    Args:
        real: name of each target -> its entry in results.json.

    Returns:
        The table.
    """
    rows = [
        [name, str(r["clips"]), str(r["frames"]), _number(r["floor"])] for name, r in real.items()
    ]
    return [["target", "clips", "frames", "real vs real"], *rows]


def without_empty_columns(table: Table) -> Table:
    """Remove the columns without a number."""
    kept = [column for column in zip(*table, strict=True) if set(column[1:]) - {"-", ""}]
    return [list(row) for row in zip(*kept, strict=True)]


def layout(table: Sequence[Sequence[str]]) -> str:
    """Lay out a table as aligned text."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """Write a table in Markdown for GitHub and Pandoc."""
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
    """Write a table in LaTeX for the package booktabs.

    Args:
        table: rows, headings first.
        title: the caption.

    Returns:
        The source.
    """
    rows = [" & ".join(map(_latex, row)) for row in table]
    # LaTeX reads a bracket or a star after the end of a row as an argument
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
    """Replace line breaks and bytes that are not text, which names of files may contain."""
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
