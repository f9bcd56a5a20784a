"""Write the report of an evaluation as one HTML file: tables, plots, pictures and players."""

import base64
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib.figure import Figure as Picture
from torch import Tensor

from audio_diffusion_pytorch.evaluation import results
from audio_diffusion_pytorch.evaluation.aggregate import Group, average
from audio_diffusion_pytorch.evaluation.runner import EvaluationRunner
from audio_diffusion_pytorch.evaluation.settings import CODEC, IDENTITY, TRUTH
from audio_diffusion_pytorch.evaluation.tasks import ScoredClip, pair_name
from audio_diffusion_pytorch.plots import plot_pitch_tracks, plot_spectrograms
from audio_diffusion_pytorch.utils import about
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import fingerprint

PLAYERS = 60  # most players on a page: about 0.1 MB each
_STYLE = """
:root { color-scheme: light dark;
        --text: #222; --faint: #666; --line: #ddd; --page: #fff; --box: #f5f5f5 }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --faint: #999; --line: #3a3a3a; --page: #161616; --box: #222 }
}
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1em;
       color: var(--text);
  background: var(--page); overflow-wrap: anywhere }
h1 { font-size: 1.5em; margin: 0 } h2 { font-size: 1.15em; margin: 2em 0 .5em }
.about { color: var(--faint); margin: .3em 0 }
.table { overflow-x: auto; max-width: 100% }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums }
th, td { padding: 3px 10px; border-bottom: 1px solid var(--line); text-align: right;
         white-space: nowrap }
th { vertical-align: bottom } tr.system td { font-weight: 600 }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
                                 background: var(--page); padding-left: 0 }
figure { margin: 1em 0 } img { max-width: 100%; height: auto; border-radius: 4px }
.clips { display: grid; gap: .8em;
         grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)) }
.clips > div { background: var(--box); border-radius: 6px; padding: .5em .7em }
audio { width: 100%; display: block }
a { color: inherit }
"""


