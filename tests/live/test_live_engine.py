"""The engine: constant delay, dropouts, a machine that is too slow, dry and wet."""

import time

import numpy as np
import pytest
import torch

from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes
from audio_diffusion_pytorch.live.engine import LiveEngine, soft_limit

RATE = 8000
SIZES = HopSizes(32, 8, 8, 0.01)
HOP = 640  # samples


class Echo:
    """Return the sound of each hop unchanged, after `seconds` of computing."""

    sizes = SIZES

    def __init__(self, seconds: float = 0.0, fails: bool = False):
        self.seconds = seconds
        self.fails = fails
        self.held = torch.zeros(1, 0)
        self.skipped = 0

    def add(self, block: torch.Tensor, skip: bool = False) -> torch.Tensor:
        if self.fails:
            raise RuntimeError("broken")
        self.held = torch.cat([self.held, block], 1)
        whole = self.held.shape[1] // HOP * HOP
        out, self.held = self.held[:, :whole], self.held[:, whole:]
        if whole and skip:
            self.skipped += 1
            return 0 * out
        if whole:
            time.sleep(self.seconds)
        return out


def played(engine: LiveEngine, wav: np.ndarray, size: int, wait: bool = True) -> np.ndarray:
    """The output for an input [n], of its length."""
    out = []
    with engine:
        for start in range(0, len(wav), size):
            out.append(engine.exchange(wav[start : start + size, None]))
            if wait:
                engine.drain()
    return np.concatenate(out)[:, 0]


@pytest.fixture
def wav() -> np.ndarray:
    return (0.5 * np.random.default_rng(0).uniform(-1, 1, 3 * RATE)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 100, 512])
def test_the_delay_is_constant(size, wav):
    wav = wav[: 20 * size] if size == 1 else wav
    engine = LiveEngine(Echo(), SIZES, RATE, block=size)
    out = played(engine, wav, size)
    assert engine.delay == round(SIZES.latency_seconds * RATE) + size
    assert not out[: engine.delay].any() and engine.state.dropouts == 0
    assert np.allclose(out[engine.delay :], wav[: len(out[engine.delay :])])


def test_dry_and_wet_have_one_delay(wav):
    for wet in (0.0, 0.3):
        engine = LiveEngine(Echo(), SIZES, RATE, wet=wet)
        out = played(engine, wav, 512)
        assert np.allclose(out[engine.delay :], wav[: -engine.delay], atol=1e-6)


def test_a_slow_machine_is_told_and_the_delay_stays(wav):
    """Late hops become silence, and nothing waits."""
    transfer = Echo(seconds=2 * SIZES.hop_seconds)
    engine = LiveEngine(transfer, SIZES, RATE)
    out = []
    with engine:
        for start in range(0, len(wav), 400):  # as fast as possible: also too fast
            out.append(engine.exchange(wav[start : start + 400, None]))
            time.sleep(0.02)
        engine.drain()
        state = engine.state
    out = np.concatenate(out)[:, 0]
    assert len(out) == len(wav)
    assert state.dropouts > 0 and state.dropped_seconds > 0 and transfer.skipped > 0
    heard = np.flatnonzero(out)
    assert np.allclose(out[heard], wav[heard - engine.delay])
    assert state.load > 1
    assert "use latency=" in engine.advice() and "quality=instant" in engine.advice()


def test_too_slow_needs_two_seconds_and_a_dropout(wav):
    engine = LiveEngine(Echo(seconds=2 * SIZES.hop_seconds), SIZES, RATE)
    with engine:
        seen = []
        for start in range(0, len(wav), 400):
            engine.exchange(wav[start : start + 400, None])
            time.sleep(0.02)
            seen.append((engine.state.seconds, engine.state.too_slow))
    assert not any(slow for seconds, slow in seen if seconds < 2) and seen[-1][1]


def test_an_error_of_the_bridge_is_kept(wav):
    engine = LiveEngine(Echo(fails=True), SIZES, RATE)
    out = played(engine, wav[:2000], 500)
    assert isinstance(engine.failure, RuntimeError) and not out.any()


def test_a_bridge_that_is_chosen_on_the_first_sound(wav):
    """Silence until then; afterwards the same delay."""
    heard = 0

    def choose(block: torch.Tensor) -> Echo | None:
        nonlocal heard
        heard += block.shape[1]
        return Echo() if heard > RATE else None

    engine = LiveEngine(choose, SIZES, RATE)
    out = played(engine, wav, 500)
    start = engine.delay + RATE + 500
    assert not out[: engine.delay + RATE - 500].any()
    assert np.allclose(out[start:], wav[start - engine.delay : len(wav) - engine.delay])


def test_loud_and_broken_samples():
    wav = np.array([-3.0, -0.9, -0.8, 0.0, 0.5, 0.8, 1.0, 2.0])
    out = soft_limit(wav)
    assert np.abs(out).max() <= 1 and (np.diff(out) > 0).all()
    assert np.array_equal(out[2:6], wav[2:6])
    for broken in (np.nan, np.inf, 1e38):
        engine = LiveEngine(Echo(), SIZES, RATE)
        out = played(engine, np.full(RATE, broken, np.float32), 500)
        assert np.abs(out).max() <= 1


def test_levels_for_the_display(wav):
    engine = LiveEngine(Echo(), SIZES, RATE)
    played(engine, wav, 500)
    state = engine.state
    assert state.seconds == 3.0
    assert state.level_in == pytest.approx(0.5 / 3**0.5, rel=0.1) == state.level_out
