"""Tabs "Models", "Trainings" and "For scripts"."""

from pathlib import Path
from typing import Any

import gradio as gr

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.pictures import draw_losses
from audio_diffusion_pytorch.app.runs import Run, find_runs, read_curves, rows
from audio_diffusion_pytorch.app.scripts_api import EXAMPLE
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.transfer_tab import HIDDEN

_PREVIEWS = 6  # sounds of a training that are shown


def add_models_tab(service: Service, tab: gr.Tab) -> None:
    """Add the cards of all models; those of own models are read whenever the tab opens."""
    catalog = service.catalog
    gr.HTML(
        '<div class="step-head"><h2>Models that ship</h2></div>'
        f"{markup.model_cards(catalog.shipped)}"
    )
    with gr.Accordion("Instruments of the model of thirteen", open=False):
        gr.HTML(markup.model_cards(catalog.of_thirteen))
    own = gr.HTML(_own_models(service), elem_id="own-models")
    tab.select(lambda: _own_models(service), None, own, **HIDDEN)


def _own_models(service: Service) -> str:
    models = service.catalog.own
    head = '<div class="step-head"><h2>Your own models</h2></div>'
    if models:
        return head + markup.model_cards(models)
    folder = markup.escape(str(service.settings.models))
    return (
        f'{head}<p class="hint">None below {folder}. Train one (python train.py exp=flute_small '
        "dataset_path=FOLDER), or start the page with models=FOLDER.</p>"
    )


def add_runs_tab(service: Service, tab: gr.Tab) -> None:
    """Add the table of trainings, and curves and previews of a chosen one."""
    root = service.settings.root_path
    folder = service.settings.logs
    gr.HTML(
        '<div class="step-head"><h2>Trainings on this machine</h2></div><p class="hint">State and '
        "loss of each training. This page does not change them.</p>"
    )
    table = gr.HTML(elem_id="runs")
    choice = gr.Dropdown([], label="Show the curves of", elem_id="run", visible=False)
    details = gr.HTML(elem_id="run-details")

    def refresh() -> list[Any]:
        runs = find_runs(folder)
        names = [(run.path.relative_to(folder).as_posix(), str(run.path)) for run in runs]
        first = names[0][1] if names else None
        listed = gr.Dropdown(choices=names, value=first, visible=bool(names))
        return [markup.runs_table(list(rows(runs)), folder), listed]

    def show(path: str | None, request: gr.Request) -> str:
        run = next((run for run in find_runs(folder) if str(run.path) == path), None)
        if run is None:
            return ""
        place = service.storage.visitor(request.session_hash or "").new_folder()
        return _curves(run, place, root)

    tab.select(refresh, None, [table, choice], **HIDDEN)
    choice.change(show, choice, details, **HIDDEN)


def _curves(run: Run, place: Path, root: str) -> str:
    """Draw the losses of a run, and show its previews."""
    curves = read_curves(run)
    parts = []
    if any(curves.losses.values()):
        path = draw_losses(curves.losses, place / "losses.png")
        text = f"Loss of {run.path.name} over its steps: training and held-out files"
        parts.append(markup.picture(path, root, text))
    files = {}
    previews = sorted(curves.sounds.items(), key=lambda item: not item[0].startswith("preview"))
    for number, (tag, (step, sound)) in enumerate(previews[:_PREVIEWS]):
        path = place / f"preview_{number}.wav"
        path.write_bytes(sound)
        files[f"{tag}, step {step:,}"] = path
    return "".join(parts) + markup.sounds(files, root)


def add_scripts_tab(service: Service) -> None:
    """Add the description of the API."""
    gr.Markdown(
        "## The same from a script\n\n"
        "Install `gradio_client`, and use the address of this page. Calls wait in one queue with "
        "visitors. Their files are deleted after use. The function returns the file and the facts."
    )
    gr.Code(EXAMPLE, language="python", label="Python", interactive=False)