def write_report(
    runner: EvaluationRunner,
    groups: Sequence[Group],
    content: Mapping[str, Any],
    path: str | Path,
    clips: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Write the report, and its plots beside it (`pairs.png`, `trade_off.png`).

    Args:
        runner: returns the sounds.
        groups: groups with their figures.
        content: content of results.json.
        path: file of the report.
        clips: most excerpts of each pair that are shown and played; `PLAYERS` limits them, too.
        progress: called after each pair.

    Raises:
        InputError: a file cannot be written.
    """
    first, *further = results.all_tables(groups, content)
    systems = list(results.systems_of(groups))
    parts = [f'<p class="about">{html.escape(text)}</p>' for text in _about(content)]
    parts += [
        _table(*first, systems),
        *(_table(*found, systems) for found in further if _is_early(found[0])),
    ]
    for name in ("pairs", "trade_off"):  # remove plots of an earlier evaluation
        Path(path).with_name(f"{name}.png").unlink(missing_ok=True)
    for name, title, picture in _plots(groups, content["embedder"]):
        with atomic_write(Path(path).with_name(f"{name}.png")) as temporary:
            picture.savefig(temporary, dpi=100)
        parts.append(f"<h2>{html.escape(title)}</h2>{_image(picture, title)}")
    sounds = _Sounds()
    for pair in dict.fromkeys(group.pair for group in groups):
        rows = [row for group in groups if group.pair == pair for row in group.clips]
        for clip in list(dict.fromkeys(row.scores["clip"] for row in rows))[:clips]:
            same = [row for row in rows if row.scores["clip"] == clip]
            if len(sounds.places) + len(same) <= PLAYERS:
                parts.append(_clip(runner, same, sounds))
        progress()
    parts += [_table(*found, systems) for found in further if not _is_early(found[0])]
    if content["left_out"]:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in content["left_out"])
        parts.append(f"<h2>Left out or not scored</h2><ul>{lines}</ul>")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Evaluation of timbre transfers</h1>"
        f"{''.join(parts)}</body></html>\n"
    )
    with atomic_write(path) as temporary:
        # names of files may not be UTF-8
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _is_early(title: str) -> bool:
    """Return whether a table comes before the plots and the clips."""
    return title.endswith((": each pair", ": targets"))


def _about(content: Mapping[str, Any]) -> list[str]:
    settings = content["settings"]
    keys = ("pairs", "data", "outputs", "models", "sigma", "quality", "clips", "seconds")
    given = [f"{key}={settings[key]}" for key in keys if settings[key] is not None]
    return [
        about.line(content["made"]),
        ", ".join(given),
        "Intervals are 95 % bootstrap intervals over clips. "
        f"Frechet distances: {content['embedder']}. Arrows show "
        "the better direction.",
    ]


def _table(title: str, table: Sequence[Sequence[str]], systems: Sequence[str]) -> str:
    """Write a table in a box that scrolls on a narrow page; the rows of `systems` are bold."""
    head, *body = table
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rows = "".join(
        f"<tr{' class=system' if row[0] in systems else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in body
    )
    table = f"<table><tr>{cells}</tr>{rows}</table>"
    return f'<h2>{html.escape(title)}</h2><div class="table">{table}</div>'


def _plots(groups: Sequence[Group], embedder: str) -> list[tuple[str, str, Picture]]:
    """Draw the plots: file name, title and picture of each."""
    scores = [
        name
        for name in ("dpd", "frechet")
        if any(_known(group.figures[name].value) for group in groups)
    ]
    pictures = [("pairs", "Each pair", _pairs(groups, scores, embedder))] if scores else []
    if any(group.system.swept for group in groups):
        title = "Melody against timbre over the hand-off sigma"
        pictures += [("trade_off", title, picture) for picture in _trade_off(groups, embedder)]
    return pictures


def _known(value: float) -> bool:
    return not math.isnan(value)


def _pairs(groups: Sequence[Group], scores: Sequence[str], embedder: str) -> Picture:
    """Plot scores of each system, pairs side by side."""
    names = list(dict.fromkeys(pair_name(group.pair) for group in groups))
    picture = Picture(figsize=(10, 3 * len(scores)), layout="constrained")
    axes = picture.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    labels = list(results.by_label(groups))
    for index, (label, same) in enumerate(results.by_label(groups).items()):
        shift = 0.6 * ((index + 0.5) / len(labels) - 0.5)
        at = np.array([names.index(pair_name(group.pair)) for group in same]) + shift
        for axis, score in zip(axes, scores, strict=True):
            axis.plot(at, [group.figures[score].value for group in same], "o", label=label)
    titles = {"dpd": "DPD ↓, median", "frechet": f"Frechet distance ↓ ({embedder})"}
    for axis, score in zip(axes, scores, strict=True):
        axis.set(ylabel=titles[score])
        axis.grid(axis="y", alpha=0.3)
    axes[-1].set_xticks(range(len(names)), names, rotation=90 if len(names) > 6 else 0)
    axes[0].legend(fontsize="small")
    return picture


def _trade_off(groups: Sequence[Group], embedder: str) -> list[Picture]:
    """Plot a point for each noise level between identity and the true performance.

    Return an empty text without scores.
    """
    scored = any(_known(group.figures["taken"].value) for group in groups)
    timbre, label = (
        ("taken", "target accuracy ↑")
        if scored
        else ("frechet", f"Frechet distance ↓ ({embedder})")
    )
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for same in results.by_label(groups).values():
        system = same[0].system
        x, y = (average([group.figures[name] for group in same]).value for name in (timbre, "dpd"))
        if _known(x) and _known(y):
            sigma = system.sigma if system.swept and system.sigma is not None else math.nan
            curves.setdefault(system.name, []).append((sigma, x, y))
    if not curves:
        return []
    picture = Picture(figsize=(7, 5), layout="constrained")
    axis = picture.subplots()
    for name, points in curves.items():
        points.sort()
        axis.plot([x for _, x, _ in points], [y for _, _, y in points], "o-", label=name)
        for sigma, x, y in points:
            if _known(sigma):
                axis.annotate(f"{sigma:g}", (x, y), textcoords="offset points", xytext=(5, 5))
    axis.set(xlabel=label, ylabel="DPD ↓, mean over pairs of medians")
    axis.grid(alpha=0.3)
    axis.legend()
    return [picture]


@dataclass
class _Sounds:
    """The sounds of a page, each once.

    Attributes:
        places: digest of each sound -> its anchor and its name.
    """

    places: dict[str, tuple[str, str]] = field(default_factory=dict)

    def player(self, label: str, title: str, wav: Tensor, sample_rate: int) -> str:
        """Write a player of a sound [T], or a link to the player of an equal sound."""
        name = html.escape(label)
        content = fingerprint({"wav": wav})
        if content in self.places:
            place, where = self.places[content]
            return f'<div>{name}: <a href="#{place}">as {html.escape(where)}</a></div>'
        place = f"sound{len(self.places) + 1}"
        self.places[content] = place, f"{label}, {title}"
        source = f"data:audio/mpeg;base64,{_mp3(wav, sample_rate)}"
        return (
            f'<div id="{place}">{name}<audio controls preload="none" src="{source}"></audio></div>'
        )


def _clip(runner: EvaluationRunner, rows: Sequence[ScoredClip], played: _Sounds) -> str:
    """Write players of every system, and pictures of input, outputs and true performance."""
    rate = runner.sample_rate
    first = rows[0]
    sounds: dict[str, Tensor] = {"input": runner.read_input(first.task)[0]}
    sounds |= {
        row.task.system.label: runner.output(row.task)
        for row in rows
        if row.task.system.label not in (CODEC, IDENTITY)  # identity is the input
    }
    references = {row.task.system.label for row in rows if row.task.system.reference} - {TRUTH}
    shown = {label: (wav[None], rate) for label, wav in sounds.items() if label not in references}
    title = f"{first.scores['pair']}: {first.scores['clip']}"
    players = "".join(played.player(label, title, wav, rate) for label, wav in sounds.items())
    pictures = _image(plot_spectrograms(shown), f"spectrograms, {title}")
    tracks = plot_pitch_tracks(shown)
    if any(line.get_xdata().size for line in tracks.axes[0].lines):
        pictures += _image(tracks, f"pitch tracks, {title}")
    return f'<h2>{html.escape(title)}</h2><div class="clips">{players}</div>{pictures}'


def _mp3(wav: Tensor, sample_rate: int) -> str:
    """Encode a sound [T] as MP3 in base64."""
    file = io.BytesIO()
    soundfile.write(file, wav.numpy(), sample_rate, format="MP3")
    return base64.b64encode(file.getvalue()).decode()


def _image(picture: Picture, title: str) -> str:
    file = io.BytesIO()
    # a spectrogram is 8 times as large as PNG
    picture.savefig(file, format="jpeg", dpi=80, pil_kwargs={"quality": 85})
    data = base64.b64encode(file.getvalue()).decode()
    source = f"data:image/jpeg;base64,{data}"
    return f'<figure><img alt="{html.escape(title)}" src="{source}" loading="lazy"></figure>'
