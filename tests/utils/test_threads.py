"""As many threads as there are processors to use; one less for small networks; the user's number wins."""

import os

import pytest
import torch

from audio_diffusion_pytorch.utils import threads
from audio_diffusion_pytorch.utils.threads import ThreadGuard, available_cpus, set_threads

SMALL, LARGE = 3_000_000, 302_000_000


@pytest.fixture(autouse=True)
def number_of_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def processors(monkeypatch, tmp_path):
    """`processors(4)`: this process may use four."""
    monkeypatch.setattr(threads, "_QUOTAS", ())

    def have(count: int) -> None:
        monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)

    return have


@pytest.mark.parametrize(
    ("cpus", "size", "processes", "expected"),
    [
        (1, SMALL, 1, 1),
        (2, SMALL, 1, 1),
        (2, LARGE, 1, 2),
        (4, LARGE, 1, 4),
        (4, SMALL, 1, 3),
        (4, 0, 1, 3),
        (4, SMALL, 2, 2),
        (4, LARGE, 3, 1),
        (2, SMALL, 9, 1),
    ],
)
def test_small_networks_leave_a_core_to_the_loader(cpus, size, processes, expected, processors):
    processors(cpus)
    assert set_threads(size, processes, spare=True) == torch.get_num_threads() == expected
    assert set_threads(size, processes) == max(1, cpus // processes)


def test_a_thread_gives_way_to_another_program(monkeypatch):
    """... and is tried again after a while."""
    now, waited = [0.0], [0.0]
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(threads, "_waited", lambda: waited[0])
    torch.set_num_threads(2)
    guard, net = ThreadGuard(), torch.nn.Linear(1, 1)
    guard.watch(net)

    def after(seconds: float, share: float) -> int:
        now[0] += seconds
        waited[0] += share * seconds
        net(torch.zeros(1, 1))
        return torch.get_num_threads()

    assert [after(1.0, 0.05), after(0.02, 1.0), after(1.0, 0.6)] == [2, 2, 1]
    assert [after(20.0, 0.0), after(11.0, 0.0), after(1.0, 0.05), after(1.0, 0.5)] == [1, 2, 2, 1]
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    guard = ThreadGuard()
    guard.watch(net)
    assert after(50.0, 1.0) == 2


@pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"),
    reason="this system does not say how long threads wait",
)
def test_waiting_for_a_processor_is_measured():
    before = threads._waited()
    assert before > 0 and threads._waited() >= before


def test_the_users_number_wins(processors, monkeypatch):
    processors(8)
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert set_threads(SMALL) == set_threads(SMALL, 2) == 2


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("cpu.max", "max 100000\n", 8),
        ("cpu.max", "200000 100000\n", 2),
        ("cpu.max", "150000 100000\n", 2),
        ("cpu.max", "10000 100000\n", 1),
        ("cpu.max", "1600000 100000\n", 8),
        ("cpu.max", "", 8),
        ("cpu.cfs_quota_us", "-1\n", 8),
        ("cpu.cfs_quota_us", "300000\n", 3),
    ],
)
def test_containers_grant_a_share_of_the_processors(
    name, text, expected, tmp_path, processors, monkeypatch
):
    (tmp_path / name).write_text(text)
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    processors(8)
    monkeypatch.setattr(threads, "_QUOTAS", (tmp_path / "none", tmp_path / name))
    assert available_cpus() == expected


def test_older_pythons_and_systems(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "_QUOTAS", ())
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_cpus() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1
