"""A self-contained HTML page of an evaluation: tables, plots, pictures and players of some clips."""

import base64
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.figure import Figure as Picture
from torch import Tensor

from audio_diffusion_pytorch import results
from audio_diffusion_pytorch.errors import replacing
from audio_diffusion_pytorch.evaluation import Evaluation, Row, pair_name
from audio_diffusion_pytorch.plots import plot_pitch_tracks, plot_spectrograms
from audio_diffusion_pytorch.summary import Group, average
from audio_diffusion_pytorch.systems import CODEC, TRUTH

PLAYERS = 60  # clips that a page plays at most: about 0.1 MB each
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto }
th, td { padding: 3px 10px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } figure { margin: 1em 0 } .clips { display: flex; flex-wrap: wrap; gap: 1em }
code { background: #f3f3f3; padding: 1px 4px }
"""


def write_report(
    evaluation: Evaluation,
    groups: Sequence[Group],
    content: Mapping[str, Any],
    path: str | Path,
    clips: int,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Write the page, and its plots beside it (`pairs.png`, `trade_off.png`).

    Args:
        content: what `results.collect` gave.
        clips: excerpts of each pair that are shown and played, as long as the page stays small.
        progress: called after each pair.

    Raises:
        InputError: the file cannot be written.
    """
    parts = [f"<p>{html.escape(_about(content))}</p>"]
    tables = [f"<h2>{html.escape(title)}</h2>{_table(table)}" for title, table in results.all_tables(groups, content)]
    parts += tables[::-1]  # the targets first, as they are last on a terminal
    Path(path).with_name("trade_off.png").unlink(missing_ok=True)  # of an earlier sweep
    for name, title, picture in _plots(groups, content["embedder"]):
        with replacing(Path(path).with_name(f"{name}.png")) as temporary:
            picture.savefig(temporary, dpi=100)
        parts.append(_image(picture, title))
    left = PLAYERS
    for pair in dict.fromkeys(group.pair for group in groups):
        rows = [row for group in groups if group.pair == pair for row in group.rows]
        for clip in list(dict.fromkeys(row.scores["clip"] for row in rows))[:clips]:
            same = [row for row in rows if row.scores["clip"] == clip]
            if len(same) <= left:
                left -= len(same)
                parts.append(_clip(evaluation, same))
        progress()
    if content["left_out"]:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in content["left_out"])
        parts.append(f"<h2>Left out or not scored</h2><ul>{lines}</ul>")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head><body><h1>Evaluation of timbre transfers</h1>{''.join(parts)}</body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files may be any bytes


def _about(content: Mapping[str, Any]) -> str:
    settings = content["settings"]
    given = {
        key: settings[key] for key in ("pairs", "data", "outputs", "models", "sigma", "quality", "clips", "seconds")
    }
    text = ", ".join(f"{key}={value}" for key, value in given.items() if value is not None)
    return f"{text}. Intervals are 95 % bootstrap intervals over clips. Frechet distances: {content['embedder']}."


def _table(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><tr>{cells}</tr>{rows}</table>"


def _plots(groups: Sequence[Group], embedder: str) -> list[tuple[str, str, Picture]]:
    """(file name, title, picture)"""
    pictures = [("pairs", "Melody and sound of each pair", _pairs(groups, embedder))]
    if any(group.system.swept for group in groups):
        title = "Melody against timbre over the hand-off sigma"
        pictures.append(("trade_off", title, _trade_off(groups, embedder)))
    return pictures


def _pairs(groups: Sequence[Group], embedder: str) -> Picture:
    """DPD of each system, pairs side by side, and the distance to the target's sound."""
    names = list(dict.fromkeys(pair_name(group.pair) for group in groups))
    picture = Picture(figsize=(10, 6), layout="constrained")
    axes = picture.subplots(2, 1, sharex=True)
    labels = list(results.by_label(groups))
    for index, (label, same) in enumerate(results.by_label(groups).items()):
        at = np.array([names.index(pair_name(group.pair)) for group in same]) + 0.8 * (index / len(labels) - 0.5)
        for axis, score in zip(axes, ("dpd", "frechet"), strict=True):
            heights = [group.figures[score].value for group in same]
            axis.bar(at, heights, 0.8 / len(labels), label=label, align="edge")
    axes[0].set(ylabel="DPD, median")
    axes[1].set(ylabel=f"Frechet distance ({embedder})")
    axes[1].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
    axes[0].legend(fontsize="small")
    return picture


def _trade_off(groups: Sequence[Group], embedder: str) -> Picture:
    """A point for each hand-off sigma; identity and the true performance mark the ends."""
    scored = any(not math.isnan(group.figures["taken"].value) for group in groups)
    timbre, label = ("taken", "taken for the target") if scored else ("frechet", f"Frechet distance ({embedder})")
    picture = Picture(figsize=(7, 5), layout="constrained")
    axis = picture.subplots()
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for same in results.by_label(groups).values():
        system = same[0].system
        point = [average([group.figures[name] for group in same]).value for name in (timbre, "dpd")]
        curves.setdefault(system.name, []).append((system.sigma if system.swept else math.nan, *point))
    for name, points in curves.items():
        sigmas, x, y = zip(*sorted(points), strict=True)
        axis.plot(x, y, "o-", label=name)
        for sigma, *place in zip(sigmas, x, y, strict=True):
            if not math.isnan(sigma):
                axis.annotate(f"{sigma:g}", place, textcoords="offset points", xytext=(5, 5))
    axis.set(xlabel=label, ylabel="DPD, mean over pairs of medians")
    axis.grid(alpha=0.3)
    axis.legend()
    return picture


def _clip(evaluation: Evaluation, rows: Sequence[Row]) -> str:
    """Players of every system, and the pictures of input, outputs and true performance."""
    rate, first = evaluation.sample_rate, rows[0]
    sounds: dict[str, Tensor] = {"input": evaluation.given(first.item)[0]}
    sounds |= {row.item.system.label: evaluation.output(row.item) for row in rows}
    shown = {
        label: (wav[None], rate)
        for label, wav in sounds.items()
        if label in ("input", TRUTH) or not next(r for r in rows if r.item.system.label == label).item.system.reference
    }
    title = f"{first.scores['pair']}: {first.scores['clip']}"
    players = "".join(
        f'<div>{html.escape(label)}<br><audio controls preload="none" src="data:audio/mpeg;base64,{_mp3(wav, rate)}">'
        "</audio></div>"
        for label, wav in sounds.items()
        if label != CODEC
    )
    pictures = _image(plot_spectrograms(shown), "spectrograms") + _image(plot_pitch_tracks(shown), "pitch tracks")
    return f'<h2>{html.escape(title)}</h2><div class="clips">{players}</div>{pictures}'


def _mp3(wav: Tensor, sample_rate: int) -> str:
    """wav [T] -> base64 of an MP3."""
    file = io.BytesIO()
    soundfile.write(file, wav.numpy(), sample_rate, format="MP3")
    return base64.b64encode(file.getvalue()).decode()


def _image(picture: Picture, title: str) -> str:
    file = io.BytesIO()
    picture.savefig(file, format="jpeg", dpi=80, pil_kwargs={"quality": 85})  # a spectrogram's PNG is 8 times as large
    data = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{html.escape(title)}" src="data:image/jpeg;base64,{data}"></figure>'
