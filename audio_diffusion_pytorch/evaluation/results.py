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
    """Everything that results.json holds; figures are [value, low, high], null where there is none.

    Args:
        real: moments of the real clips of each target.
        embedder: name of what the Frechet distances compare.
        settings: the command's configuration.
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
    lacking = [group for group in groups if math.isnan(group.figures["frechet"].value)]
    frames = [
        (sum(m.count for m in group.moments), sum(m.count for m in real.get(group.pair[1], [])))
        for group in lacking
    ]
    for group in lacking:
        name, needed = (
            f"{pair_name(group.pair)} {group.label}",
            FRAMES_PER_DIMENSION * len(group.moments[0].total),
        )
        problems.add(
            f"{name}: no Frechet distance: {needed} frames of outputs and as many of real clips are needed, and there "
            f"are {min(outputs for outputs, _ in frames)} and {min(clips for _, clips in frames)}; raise clips= or "
            "seconds=",
            name,
        )


def by_label(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by system, reference points first."""
    ordered = sorted(groups, key=lambda group: not group.system.reference)
    return {
        label: [g for g in groups if g.label == label]
        for label in dict.fromkeys(g.label for g in ordered)
    }


def systems_of(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """`by_label` of what is evaluated, without the reference points."""
    return {label: same for label, same in by_label(groups).items() if not same[0].system.reference}


def write(groups: Sequence[Group], content: Mapping[str, Any], folder: Path) -> None:
    """results.json; results.csv with one row per clip and system; the tables as results.md and results.tex."""
    _write(folder / "results.json", json.dumps(content, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in content["clips"] for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["clips"])
    _write(folder / "results.csv", text.getvalue())
    made, found = about.line(content["made"]), all_tables(groups, content)
    parts = [f"## {title}\n\n{tables.markdown(table)}" for title, table in found]
    _write(folder / "results.md", "\n".join([f"# Evaluation\n\n{made}\n", *parts]))
    parts = [tables.latex(table, title) for title, table in found]
    _write(folder / "results.tex", "\n".join([f"% {made}\n% \\usepackage{{booktabs}}\n", *parts]))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(
            text, encoding="utf-8", errors="backslashreplace"
        )  # names of files may be any bytes


def as_text(groups: Sequence[Group], content: Mapping[str, Any]) -> str:
    """All tables, for a terminal, whose end is read first."""
    found = all_tables(groups, content)[::-1]
    return "\n\n".join(f"{title}\n\n{tables.layout(table)}" for title, table in found) + _left_out(
        content["left_out"]
    )


def all_tables(
    groups: Sequence[Group], content: Mapping[str, Any]
) -> list[tuple[str, list[list[str]]]]:
    """(title, table) of everything that is shown, what says most first."""
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
    if middle := tables.middle_table(groups):
        found.append(("Noise in the middle, and there and back", middle))
    if any(row["clips"] for row in content["real"].values()):
        found.append((f"Real clips ({embedder})", tables.real_table(content["real"])))
    return [(title, tables.without_empty_columns(table)) for title, table in found]


def _left_out(lines: Sequence[str]) -> str:
    if not lines:
        return "\n"
    return f"\n\nLeft out or not scored ({len(lines)}):\n" + "".join(
        f"- {line}\n" for line in lines
    )
