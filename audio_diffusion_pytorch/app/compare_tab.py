"""Tab "Compare": one recording at several amounts of change, with a plot of the trade-off."""

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.recipes import Request
from audio_diffusion_pytorch.app.service import SIGMAS, Service
from audio_diffusion_pytorch.app.transfer_tab import AUTO, HIDDEN
from audio_diffusion_pytorch.app.working import follow, until_opened
from audio_diffusion_pytorch.errors import InputError

_TEXT = f"""\
<div class="step-head"><h2>How much to change?</h2></div>
<p>Plays your recording at {len(SIGMAS)} amounts of change (sigma {SIGMAS[0]:g} to {SIGMAS[-1]:g}).
A low amount keeps more of your recording; a high amount sounds more like the new instrument, until
notes get lost. The plot shows both shares, as the program judges them. The recording is that of the
tab Play. The number keys change between the versions.</p>"""
_ALT = "Shares of kept notes and of likeness to the target at each amount of change"


def add_compare_tab(service: Service, blocks: gr.Blocks, history: gr.HTML) -> None:
    """Add the controls of the tab.

    Args:
        service: recordings and transfers of the visitors.
        blocks: the page.
        history: results of the visitor.
    """
    root = service.settings.root_path
    gr.HTML(_TEXT)
    with gr.Row(equal_height=False):
        target = gr.Dropdown(
            service.catalog.choices(),
            value="violin",
            label="New instrument",
            scale=3,
            min_width=320,
        )
        start = gr.Button("Compare", variant="primary", elem_id="compare-start", min_width=120)
        cancel = gr.Button("Cancel", interactive=False, elem_id="compare-cancel", min_width=120)
    status = gr.HTML(elem_id="compare-status")
    plot = gr.HTML(elem_id="trade-off")
    results = gr.HTML(elem_id="compare-results")

    async def run(chosen: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        session = request.session_hash or ""
        busy = [gr.Button(interactive=False), gr.Button(interactive=True)]
        idle = [gr.Button(interactive=True), gr.Button(interactive=False)]
        title = markup.instrument_title(chosen)
        await until_opened(service, session)
        try:
            ticket = service.compare(session, Request(AUTO, chosen), title.lower())
        except InputError as error:
            yield [markup.problem(str(error)), "", gr.skip(), *idle, gr.skip()]
            return
        visitor = service.storage.visitor(session)
        first = True
        async for look in follow(service, ticket, len(SIGMAS)):
            found: Any = "" if first else gr.skip()
            drawn: Any = "" if first else gr.skip()
            past: Any = gr.skip()
            if look.has_news:
                labels = {i: f"sigma {r.request.sigma:g}" for i, r in enumerate(ticket.results)}
                found = markup.results(ticket.results, root, labels)
                past = markup.history(visitor.history, root)
            if ticket.picture is not None:
                drawn = markup.picture(ticket.picture, root, _ALT)
            yield [look.status, drawn, found, *(idle if look.is_over else busy), past]
            first = False

    start.click(run, target, [status, plot, results, start, cancel, history], **HIDDEN)

    def stop(request: gr.Request) -> None:
        service.storage.visitor(request.session_hash or "").cancel()

    cancel.click(stop, None, None, queue=False, **HIDDEN)
    blocks.load(lambda: gr.Dropdown(choices=service.catalog.choices()), None, target, **HIDDEN)
