"""API of the page for `gradio_client`."""

import asyncio
from pathlib import Path
from typing import Any

import gradio as gr

from audio_diffusion_pytorch.app.recipes import FORMATS, Request
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_choice, check_number

EXAMPLE = """\
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860/")
print([model["name"] for model in client.predict(api_name="/models")])
print(client.predict(handle_file("my_flute.wav"), api_name="/recognise"))
file, facts = client.predict(
    recording=handle_file("my_flute.wav"),
    target="violin",
    source="auto",  # or a name of /models
    sigma=4,  # or "auto": the usual amount of change
    quality="draft",  # instant, normal, high
    octaves="auto",  # into the range of the target; or a number
    file_format="wav",  # flac, mp3
    api_name="/transfer",
)
print(file, facts["seconds"])
"""
_INTERVAL = 0.05  # seconds between two looks at a ticket


def number(text: str | None) -> float | int | str:
    """Read a number; other texts stay, and a missing one becomes "auto"."""
    if not text:
        return "auto"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def add_api(service: Service) -> None:
    """Add the functions `/transfer`, `/recognise` and `/models`, without controls.

    Args:
        service: recordings and transfers.
    """

    async def transfer(
        recording: str | None,
        target: str,
        source: str,
        sigma: str,
        quality: str,
        octaves: str,
        file_format: str,
        request: gr.Request,
    ) -> tuple[str, dict[str, Any]]:
        """Play a recording on another instrument; returns the file and the facts."""
        session = request.session_hash or ""
        try:
            return await run(
                session, recording, target, source, sigma, quality, octaves, file_format
            )
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    async def run(
        session: str,
        recording: str | None,
        target: str,
        source: str | None,
        sigma: str,
        quality: str | None,
        octaves: str,
        file_format: str | None,
    ) -> tuple[str, dict[str, Any]]:
        if recording is None:
            raise InputError("recording is missing: give handle_file(PATH)")
        ending = file_format or "wav"
        check_choice("format", ending, FORMATS)
        amount, moves = number(sigma), number(octaves)
        check_number("sigma", amount, above=0, allowed=("auto",))
        check_number("octaves", moves, whole=True, allowed=("auto",))
        wanted = Request(
            source or "auto",
            target or "",
            None if amount == "auto" else float(amount),
            quality or "normal",
            "auto" if moves == "auto" else int(moves),
        )
        await asyncio.to_thread(service.open, session, Path(recording))
        visitor = service.storage.visitor(session)
        ticket = service.transfer(session, [wanted])
        while ticket.is_open and not ticket.results:
            await asyncio.sleep(_INTERVAL)
        if not ticket.results:
            raise InputError(ticket.error or "cancelled")
        result = ticket.results[0]
        service.drop(visitor)  # the upload, and the pictures that nobody looks at
        if ending not in result.files:
            raise InputError(result.missing[ending])
        return str(result.files[ending]), {**result.facts, "warning": result.warning}

    async def recognise(recording: str | None, request: gr.Request) -> dict[str, float]:
        """Return the probability of each instrument in a recording."""
        session = request.session_hash or ""
        try:
            if recording is None:
                raise InputError("recording is missing: give handle_file(PATH)")
            opened = await asyncio.to_thread(service.open, session, Path(recording))
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        service.drop(service.storage.visitor(session))
        return {name: round(value, 4) for name, value in opened.analysis.instruments.items()}

    def models() -> list[dict[str, Any]]:
        """List the models: name for source and target, title, kind, card."""
        return [
            {"name": m.value, "title": m.title, "kind": m.kind, "card": dict(m.card)}
            for m in service.catalog.models
        ]

    with gr.Group(visible=False):
        file = gr.File(label="recording")
        target = gr.Textbox(label="target")
        source = gr.Textbox("auto", label="source")
        sigma = gr.Textbox("auto", label="sigma")
        quality = gr.Textbox("normal", label="quality")
        octaves = gr.Textbox("auto", label="octaves")
        ending = gr.Textbox("wav", label="file_format")
        written = gr.File(label="file")
        facts = gr.JSON(label="facts")
        inputs = [file, target, source, sigma, quality, octaves, ending]
        gr.Button().click(transfer, inputs, [written, facts], api_name="transfer")
        gr.Button().click(recognise, file, facts, api_name="recognise")
        gr.Button().click(models, None, facts, api_name="models")
