"""The results of an evaluation: tables for the terminal, results.json and results.csv."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch import tables
from audio_diffusion_pytorch.clips import Problems
from audio_diffusion_pytorch.errors import replacing
from audio_diffusion_pytorch.evaluation import pair_name
from audio_diffusion_pytorch.frechet import FRAMES_PER_DIMENSION, Moments
from audio_diffusion_pytorch.summary import TARGETS, Group, floor, overall

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
    for group in groups:
        if math.isnan(group.figures["frechet"].value):
            frames = sum(m.count for m in group.moments), sum(m.count for m in real.get(group.pair[1], []))
            needed = FRAMES_PER_DIMENSION * len(group.moments[0].total)
            problems.add(
                f"{pair_name(group.pair)}, {group.label}: no Frechet distance over {len(group.moments)} clips with "
                f"{frames[0]} frames against {frames[1]} real ones: too few, {needed} are needed on each side"
            )
    return {
        "format": FORMAT,
        "settings": dict(settings),
        "embedder": embedder,
        "real": {
            name: {"clips": len(parts), "frames": sum(m.count for m in parts), "floor": _plain(floor(parts))}
            for name, parts in sorted(real.items())
        },
        "targets": {
            label: {target.name: [figure.plain() for figure in overall(same, target.name)] for target in TARGETS}
            for label, same in by_label(groups).items()
        },
        "pairs": [
            {
                "pair": pair_name(group.pair),
                "system": group.label,
                "sigma": group.system.sigma,
                "clips": len(group.rows),
                "frames": sum(m.count for m in group.moments),
                "embedder": embedder,
                **{name: figure.plain() for name, figure in group.figures.items()},
            }
            for group in groups
        ],
        "left_out": problems.lines,
        "clips": [{k: _plain(v) for k, v in row.scores.items()} for group in groups for row in group.rows],
    }


def by_label(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by system, in order."""
    return {label: [g for g in groups if g.label == label] for label in dict.fromkeys(g.label for g in groups)}


def systems_of(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """`by_label` of what is evaluated, without the reference points."""
    return {label: same for label, same in by_label(groups).items() if not same[0].system.reference}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(content: Mapping[str, Any], folder: Path) -> None:
    """results.json, and results.csv with one row per clip and system."""
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in content["clips"] for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["clips"])
    with replacing(folder / "results.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")  # names may be any bytes


def as_text(groups: Sequence[Group], content: Mapping[str, Any]) -> str:
    """All tables, for a terminal."""
    return "\n\n".join(
        f"{title}\n\n{tables.layout(table)}" for title, table in all_tables(groups, content)
    ) + _left_out(content["left_out"])


def all_tables(groups: Sequence[Group], content: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """(title, table) of everything that is printed."""
    embedder, found = content["embedder"], []
    for label, same in systems_of(groups).items():
        found.append((f"{label}: each pair", tables.pair_table(same, embedder)))
    found.append(("Systems and reference points, mean over their pairs", tables.system_table(groups, embedder)))
    if middle := tables.middle_table(groups):
        found.append(("Noise in the middle, and there and back", middle))
    found.append((f"Real clips ({embedder})", tables.real_table(content["real"])))
    for label, same in systems_of(groups).items():
        found.append((f"{label}: targets", tables.target_table(same, embedder)))
    return found


def _left_out(lines: Sequence[str]) -> str:
    if not lines:
        return "\n"
    return f"\n\nLeft out or not scored ({len(lines)}):\n" + "".join(f"- {line}\n" for line in lines)
