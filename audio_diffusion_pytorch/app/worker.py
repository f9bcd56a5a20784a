"""Work in a queue: one ticket at a time on each device, with progress and a cancel."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from audio_diffusion_pytorch.errors import InputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class Cancelled(BaseException):
    """End of cancelled work; not an `Exception`, because transfers collect those by file."""


class Ticket:
    """State of one piece of work.

    Args:
        is_live: whether the work is a live session.

    Attributes:
        is_live: as given.
        state: "waiting", "running", "done", "failed" or "cancelled".
        stage: description of the present step.
        done: finished units of the present step.
        total: units of the present step; 0: unknown.
        error: sentence for the user after a failure.
        results: results so far, in order.
        picture: picture of all results; None without one.
    """

    def __init__(self, is_live: bool = False) -> None:
        self.is_live = is_live
        self.state: State = "waiting"
        self.stage = ""
        self.done = 0
        self.total = 0
        self.error = ""
        self.results: list[Any] = []
        self.picture: Path | None = None
        self._started = 0.0
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the work waits or runs, and nobody cancelled it."""
        return self.state in ("waiting", "running") and not self._is_cancelled.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody cancelled the work."""
        return self._is_cancelled.is_set()

    def cancel(self) -> None:
        """Cancel the work: its next `check` ends it."""
        self._is_cancelled.set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody cancelled the work."""
        if self._is_cancelled.is_set():
            raise Cancelled

    def start_stage(self, stage: str, total: int = 0) -> None:
        """Begin a step.

        Args:
            stage: description for the user.
            total: units of the step; 0: unknown.
        """
        self.check()
        self.stage, self.done, self.total = stage, 0, total
        self._started = 0.0

    def advance(self, units: int = 1) -> None:
        """Count finished units of the step, from any thread."""
        self.check()
        with self._lock:
            self._started = self._started or time.monotonic()
            self.done += units

    @property
    def share(self) -> float | None:
        """Finished share of the step, 0 to 1; None if unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end of the step, at the speed so far; None if unknown."""
        share = self.share
        if not share or share < 0.05 or not self._started:
            return None
        return (time.monotonic() - self._started) * (1 - share) / share


Work = Callable[[Ticket, str], None]


class Workers:
    """Run tickets in the order of their submission, one at a time on each device.

    Args:
        devices: names of devices, as for `device=` of the commands.
        max_waiting: tickets that may wait.
    """

    def __init__(self, devices: Sequence[str] = ("auto",), max_waiting: int = 20):
        self.max_waiting = max_waiting
        self._free: SimpleQueue[str] = SimpleQueue()
        for device in devices:
            self._free.put(device)
        self._pool = ThreadPoolExecutor(len(devices), "transfer", self._take_device)
        self._own = threading.local()
        self._open: list[Ticket] = []
        self._lock = threading.Lock()

    def submit(self, work: Work, is_live: bool = False) -> Ticket:
        """Queue some work.

        Args:
            work: function of the ticket and of the device's name; an `InputError` becomes the
                ticket's error.
            is_live: whether the work is a live session.

        Returns:
            The ticket.

        Raises:
            InputError: too many tickets wait.
        """
        ticket = Ticket(is_live)
        with self._lock:
            waiting = self._waiting()
            if waiting >= self.max_waiting:
                raise InputError(f"{waiting} transfers are waiting: try again in a few minutes")
            self._open.append(ticket)
        self._pool.submit(self._run, ticket, work)
        return ticket

    @property
    def waiting(self) -> int:
        """Number of tickets that wait for a device."""
        with self._lock:
            return self._waiting()

    def _waiting(self) -> int:
        return sum(ticket.state == "waiting" and ticket.is_open for ticket in self._open)

    def ahead(self, ticket: Ticket) -> list[Ticket]:
        """Return the open tickets before a ticket."""
        with self._lock:
            before = self._open[: self._open.index(ticket)] if ticket in self._open else []
        return [other for other in before if other.is_open]

    def close(self) -> None:
        """Cancel all work, and wait for its end."""
        with self._lock:
            tickets = list(self._open)
        for ticket in tickets:
            ticket.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take_device(self) -> None:
        self._own.device = self._free.get()

    def _run(self, ticket: Ticket, work: Work) -> None:
        try:
            ticket.check()
            ticket.state = "running"
            work(ticket, self._own.device)
            ticket.check()
            ticket.state = "done"
        except Cancelled:
            ticket.state = "cancelled"
        except Exception as error:
            self._fail(ticket, error)
        finally:
            with self._lock:
                self._open.remove(ticket)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        """Describe an error; after a cancel it is a consequence, as of deleted files."""
        if ticket.is_cancelled:
            ticket.state = "cancelled"
            return
        ticket.error = str(error)
        if not isinstance(error, InputError):
            traceback.print_exception(error)
            ticket.error = f"unexpected {type(error).__name__}: {' '.join(str(error).split()[:40])}"
        ticket.state = "failed"
