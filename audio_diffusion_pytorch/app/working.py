"""Follow a ticket in the page: progress, first results, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.service import Service
from audio_diffusion_pytorch.app.worker import Ticket

_INTERVAL = 0.1  # seconds between two looks at a ticket


@dataclass(frozen=True)
class Look:
    """State of a ticket at one moment.

    Args:
        status: HTML of the progress, the error or the end.
        has_news: whether results or pictures are new since the previous look.
        is_over: whether the work ended.
    """

    status: str
    has_news: bool
    is_over: bool


async def until_opened(service: Service, session: str) -> None:
    """Wait for a recording that the visitor has just chosen."""
    while service.storage.visitor(session).opening:
        await asyncio.sleep(_INTERVAL)


async def follow(service: Service, ticket: Ticket, of: int = 1) -> AsyncIterator[Look]:
    """Yield the changes of a ticket until its end.

    Args:
        service: the service.
        ticket: the ticket.
        of: number of transfers of the ticket.
    """
    shown, news = "", 0
    while ticket.is_open:
        done = len(ticket.results)
        step = f"{done + 1} of {of}: " if of > 1 and done < of else ""
        status = markup.progress(ticket, service.workers.ahead(ticket), step)
        if status != shown or _news(ticket) != news:
            yield Look(status, _news(ticket) != news, False)
            shown, news = status, _news(ticket)
        await asyncio.sleep(_INTERVAL)
    yield Look(_end(ticket), _news(ticket) != news or bool(ticket.results), True)


def _news(ticket: Ticket) -> int:
    """Count results and pictures."""
    drawn = sum(result.picture is not None for result in ticket.results)
    return len(ticket.results) + drawn + (ticket.picture is not None)


def _end(ticket: Ticket) -> str:
    if ticket.is_cancelled:
        return markup.notice("Cancelled. Finished results stay, nothing else was written")
    if ticket.error:
        return markup.problem(ticket.error)
    return ""
