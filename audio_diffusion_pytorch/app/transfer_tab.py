"""Tab "Play": a recording, the new instruments, and the results side by side."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.recipes import Request
from audio_diffusion_pytorch.app.service import EXAMPLES, Service, example
from audio_diffusion_pytorch.app.transfers import Recording
from audio_diffusion_pytorch.app.working import follow, until_opened
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import MAX_OCTAVES

AUTO = "auto"
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
QUALITIES = [
    ("Instant: fastest", "instant"),
    ("Draft: fast", "draft"),
    ("Normal", "normal"),
    ("High: most exact, slowest", "high"),
]
SIGMA_LABEL = "How much to change (sigma)"
SIGMA_INFO = "Low keeps more of your recording. High changes more, and loses the melody at last."


def octave_choices() -> list[tuple[str, int | str]]:
    """Return the choices of octaves, with titles."""
    numbers = [number for number in range(-MAX_OCTAVES, MAX_OCTAVES + 1) if abs(number) <= 3]
    named: list[tuple[str, int | str]] = [("Automatic: into its range", AUTO)]
    for number in numbers:
        title = "None" if number == 0 else f"{abs(number)} {'up' if number > 0 else 'down'}"
        named.append((title, number))
    return named


def source_choices(service: Service, recording: Recording | None = None) -> list[tuple[str, str]]:
    """Return the choices of the source, the first of which is the recognised one."""
    first = "Recognise it"
    if recording is not None and recording.source is not None:
        name = markup.instrument_title(recording.source)
        first = f"Recognised: {name}, {recording.probability:.0%} sure"
    return [(first, AUTO), *service.catalog.choices()]


def other_choices(service: Service) -> list[tuple[str, str]]:
    """Return the instruments of the model of thirteen, and own models."""
    models = [*service.catalog.of_thirteen, *service.catalog.own]
    return [(model.title, model.value) for model in models]


def make_requests(
    targets: list[str],
    source: str | None,
    usual: bool,
    sigma: float,
    quality: str,
    octaves: int | Literal["auto"],
) -> list[Request]:
    """Make a request for each target."""
    amount = None if usual else float(sigma)
    moves: int | Literal["auto"] = "auto" if octaves == AUTO else int(octaves)
    return [Request(source or AUTO, target, amount, quality, moves) for target in targets]


def add_transfer_tab(service: Service, blocks: gr.Blocks) -> gr.HTML:
    """Add the controls of the tab.

    Args:
        service: recordings and transfers of the visitors.
        blocks: the page.

    Returns:
        The history, not yet placed.
    """
    root = service.settings.root_path
    history = gr.HTML(markup.history([], root), render=False, elem_id="history")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            gr.HTML('<div class="step-head"><h2>1. Your recording</h2></div>')
            upload = gr.File(
                label="Sound file, one voice at a time",
                height=150,
                elem_id="upload",
            )
            with gr.Accordion("Record with the microphone", open=False):
                microphone = gr.Audio(sources=["microphone"], type="filepath", label="Microphone")
            gr.HTML(
                '<p class="hint" id="examples-label">No recording at hand? Take an example:</p>'
            )
            with gr.Row(elem_id="examples"):
                examples = [
                    gr.Button(name.capitalize(), size="sm", min_width=80) for name in EXAMPLES
                ]
            card = gr.HTML(elem_id="recording")
            source = gr.Dropdown(
                source_choices(service),
                value=AUTO,
                label="Instrument in the recording",
                elem_id="source",
            )
        with gr.Column(min_width=300):
            gr.HTML('<div class="step-head"><h2>2. New instrument, one or more</h2></div>')
            targets = gr.CheckboxGroup(
                [(model.title, model.value) for model in service.catalog.shipped],
                value=["violin"],
                label="Play it on",
                elem_classes="instruments",
                elem_id="targets",
            )
            with gr.Accordion("More instruments and your own models (less exact)", open=False):
                others = gr.CheckboxGroup(
                    other_choices(service),
                    label="Play it also on",
                    elem_classes=["instruments", "small"],
                    elem_id="others",
                )
            with gr.Accordion("More settings", open=False):
                usual = gr.Checkbox(True, label="Usual amount of change for these instruments")
                sigma = gr.Slider(
                    0.5, 10, 4, step=0.5, label=SIGMA_LABEL, info=SIGMA_INFO, interactive=False
                )
                quality = gr.Radio(QUALITIES, value="normal", label="Quality (quality)")
                octaves = gr.Dropdown(
                    octave_choices(), value=AUTO, label="Octaves to move first (transpose)"
                )
            with gr.Row():
                play = gr.Button("Play it", variant="primary", elem_id="start", scale=3)
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", scale=1)
    status = gr.HTML(elem_id="status")
    results = gr.HTML(elem_id="results")

    usual.change(lambda on: gr.Slider(interactive=not on), usual, sigma, **HIDDEN)
    taken = [upload, microphone, card, source, status, results]

    async def take(path: str | None, request: gr.Request, name: str | None = None) -> list[Any]:
        """Open a recording."""
        if path is None:
            return [gr.skip()] * len(taken)
        session = request.session_hash or ""
        choices = partial(gr.Dropdown, value=AUTO)
        try:
            recording = await asyncio.to_thread(service.open, session, Path(path), name)
        except InputError as error:
            empty = choices(choices=source_choices(service))
            return [None, None, markup.problem(str(error)), empty, "", ""]
        found = choices(choices=source_choices(service, recording))
        return [None, None, markup.recording_card(recording, root), found, "", ""]

    async def take_recorded(path: str | None, request: gr.Request) -> list[Any]:
        return await take(path, request, "microphone.wav")

    def taker(instrument: str):
        async def take_example(request: gr.Request) -> list[Any]:
            path = example(instrument)
            return await take(str(path), request, path.name)

        return take_example

    shown: dict[str, Any] = {**HIDDEN, "show_progress": "minimal", "show_progress_on": card}
    upload.upload(take, upload, taken, **shown)
    microphone.stop_recording(take_recorded, microphone, taken, **shown)
    for button, instrument in zip(examples, EXAMPLES, strict=True):
        button.click(taker(instrument), None, taken, **shown)

    async def run(
        chosen: list[str],
        also: list[str],
        named: str,
        is_usual: bool,
        amount: float,
        accuracy: str,
        moves: Any,
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        """Transfer, and show the progress and the results."""
        session = request.session_hash or ""
        requests = make_requests([*chosen, *(also or [])], named, is_usual, amount, accuracy, moves)
        busy = [gr.Button(interactive=False), gr.Button(interactive=True)]
        idle = [gr.Button(interactive=True), gr.Button(interactive=False)]
        await until_opened(service, session)
        try:
            ticket = service.transfer(session, requests)
        except InputError as error:
            yield [markup.problem(str(error)), gr.skip(), *idle, gr.skip()]
            return
        visitor = service.storage.visitor(session)
        first = True
        async for look in follow(service, ticket, len(requests)):
            found: Any = "" if first and not ticket.results else gr.skip()
            past: Any = gr.skip()
            if look.has_news:
                found = markup.results(ticket.results, root)
                past = markup.history(visitor.history, root)
            yield [look.status, found, *(idle if look.is_over else busy), past]
            first = False

    inputs = [targets, others, source, usual, sigma, quality, octaves]
    play.click(run, inputs, [status, results, play, cancel, history], **HIDDEN)

    def stop(request: gr.Request) -> None:
        service.storage.visitor(request.session_hash or "").cancel()

    cancel.click(stop, None, None, queue=False, **HIDDEN)

    def refresh() -> list[Any]:
        """Offer models that appeared since the start."""
        return [
            gr.CheckboxGroup(choices=other_choices(service)),
            gr.Dropdown(choices=source_choices(service)),
        ]

    blocks.load(refresh, None, [others, source], **HIDDEN)
    return history
