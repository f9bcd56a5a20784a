"""The results of an evaluation: tables for the terminal, results.json, .csv, .md and .tex."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.evaluation import tables
from audio_diffusion_pytorch.evaluation.aggregate import Group, overall, real_vs_real
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.store import finite_or_none
from audio_diffusion_pytorch.evaluation.targets import TARGETS
from audio_diffusion_pytorch.evaluation.tasks import pair_name
from audio_diffusion_pytorch.metrics.frechet import FRAMES_PER_DIMENSION, Moments
from audio_diffusion_pytorch.utils import about
from audio_diffusion_pytorch.utils.files import atomic_write

FORMAT = "audio_diffusion_pytorch.evaluation.1"


def collect(
    groups: Sequence[Group],
    real: Mapping[str, Sequence[Moments]],
    embedder: str,
    problems: Problems,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect the content of results.json; an estimate is [value, low, high], null if unknown.

    Args:
        groups: groups with their figures.
        real: name of each target -> moments of its real clips.
        embedder: name of the embedder of the Frechet distances.
        problems: everything that was left out; missing Frechet distances are added.
        settings: configuration of the command.

    Returns:
        The content.
    """
    _name_missing_frechet(groups, real, problems)
    return {
        "format": FORMAT,
        "made": about.made(),
        "settings": dict(settings),
        "embedder": embedder,
        "real": {
            name: {
                "clips": len(parts),
                "frames": sum(m.count for m in parts),
                "floor": finite_or_none(real_vs_real(parts)),
            }
            for name, parts in sorted(real.items())
        },
        "targets": {
            label: {
                target.name: [figure.plain() for figure in overall(same, target.name)]
                for target in TARGETS
            }
            for label, same in by_label(groups).items()
        },
        "pairs": [
            {
                "pair": pair_name(group.pair),
                "system": group.label,
                "sigma": group.system.sigma,
                "clips": len(group.clips),
                "frames": sum(m.count for m in group.moments),
                "embedder": embedder,
                **{name: figure.plain() for name, figure in group.figures.items()},
            }
            for group in groups
        ],
        "left_out": problems.lines,
        "clips": [
            {k: finite_or_none(v) for k, v in clip.scores.items()}
            for group in groups
            for clip in group.clips
        ],
    }


def _name_missing_frechet(
    groups: Sequence[Group], real: Mapping[str, Sequence[Moments]], problems: Problems
) -> None:
    """Add a problem for each group without a Frechet distance: the number of missing frames."""
    lacking = [group for group in groups if math.isnan(group.figures["frechet"].value)]
    frames = [
        (sum(m.count for m in group.moments), sum(m.count for m in real.get(group.pair[1], [])))
        for group in lacking
    ]
    for group in lacking:
        name = f"{pair_name(group.pair)} {group.label}"
        needed = FRAMES_PER_DIMENSION * len(group.moments[0].total)
        fewest_outputs = min(outputs for outputs, _ in frames)
        fewest_real = min(clips for _, clips in frames)
        problems.add(
            f"{name}: no Frechet distance: it needs {needed} frames of outputs and as many of "
            "real clips, found "
            f"{fewest_outputs} and {fewest_real}; raise clips= or seconds=",
            name,
        )


def by_label(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Group groups by system, reference points first.

    Args:
        groups: groups of all pairs.

    Returns:
        The label of each system -> its groups.
    """
    ordered = sorted(groups, key=lambda group: not group.system.reference)
    return {
        label: [g for g in groups if g.label == label]
        for label in dict.fromkeys(g.label for g in ordered)
    }


def systems_of(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return `by_label` without the reference points."""
    return {label: same for label, same in by_label(groups).items() if not same[0].system.reference}


def write(groups: Sequence[Group], content: Mapping[str, Any], folder: Path) -> None:
    """Write results.json, the clips as results.csv, and the tables as results.md and results.tex.

    Args:
        groups: groups with their figures.
        content: content of results.json.
        folder: folder of the files.

    Raises:
        InputError: a file cannot be written.
    """
    _write(folder / "results.json", json.dumps(content, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in content["clips"] for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["clips"])
    _write(folder / "results.csv", text.getvalue())
    made = about.line(content["made"])
    found = all_tables(groups, content)
    parts = [f"## {title}\n\n{tables.markdown(table)}" for title, table in found]
    _write(folder / "results.md", "\n".join([f"# Evaluation\n\n{made}\n", *parts]))
    parts = [tables.latex(table, title) for title, table in found]
    _write(folder / "results.tex", "\n".join([f"% {made}\n% \\usepackage{{booktabs}}\n", *parts]))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        # names of files may not be UTF-8
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def as_text(groups: Sequence[Group], content: Mapping[str, Any]) -> str:
    """Lay out all tables for a terminal; the main table comes last, where the terminal shows it.

    Args:
        groups: groups with their figures.
        content: content of results.json.

    Returns:
        The text.
    """
    found = all_tables(groups, content)[::-1]
    laid_out = [f"{title}\n\n{tables.layout(table)}" for title, table in found]
    return "\n\n".join(laid_out) + _left_out(content["left_out"])


def all_tables(
    groups: Sequence[Group], content: Mapping[str, Any]
) -> list[tuple[str, list[list[str]]]]:
    """Make all tables, the main table first.

    Args:
        groups: groups with their figures.
        content: content of results.json.

    Returns:
        Title and table of each.
    """
    embedder = content["embedder"]
    found = [
        (
            f"Systems and reference points, mean over their pairs (Frechet: {embedder})",
            tables.main_table(groups),
        )
    ]
    if content["settings"].get("targets"):
        for label, same in systems_of(groups).items():
            found.append((f"{label}: targets", tables.target_table(same, embedder)))
    for label, same in systems_of(groups).items():
        found.append((f"{label}: each pair", tables.pair_table(same)))
    found.append(("Further scores, mean over pairs", tables.system_table(groups)))
    if judged := tables.judge_table(groups):
        found.append(("Judged by CREPE, mean over pairs", judged))
    if middle := tables.middle_table(groups):
        found.append(("Noise at the hand-off, and the way back", middle))
    if any(row["clips"] for row in content["real"].values()):
        found.append((f"Real clips ({embedder})", tables.real_table(content["real"])))
    return [(title, tables.without_empty_columns(table)) for title, table in found]


def _left_out(lines: Sequence[str]) -> str:
    if not lines:
        return "\n"
    listed = "".join(f"- {line}\n" for line in lines)
    return f"\n\nLeft out or not scored ({len(lines)}):\n{listed}"
