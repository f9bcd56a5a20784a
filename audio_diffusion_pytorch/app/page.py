"""The page: its tabs and its looks."""

from typing import Any

import gradio as gr

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.compare_tab import add_compare_tab
from audio_diffusion_pytorch.app.info_tabs import add_models_tab, add_runs_tab, add_scripts_tab
from audio_diffusion_pytorch.app.live_tab import add_live_tab
from audio_diffusion_pytorch.app.scripts_api import add_api
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.transfer_tab import add_transfer_tab

TITLE = "Play it on another instrument"
_HEAD = f"""\
<header class="page-head"><h1>{TITLE}</h1>
<p>The melody stays, the instrument changes.
Your recordings stay on the machine that runs this page.</p></header>"""

_HISTORY = """\
<div class="step-head"><h2>Your results</h2></div>
<p class="hint">The newest first. They stay until you close the page.</p>"""


def build(service: Service) -> gr.Blocks:
    """Build the page.

    Args:
        service: recordings and transfers of the visitors.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(_HEAD)
        with gr.Tabs():
            with gr.Tab("Play", id="play"):
                history = add_transfer_tab(service, blocks)
            with gr.Tab("Live", id="live"):
                add_live_tab(service, blocks)
            with gr.Tab("Compare", id="compare"):
                add_compare_tab(service, blocks, history)
            with gr.Tab("History", id="history"):
                gr.HTML(_HISTORY)
                history.render()
            with gr.Tab("Models", id="models") as tab:
                add_models_tab(service, tab)
            with gr.Tab("Trainings", id="trainings") as tab:
                add_runs_tab(service, tab)
            with gr.Tab("For scripts", id="scripts"):
                add_scripts_tab(service)
        add_api(service)

        def leave(request: gr.Request) -> None:
            service.storage.forget(request.session_hash or "")

        blocks.unload(leave)
    return blocks


def looks() -> dict[str, Any]:
    """Return the arguments of `launch` for theme, style and script."""
    fonts = ["system-ui", "sans-serif"]
    mono = ["ui-monospace", "monospace"]
    theme = gr.themes.Default(primary_hue="blue", font=fonts, font_mono=mono).set(
        # the theme's greys are too pale to read
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
    )
    return {"theme": theme, "css": markup.style(), "head": markup.script()}
