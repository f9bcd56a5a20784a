"""The tuning of a recording is found, and a transfer keeps it."""

import numpy as np
import pytest
import torch
from conftest import RATE

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.framing import Framing
from audio_diffusion_pytorch.bridge.overlap_add import OverlapAdd
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.pitch.tuning import TuningMeter


def notes(a: float, seconds: float = 4.0, rate: int = RATE) -> torch.Tensor:
    """Half-second notes of a scale whose A is at `a` Hz: [1, T]."""
    time = np.arange(round(seconds * rate)) / rate
    steps = np.array([0, 2, 4, 5, 7, 9, 11, 12])[(time * 2).astype(int) % 8]
    phase = 2 * np.pi * np.cumsum(a * 2 ** (steps / 12)) / rate
    return torch.from_numpy((0.2 * (np.sin(phase) + 0.5 * np.sin(2 * phase))).astype("f4"))[None]


def cents(wav: torch.Tensor, rate: int = RATE) -> float:
    meter = TuningMeter(rate)
    meter.update(wav)
    return meter.cents


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 192000])
@pytest.mark.parametrize("a", [430, 440, 450])
def test_a_tuning_is_found(a, rate):
    # Two cents, a tenth of what is heard; the peaks of a spectrum are estimates.
    assert cents(notes(a, rate=rate), rate) == pytest.approx(1200 * np.log2(a / 440), abs=2)


def test_blocks_make_no_difference():
    wav, meter = notes(433, 20.0), TuningMeter(RATE)
    for block in wav.split(12345, 1):
        meter.update(block)
    assert meter.cents == cents(wav) != 0


def test_opposed_channels_have_a_tuning():
    wav = notes(433, 4.0)
    assert cents(torch.cat([wav, -wav])) == cents(wav) != 0


def test_what_has_no_tuning_is_in_tune():
    time = torch.arange(4 * RATE) / RATE
    glide = torch.sin(2 * torch.pi * 440 * torch.cumsum(2 ** (time / 4), 0) / RATE)
    for wav in (
        torch.zeros(1, RATE),
        torch.zeros(1, 0),
        torch.zeros(2, 10),
        glide[None],
        notes(441.0),
    ):
        assert cents(wav) == 0


def test_networks_see_440(make_instrument, codec, monkeypatch):
    bridge = Bridge(make_instrument(), make_instrument(), num_steps=2, codec=codec)
    seen = []
    encode = bridge.encode_windows
    monkeypatch.setattr(
        bridge, "encode_windows", lambda windows: seen.extend(windows) or encode(windows)
    )
    wav = notes(430.0, 2.5)
    # As above.
    assert cents(wav) == pytest.approx(-40, abs=2)
    assert bridge(wav, RATE).shape == wav.shape
    assert seen and all(cents(window.wav[None]) == 0 for window in seen[:-1])


class Samples:
    """A codec that keeps the samples as they are."""

    sample_rate, hop_length, latent_channels, edge_frames = RATE, 320, 320, 0

    def num_frames(self, length: int) -> int:
        return -(-length // 320)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.mT.flatten(1)[:, None]

    def decode_after(self, latents: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return self.decode(latents)


@pytest.mark.parametrize(("a", "rate"), [(430.0, 24000), (451.0, 44100), (440.0, 48000)])
def test_sound_comes_back_at_its_own_pitch_and_place(a, rate):
    """Windows, cross-fades and resampling to 440 and back change nothing."""
    framing = Framing(Samples(), window=64, hop=48, level_db=None, device=torch.device("cpu"))
    wav = notes(a, 10.0, rate)
    stats = RecordingStats.of([wav], rate)
    cutter = WindowCutter(framing, rate, 1, stats)
    joiner = OverlapAdd(framing, rate, 1, stats)
    assert (stats.tuned_rate(rate) != rate) == (a != 440)
    parts = [
        joiner.add(window, window.wav.reshape(64, 320).T)
        for window in cutter.windows(wav.split(50000, 1))
    ]
    out = torch.cat(parts, 1)
    assert out.shape == wav.shape
    assert (out - wav)[:, 2000:-2000].square().mean().sqrt() < 0.01 * wav.square().mean().sqrt()
