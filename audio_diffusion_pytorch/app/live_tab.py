"""Tab "Live": from the microphone to the loudspeaker through the browser."""

from typing import Any

import gradio as gr

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.live_play import KEYS
from audio_diffusion_pytorch.app.live_socket import PATH
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.transfer_tab import AUTO, HIDDEN, QUALITIES, octave_choices

_TEXT = """\
<div class="step-head"><h2>Play into the microphone, hear another instrument</h2></div>
<p>You hear it a moment later, always with the same delay. Wear headphones: a microphone that
picks up the loudspeaker feeds the output back. Play one note at a time.</p>"""
_LATENCY_INFO = "Without your audio devices. A longer delay needs less computing."
_WET_INFO = "0: only your playing, 1: only the new instrument. Both have the same delay."


def add_live_tab(service: Service, blocks: gr.Blocks) -> None:
    """Add the controls of the tab.

    Args:
        service: live sessions of the visitors.
        blocks: the page.
    """
    gr.HTML(_TEXT)
    with gr.Row(equal_height=False):
        source = gr.Dropdown(
            _sources(service),
            value=AUTO,
            label="Your instrument",
            elem_id="live-source",
            min_width=280,
        )
        target = gr.Dropdown(
            service.catalog.choices(),
            value="violin",
            label="New instrument",
            elem_id="live-target",
            min_width=280,
        )
    wet = gr.Slider(
        0, 1, 1, step=0.05, label="Share of the new instrument (wet)", info=_WET_INFO,
        elem_id="live-wet",
    )  # fmt: skip
    with gr.Accordion("More settings", open=False, elem_id="live-more"):
        quality = gr.Radio([("Automatic", AUTO), *QUALITIES], value=AUTO, label="Quality (quality)")
        latency = gr.Slider(
            0.6, 3, 1, step=0.1, label="Longest delay in seconds (latency)", info=_LATENCY_INFO,
            elem_id="live-latency",
        )  # fmt: skip
        octaves = gr.Dropdown(
            octave_choices(), value=AUTO, label="Octaves to move first (transpose)"
        )
    with gr.Row():
        # live.js enables and disables both
        start = gr.Button(
            "Start", variant="primary", interactive=False, elem_id="live-start", scale=3
        )
        stop = gr.Button("Stop", interactive=False, elem_id="live-stop", scale=1)
    panel = gr.HTML(markup.live_panel(""), elem_id="live")

    controls = [source, target, quality, latency, wet, octaves]
    names = ["source", "target", "quality", "latency", "wet", "transpose"]
    assert set(names) <= set(KEYS)
    start.click(
        None, controls, None, js=f"(...values) => livePlay.start({names}, values)", **HIDDEN
    )
    stop.click(None, None, None, js="() => livePlay.stop()", **HIDDEN)
    wet.change(None, wet, None, js="(share) => livePlay.mix(share)", **HIDDEN)

    def load(request: gr.Request) -> list[Any]:
        """Give the page its connection, and offer models that appeared since the start."""
        token = service.storage.visitor(request.session_hash or "").token
        return [
            markup.live_panel(f"{service.settings.root_path}{PATH}/{token}"),
            gr.Dropdown(choices=_sources(service)),
            gr.Dropdown(choices=service.catalog.choices()),
        ]

    blocks.load(load, None, [panel, source, target], **HIDDEN)


def _sources(service: Service) -> list[tuple[str, str]]:
    return [("Recognise it in the first second", AUTO), *service.catalog.choices()]
