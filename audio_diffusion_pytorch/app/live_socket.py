"""The connection of a live session: settings, then sound in both directions, and the state.

Gradio's own streams are files of some seconds, so their delay is neither short nor constant.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.live_play import BLOCK, MARGIN, LivePlay
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.errors import InputError

PATH = "/live"
_INTERVAL = 0.2  # seconds between two messages about the state
_PATIENCE = 10.0  # seconds until the settings must arrive


def live_route(service: Service) -> WebSocketRoute:
    """Return the route `/live/TOKEN`.

    The token stands in the page of a visitor. Other pages do not have it, so they cannot connect.

    Args:
        service: live sessions of the visitors.
    """

    async def connect(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await _play(service, socket)
        except InputError as error:
            await _end(socket, str(error))
        except (WebSocketDisconnect, TimeoutError, asyncio.TimeoutError):
            pass

    return WebSocketRoute(f"{PATH}/{{token}}", connect)


async def _play(service: Service, socket: WebSocket) -> None:
    """Run a session until the browser or the server ends it."""
    session = service.storage.session_of(socket.path_params["token"])
    if session is None:
        raise InputError("this page is too old: load it again")
    message = _parsed(await asyncio.wait_for(socket.receive_text(), _PATIENCE))
    play, ticket = service.play_live(session, message)
    follower = asyncio.create_task(_follow(service, socket, play, ticket))
    try:
        while (received := await socket.receive())["type"] == "websocket.receive":
            if received.get("bytes") is not None:
                await socket.send_bytes(play.exchange(received["bytes"]))
            else:
                play.change(_parsed(received.get("text")))
    finally:
        ticket.cancel()
        follower.cancel()


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError as error:
        raise InputError("a message of a live session is not JSON") from error


async def _follow(service: Service, socket: WebSocket, play: LivePlay, ticket: Ticket) -> None:
    """Send the state until the end of a ticket, and its error."""
    is_ready = False
    with suppress(RuntimeError, WebSocketDisconnect):  # the browser has gone
        while ticket.is_open:
            message: dict[str, Any]
            if play.engine is None:
                message = {"state": "waiting", "text": _waiting(service, ticket)}
            elif not is_ready:
                is_ready = True
                rate = play.engine.sample_rate
                message = {"state": "ready", "delay": play.engine.delay / rate}
                message |= {"margin": round(MARGIN * rate), "block": BLOCK}
            else:
                message = {"state": "playing", **play.state}
            await socket.send_json(message)
            await asyncio.sleep(_INTERVAL)
        await _end(socket, ticket.error)


def _waiting(service: Service, ticket: Ticket) -> str:
    ahead = service.workers.ahead(ticket)
    if ticket.state == "waiting" and ahead:
        return markup.waiting(ahead)
    if ticket.total > 1 and ticket.done < ticket.total:
        return f"{ticket.stage}: {ticket.done + 1} of {ticket.total}"
    return ticket.stage or "Starting"


async def _end(socket: WebSocket, problem: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_json({"state": "ended", "problem": problem})
        await socket.close()
