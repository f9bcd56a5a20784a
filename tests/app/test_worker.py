"""The queue: order, progress, cancel, limits, several devices."""

import threading
import time
from collections.abc import Iterator

import pytest

from audio_diffusion_pytorch.app.worker import Ticket, Workers
from audio_diffusion_pytorch.errors import InputError

LIMIT = 20  # seconds until a test gives up


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(("cpu",), max_waiting=2)
    yield made
    made.close()


def wait(ticket: Ticket) -> None:
    end = time.monotonic() + LIMIT
    while ticket.state in ("waiting", "running") and time.monotonic() < end:
        time.sleep(0.005)


def endless(ticket: Ticket, device: str) -> None:
    ticket.start_stage("endless", 10)
    while True:
        ticket.check()
        time.sleep(0.005)


def test_work_receives_its_device_and_leaves_results(workers):
    ticket = workers.submit(lambda ticket, device: ticket.results.append(device))
    wait(ticket)
    assert ticket.state == "done" and ticket.results == ["cpu"]


def test_tickets_run_in_order_one_at_a_time(workers):
    order: list[str] = []
    go = threading.Event()

    def first(ticket, device):
        go.wait(LIMIT)
        order.append("first")

    tickets = [workers.submit(first), workers.submit(lambda *_: order.append("second"))]
    assert workers.ahead(tickets[1]) == tickets[:1] and not workers.ahead(tickets[0])
    go.set()
    wait(tickets[1])
    assert order == ["first", "second"]


def test_two_devices_work_at_once():
    workers = Workers(("cuda:0", "cuda:1"))
    both = threading.Barrier(2, timeout=LIMIT)

    def work(ticket, device):
        both.wait()
        ticket.results.append(device)

    tickets = [workers.submit(work), workers.submit(work)]
    for ticket in tickets:
        wait(ticket)
    assert {ticket.results[0] for ticket in tickets} == {"cuda:0", "cuda:1"}
    workers.close()


def test_cancel_ends_running_and_waiting_work(workers):
    running, waiting = workers.submit(endless), workers.submit(endless)
    waiting.cancel()
    assert not waiting.is_open
    running.cancel()
    wait(running)
    wait(waiting)
    assert running.state == waiting.state == "cancelled" and not running.error


def test_too_many_waiting_tickets_are_refused(workers):
    tickets = [workers.submit(endless)]
    while tickets[0].state == "waiting":
        time.sleep(0.005)
    tickets += [workers.submit(endless) for _ in range(2)]
    with pytest.raises(InputError, match="2 transfers are waiting: try again"):
        workers.submit(endless)
    tickets[1].cancel()
    tickets.append(workers.submit(endless))


def test_errors_become_sentences(workers, capsys):
    def refuse(ticket, device):
        raise InputError("that is wrong")

    def fail(ticket, device):
        raise KeyError("x")

    refused, failed = workers.submit(refuse), workers.submit(fail)
    wait(failed)
    assert (refused.state, refused.error) == ("failed", "that is wrong")
    assert failed.error == "unexpected KeyError: 'x'"
    assert "KeyError" in capsys.readouterr().err


def test_progress():
    ticket = Ticket()
    assert ticket.share is None and ticket.seconds_left is None
    ticket.start_stage("play", 4)
    ticket.advance(2)
    assert ticket.share == 0.5
    time.sleep(0.01)
    assert ticket.seconds_left > 0
    ticket.start_stage("draw")
    assert ticket.share is None and ticket.done == 0


def test_closing_cancels_everything():
    workers = Workers()
    tickets = [workers.submit(endless) for _ in range(3)]
    workers.close()
    assert not any(ticket.is_open for ticket in tickets)
