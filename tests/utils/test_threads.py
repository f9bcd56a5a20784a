"""One thread per available processor, one less for small networks; the user's number wins."""

import os

import pytest
import torch

from audio_diffusion_pytorch.utils import threads
from audio_diffusion_pytorch.utils.threads import available_cpus, set_threads

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


def test_threads_yield_unless_the_user_says_otherwise(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    threads.let_threads_yield()
    assert os.environ.pop("GOMP_SPINCOUNT") == "1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    threads.let_threads_yield()
    assert "GOMP_SPINCOUNT" not in os.environ


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


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_each_thread_computes_some_rows(rows, number):
    torch.set_num_threads(number)
    batch = torch.arange(rows * 6.0).reshape(rows, 2, 3)
    calls = []

    def double(part: torch.Tensor) -> torch.Tensor:
        calls.append((len(part), torch.get_num_threads(), torch.is_grad_enabled()))
        return 2 * part

    assert torch.equal(threads.map_rows(double, batch), 2 * batch)
    assert sum(length for length, *_ in calls) == rows
    if number > 1 and rows > 1:
        assert 1 < len(calls) <= min(number, rows)
        assert all(inner == number // min(number, rows) for _, inner, _ in calls)
        assert not any(grad for *_, grad in calls)
    assert torch.get_num_threads() == number


def test_rows_of_several_batches_stay_together():
    torch.set_num_threads(2)
    batch = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(threads.map_rows(torch.sub, batch, batch.clone()), torch.zeros(3, 2))


def test_an_error_of_a_thread_reaches_the_caller():
    torch.set_num_threads(2)

    def fail(part: torch.Tensor) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        threads.map_rows(fail, torch.zeros(2, 1))
