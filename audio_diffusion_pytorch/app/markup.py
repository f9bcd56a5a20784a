"""HTML of the page. Every name of a file and every sentence is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from audio_diffusion_pytorch.app.catalog import Model
from audio_diffusion_pytorch.app.pictures import LEFT, RIGHT, SECONDS
from audio_diffusion_pytorch.app.recipes import command_line, python_lines
from audio_diffusion_pytorch.instruments import instrument_of
from audio_diffusion_pytorch.paths import ASSETS

if TYPE_CHECKING:
    from audio_diffusion_pytorch.app.transfers import Recording, Result
    from audio_diffusion_pytorch.app.worker import Ticket

FOLDER = ASSETS / "app"
ICONS = FOLDER / "icons"
OTHER = "other"  # picture of instruments without a drawing


def file_url(path: Path, root_path: str) -> str:
    """Return the address at which Gradio serves a file of the visitor."""
    return f"{root_path}/gradio_api/file={quote(str(path))}"


def problem(sentence: str) -> str:
    """Show an error, which a screen reader speaks at once."""
    text = escape(_sentence(sentence))
    return f'<div class="problem" role="alert"><p><strong>{text}</strong></p></div>'


def notice(sentence: str) -> str:
    """Show a warning."""
    return f'<div class="notice" role="status"><p>{escape(_sentence(sentence))}</p></div>'


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def recording_card(recording: Recording, root_path: str) -> str:
    """Describe an opened recording, with a player."""
    info = recording.info
    channels = {1: "mono", 2: "stereo"}.get(info.channels, f"{info.channels} channels")
    facts = f"{duration(info.seconds)}, {info.sample_rate / 1000:g} kHz, {channels}"
    name = escape(recording.name)
    player = ""
    if recording.player is not None:
        url = escape(file_url(recording.player, root_path))
        player = (
            f'<audio controls preload="metadata" src="{url}" aria-label="Your recording"></audio>'
        )
    return (
        f'<div class="recording" role="status"><p><strong>{name}</strong></p>'
        f"<p>{facts}. {escape(heard(recording))}</p>{player}</div>"
    )


def heard(recording: Recording) -> str:
    """Describe the recognised instrument in a sentence."""
    if recording.analysis.silent:
        return "The recording is silent."
    name = next(iter(recording.analysis.instruments), None)
    if name is None:
        return "Too short to recognise the instrument."
    return f"It sounds like a {name} ({recording.probability:.0%} sure)."


def waiting(ahead: Sequence[Ticket]) -> str:
    """Describe the work before a ticket in a sentence."""
    if any(ticket.is_live for ticket in ahead):
        return "Waiting: another visitor plays live"
    return f"Waiting: {len(ahead)} {'transfer' if len(ahead) == 1 else 'transfers'} before yours"


def progress(ticket: Ticket, ahead: Sequence[Ticket], step: str = "") -> str:
    """Show the progress of a ticket."""
    if ticket.state == "waiting" and ahead:
        text = waiting(ahead)
        return f'<div class="progress" role="status"><p>{text}</p><progress></progress></div>'
    share = ticket.share
    text = escape(f"{step}{ticket.stage or 'Starting'}")
    left = ticket.seconds_left
    rest = f", about {duration(left)} left" if left is not None and left >= 1 else ""
    value = "" if share is None else f' value="{share:.3f}"'
    percent = "" if share is None else f" {share:.0%}"
    return (
        f'<div class="progress"><p>{text}{percent}{rest}</p>'
        f'<progress max="1"{value} aria-label="Progress"></progress></div>'
    )


def duration(seconds: float) -> str:
    """Write seconds as `8.5 s` or `3:05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds // 60)}:{round(seconds % 60):02d} min"


def results(results: Sequence[Result], root_path: str, labels: Mapping[int, str] = {}) -> str:
    """Show input and outputs side by side: players, pictures, facts, files, recipes.

    Args:
        results: results of one recording, one or more.
        root_path: path of a reverse proxy.
        labels: index -> label of an output in the player.
    """
    recording = results[0].recording
    tracks = [_track("Your recording", recording.player, recording.picture, recording, root_path)]
    for index, result in enumerate(results):
        label = labels.get(index, title_of(result))
        tracks.append(_track(label, result.player, result.picture, recording, root_path))
    name = escape(results[0].files["wav"].parent.name)
    data = escape(json.dumps(tracks))
    cards = "".join(_card(result, root_path) for result in results)
    return (
        f'<section aria-label="Results"><ab-player data-name="{name}" data-tracks="{data}">'
        f'</ab-player><div class="outputs">{cards}</div></section>'
    )


def _track(
    label: str, sound: Path | None, picture: Path | None, recording: Recording, root_path: str
) -> dict[str, object]:
    track: dict[str, object] = {"label": label, "length": recording.info.seconds}
    track["src"] = "" if sound is None else file_url(sound, root_path)
    if picture is not None:
        track["picture"] = file_url(picture, root_path)
        track["seconds"] = min(recording.info.seconds, SECONDS)
        track["frame"] = [LEFT, RIGHT]
    return track


def title_of(result: Result) -> str:
    """Return the name of the output's instrument, with the amount of change if it was chosen."""
    name = instrument_title(result.request.target)
    return name if result.request.sigma is None else f"{name}, sigma {result.request.sigma:g}"


def instrument_title(model: str) -> str:
    """Return the name of a model for display: `all:double bass` -> `Double bass`."""
    name = model.removeprefix("all:").rstrip("/").split("/")[-1].removesuffix(".safetensors")
    return name[:1].upper() + name[1:]


def _card(result: Result, root_path: str) -> str:
    warning = notice(result.warning) if result.warning else ""
    rows = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts(result).items()
    )
    return (
        f'<article class="card"><h3>{escape(title_of(result))}</h3>{warning}'
        f"{_files(result, root_path)}<dl>{rows}</dl>{_recipes(result)}</article>"
    )


def facts(result: Result) -> dict[str, str]:
    """Describe what the transfer did."""
    found = result.facts
    octaves = found["octaves"]
    if octaves:
        count = f"{abs(octaves)} octave{'s' if abs(octaves) > 1 else ''}"
        moved = f"{count} {'up' if octaves > 0 else 'down'}, into its range"
    else:
        moved = "nothing"
    level = "as your recording"
    if found["softer_db"] >= 1:
        level = f"{found['softer_db']:.0f} dB softer than your recording, to avoid clipping"
    cents = found.get("cents") or 0
    tuning = "A = 440 Hz" if abs(cents) < 1 else f"{cents:+.0f} cents from A = 440 Hz, kept"
    rows = {
        "Instrument in the recording": _source_text(result),
        "Moved": moved,
        "Level": level,
        "Tuning": tuning,
        "Amount of change": f"sigma {found['sigma']:g}",
        "Time needed": f"{found['seconds']:.1f} s for {duration(found['duration'])} of sound",
    }
    for key, text in (("melody", "Notes kept"), ("target", "Sounds like the target")):
        if key in result.scores:
            rows[text] = f"{result.scores[key]:.0%}"
    return rows


def _source_text(result: Result) -> str:
    name = instrument_title(result.request.source).lower()
    best = result.facts.get("sounds_like")
    sure = result.facts.get("sounds_like_probability") or 0
    return f"{name}, {sure:.0%} sure" if best == name else name


def _files(result: Result, root_path: str) -> str:
    links = []
    for ending, path in result.files.items():
        url, name = escape(file_url(path, root_path)), escape(path.name)
        links.append(
            f'<a href="{url}" download="{name}" aria-label="Download {name}">{ending.upper()}</a>'
        )
    reasons = "".join(
        f'<p class="hint">No {ending} file: {escape(reason)}</p>'
        for ending, reason in result.missing.items()
    )
    return f'<div class="files" role="group" aria-label="Download">{"".join(links)}</div>{reasons}'


def _recipes(result: Result) -> str:
    name = result.recording.name
    output = result.files["wav"].name
    recipes = {
        "In a terminal": command_line(result.request, name, output),
        "In Python": python_lines(result.request, name, output),
    }
    blocks = "".join(_recipe(title, text) for title, text in recipes.items())
    return f"<details><summary>Do the same without this page</summary>{blocks}</details>"


def _recipe(title: str, text: str) -> str:
    return (
        f'<div class="recipe"><p>{title} <button type="button" data-copy="1" '
        f'aria-label="Copy: {title.lower()}">Copy</button></p>'
        f'<pre tabindex="0"><code>{escape(text)}</code></pre></div>'
    )


def history(entries: Iterable[Result], root_path: str) -> str:
    """Show the results of the visitor, the newest first."""
    cards = [_history_card(entry, root_path) for entry in entries][::-1]
    if not cards:
        return '<p class="hint">None yet: play a recording.</p>'
    return f'<div class="cards history">{"".join(cards)}</div>'


def _history_card(result: Result, root_path: str) -> str:
    name, title = escape(result.recording.name), escape(title_of(result))
    url = escape(file_url(result.player, root_path))
    return (
        f'<article class="card"><h3><span class="picture" style="{picture_style(title)}" '
        f'aria-hidden="true"></span><span>{title}<br><span class="kind">{name}</span></span></h3>'
        f'<audio controls preload="metadata" src="{url}" aria-label="{name} on {title}"></audio>'
        f"{_files(result, root_path)}</article>"
    )


def model_cards(models: Iterable[Model]) -> str:
    """Show the cards of models."""
    cards = "".join(_model_card(model) for model in models)
    return f'<div class="cards">{cards}</div>'


def _model_card(model: Model) -> str:
    rows = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in model.card.items()
    )
    return (
        f'<article class="card"><h3><span class="picture" style="{picture_style(model.title)}" '
        f'aria-hidden="true"></span><span>{escape(model.title)}<br>'
        f'<span class="kind">{escape(model.kind)}: {escape(model.value)}</span></span></h3>'
        f"<dl>{rows}</dl></article>"
    )


def picture_style(title: str) -> str:
    """Return the CSS variable of an instrument's picture."""
    return f"--picture: url(&quot;{_data_uri(title)}&quot;)"


def _data_uri(title: str) -> str:
    name = instrument_of(title) or OTHER
    path = ICONS / f"{name.replace(' ', '_')}.svg"
    if not path.is_file():
        path = ICONS / f"{OTHER}.svg"
    return f"data:image/svg+xml,{quote(path.read_text(encoding='utf-8').strip())}"


def style() -> str:
    """Return the style of the page, with the pictures of the instruments."""
    rules = [(FOLDER / "page.css").read_text(encoding="utf-8")]
    rules.append(f'.instruments label {{ --picture: url("{_data_uri(OTHER)}"); }}')
    for path in sorted(ICONS.glob("*.svg")):
        name = path.stem.replace("_", " ")
        rules.append(
            f'.instruments label:has(input[name$="{name}"], input[value$="{name}"])'
            f' {{ --picture: url("{_data_uri(name)}"); }}'
        )
    return "\n".join(rules)


def script() -> str:
    """Return the scripts of the page, for its head."""
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "live.js")]
    return "".join(f"<script>{text}</script>" for text in texts)


def live_panel(address: str) -> str:
    """Show the state of live playing; `live.js` fills it.

    Args:
        address: path of the visitor's connection.
    """
    return f'<live-panel data-address="{escape(address)}"></live-panel>'


def runs_table(rows: Sequence[Sequence[str]], folder: Path) -> str:
    """Show the states of trainings."""
    if not rows:
        return f'<p class="hint">No trainings below {escape(str(folder))}.</p>'
    titles = ("Training", "State", "Step", "Loss on held-out files", "Lowest of them", "Last log")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(path: Path, root_path: str, text: str) -> str:
    """Show a picture with a text for screen readers."""
    url = escape(file_url(path, root_path))
    return f'<img class="plot" src="{url}" alt="{escape(text)}">'


def sounds(files: Mapping[str, Path], root_path: str) -> str:
    """Show a player for each sound: label -> file."""
    players = "".join(
        f"<p>{escape(label)}</p>"
        f'<audio controls preload="none" src="{escape(file_url(path, root_path))}" '
        f'aria-label="{escape(label)}"></audio>'
        for label, path in files.items()
    )
    return f'<div class="card history">{players}</div>' if players else ""
