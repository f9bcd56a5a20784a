"""Vibrato: what is removed from a recording comes back in the output."""

import numpy as np
import pytest
import torch
from conftest import RATE, TINY_UNET
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.hop_stream import HopTransfer
from audio_diffusion_pytorch.bridge.overlap_add import DECODE_CONTEXT
from audio_diffusion_pytorch.bridge.vibrato import LARGEST, bend, bend_of, straighten
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS, drop_melody, melody_input

HOP = 320
FRAME = HOP / RATE


def tone(hertz: float, rate: float, extent: float, seconds: float = 2.0) -> torch.Tensor:
    """A tone [T] with a vibrato of `extent` cents."""
    times = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (extent / 1200 * np.sin(2 * np.pi * rate * times)))
    sound = sum(np.sin(k * phase / RATE) / k for k in range(1, 8))
    return torch.from_numpy(0.1 * sound).float()


def window(wav: torch.Tensor) -> tuple[Window, torch.Tensor]:
    """A window of sound, and its melody."""
    melody = melody_input(wav[None], RATE, HOP)
    zeros = torch.zeros(melody.shape[-1])
    return (
        Window(0, 0, None, 1 - zeros, zeros, zeros, zeros, wav),
        drop_melody(melody, torch.tensor([False]))[0],
    )


def extent(cents: torch.Tensor, rate: float) -> float:
    """Extent of the movement at a rate, away from the ends."""
    inner = cents[20:-20].double()
    times = torch.arange(len(inner)) * FRAME
    return float(2 * (inner * torch.exp(2j * torch.pi * rate * times)).mean().abs())


@pytest.mark.parametrize(
    ("hertz", "rate", "cents"), [(220, 5.0, 40), (440, 6.5, 25), (880, 5.5, 35)]
)
def test_vibrato_is_removed_and_restored(hertz, rate, cents):
    wav = tone(hertz, rate, cents)
    given, melody = window(wav)
    straight, pitches = straighten(given, melody, RATE)
    assert extent(straight.bend, rate) == pytest.approx(cents, rel=0.2)
    left = bend_of(melody_input(straight.wav[None], RATE, HOP)[0], FRAME)
    assert extent(left, rate) < 0.3 * cents
    assert extent(bend_of(pitches[:-1], FRAME), rate) < 0.3 * cents  # its melody likewise
    back = bend(straight.wav[None], straight.bend[None], RATE)[0]
    inner = slice(HOP, -HOP)
    assert (back - wav)[inner].square().mean() < 1e-3 * wav[inner].square().mean()


def test_a_steady_tone_stays_as_it_is():
    given, melody = window(tone(440, 5.0, 0))
    assert all(
        a is b for a, b in zip(straighten(given, melody, RATE), (given, melody), strict=True)
    )
    wav = given.wav[None]
    assert bend(wav, torch.zeros(1, 150), RATE) is wav


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 90))
def test_any_melody_gives_a_limited_movement(seed, frames):
    generator = torch.Generator().manual_seed(seed)
    melody = torch.rand(MELODY_CHANNELS, frames, generator=generator) ** 4
    cents = bend_of(melody, FRAME)
    assert cents.shape == (frames,) and cents.isfinite().all() and cents.abs().max() <= LARGEST
    wav = torch.randn(2, frames * HOP, generator=generator)
    bent = bend(wav, torch.stack([cents, -cents]), RATE)
    assert bent.shape == wav.shape and bent.isfinite().all()
    assert bent.abs().max() < 2 * wav.abs().max()


def test_blocks_with_context_have_no_seams():
    frames = 4 * DECODE_CONTEXT
    times = torch.arange(frames) * FRAME
    cents = 40 * torch.sin(2 * torch.pi * 5.5 * times)[None]
    wav = tone(440, 5.5, 0, frames * FRAME)[None]
    whole = bend(wav, cents, RATE)
    new = slice(2 * DECODE_CONTEXT * HOP, 3 * DECODE_CONTEXT * HOP)
    for start, end in ((1, 4), (0, 4), (1, 4)):
        block = slice(start * DECODE_CONTEXT, end * DECODE_CONTEXT)
        part = bend(wav[:, block.start * HOP : block.stop * HOP], cents[:, block], RATE)
        inner = slice(new.start - block.start * HOP, new.stop - block.start * HOP)
        assert torch.allclose(part[:, inner], whole[:, new], atol=1e-4)


@pytest.fixture
def bridge(make_instrument, codec):
    """`bridge(melody_channels, **options)`."""

    def make(melody_channels: int = MELODY_CHANNELS, **options) -> Bridge:
        unet = {**TINY_UNET, "melody_channels": melody_channels}
        models = [make_instrument(name, seed, unet=unet) for seed, name in enumerate("ab")]
        return Bridge(*models, codec=codec, num_steps=2, **options)

    return make


def test_a_bridge_bends_its_output(bridge):
    wav = tone(440, 5.5, 40)[None]
    kept, lost = bridge(), bridge(vibrato=False)
    assert kept.settings["vibrato"] is True and lost.settings["vibrato"] is False
    assert not torch.allclose(kept(wav, RATE), lost(wav, RATE), atol=1e-3)
    steady = tone(440, 5.5, 0)[None]
    assert torch.equal(kept(steady, RATE), lost(steady, RATE))
    there = kept.encode(wav, RATE)
    assert any(one.bend is not None for one in there.windows)
    assert torch.allclose(kept.decode(there), kept(wav, RATE), atol=1e-4)


def test_models_without_the_melody_keep_their_output(bridge):
    assert not bridge(0).vibrato and not bridge(melody=False).vibrato
    assert "vibrato" not in bridge(0).settings


def test_a_stream_by_short_hops_does_without(bridge):
    made = bridge()
    transfer = HopTransfer(made, RATE, 1, made.hop_sizes(2.0))
    assert made.vibrato and not transfer._pair.vibrato


def test_a_wrong_value(bridge):
    with pytest.raises(InputError, match="vibrato=yes"):
        bridge(vibrato="yes")
