"""Bursts, noise in pauses, decays and rumble with shipped models, as in benchmarks/pauses.py."""

import itertools
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from audio_diffusion_pytorch import Bridge, audio
from audio_diffusion_pytorch.bridge.pauses import QuietFollower
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible

sys.path.insert(0, str(ROOT / "benchmarks"))
from pauses import (
    PITCHES,
    burst,
    decay_errors,
    envelope,
    level_change,
    low,
    noise,
    notes,
    pause_change,
)

RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000]
PAIRS = [
    ("flute", "trumpet"),
    ("flute", "violin"),
    ("violin", "cello"),
    ("cello", "bassoon"),
    ("trumpet", "flute"),
]


@pytest.fixture(scope="module")
def bridge_of():
    bridges: dict[tuple[str, str, str], Bridge] = {}

    def get(source: str, target: str, quality: str = "draft") -> Bridge:
        key = source, target, quality
        if key not in bridges:
            bridges[key] = Bridge(source, target, quality=quality)
        return bridges[key]

    return get


@pytest.mark.parametrize(
    ("rate", "muted"),
    [
        (24000, 0.0),
        (44100, 0.002),
        pytest.param(24000, 0.002, marks=pytest.mark.long),
        pytest.param(44100, 0.0, marks=pytest.mark.long),
    ],
)
def test_cut_notes_end_without_a_burst(rate, muted, bridge_of):
    """Against digital silence, and against noise."""
    wav, ends = notes(rate)
    wav = wav + muted * noise("white", wav.shape[1], rate, 1.0)
    out = bridge_of("flute", "trumpet")(wav, rate)
    assert burst(out, rate, ends) < 3
    assert abs(level_change(out, wav, rate)) < 1


@pytest.mark.parametrize(
    ("kind", "decibels", "octaves"),
    [
        ("white", -40, 0),
        ("50", -40, -1),
        *(
            pytest.param(*given, marks=pytest.mark.long)
            for given in [
                ("white", -40, -1),
                ("pink", -50, 0),
                ("pink", -50, -1),
                ("50", -40, 0),
            ]
        ),
    ],
)
def test_noise_in_pauses_stays_as_loud_as_it_was(kind, decibels, octaves, bridge_of):
    wav, ends = notes(24000, fade=0.05)
    level = audio.active_rms(wav, 24000)
    wav = wav + noise(kind, wav.shape[1], 24000, level * 10 ** (decibels / 20))
    out = bridge_of("flute", "violin")(wav, 24000, octaves=octaves)
    assert -6 < pause_change(out, wav, 24000, ends) < 1
    assert (
        -6 < pause_change(out, wav, 24000, ends, weighted=True) < 2
    )  # nor does hum become a whistle


def test_decays_follow_the_recording(bridge_of):
    wav, _ = notes(24000, seconds=1.2, decay=1.0)
    errors = decay_errors(bridge_of("flute", "trumpet")(wav, 24000), wav, 24000)
    assert np.quantile(errors, 0.95) < 3


def test_a_soft_entry_is_neither_lost_nor_jumps(bridge_of):
    """A note that rises from 40 dB below in two seconds."""
    time = torch.arange(3 * 24000) / 24000
    wav = (
        0.2
        * sum(
            a * torch.sin(2 * torch.pi * 523.25 * k * time)
            for k, a in ((1, 1.0), (2, 0.5), (3, 0.3))
        )[None]
    )
    wav = wav * 10 ** (2 * (time / 2 - 1).clamp(max=0))
    out = bridge_of("flute", "violin")(wav, 24000, octaves=0)
    apart = envelope(out, 24000) - envelope(wav, 24000)
    assert np.abs(apart[40:400]).max() < 4


def test_rumble_and_jumping_offsets_are_no_sound(bridge_of):
    """An 8 Hz sine as strong as the notes and a jumping offset do not change level or depths."""
    bridge = bridge_of("flute", "violin")
    wav, ends = notes(24000, fade=0.05)
    time = torch.arange(wav.shape[1]) / 24000
    out = bridge(wav, 24000, octaves=0)
    for below in (
        0.3 * torch.sin(2 * torch.pi * 8 * time),
        0.3 * time / time.max(),
        torch.full_like(time, 0.3),
    ):
        with_it = bridge(wav + below, 24000, octaves=0)
        assert abs(level_change(with_it, out, 24000)) < 1
        assert low(with_it, 24000) < audio.to_db(audio.active_rms(out, 24000)) - 25
    jumps = wav + 0.3 * (time > ends[1] + 0.2)
    assert abs(level_change(bridge(jumps, 24000, octaves=0), out, 24000)) < 1


def test_a_stream_follows_pauses_as_the_whole_does(bridge_of):
    """Two channels, one with hiss; blocks of any size."""
    bridge = bridge_of("flute", "violin")
    wav, _ = notes(24000, fade=0.05)
    wav = torch.cat([wav, wav + noise("white", wav.shape[1], 24000, 0.002)]) + 0.1
    whole = bridge(wav, 24000, octaves=0)
    streamed = torch.cat(
        list(bridge.stream(wav.split(7777, 1), 24000, RecordingStats.of([wav], 24000), octaves=0)),
        1,
    )
    gain = float((streamed * whole).sum() / (whole * whole).sum())
    assert streamed.shape == wav.shape and (streamed - gain * whole).abs().max() < 0.01 * gain


def test_noise_of_a_recording():
    """The survey's: hiss and hum, but neither decays nor what is loud."""
    wav, _ = notes(24000, fade=0.05)
    level = audio.active_rms(wav, 24000)
    for kind in ("white", "pink", "50"):
        hiss = noise(kind, wav.shape[1], 24000, level / 100)
        assert RecordingStats.of([wav + hiss], 24000).noise == pytest.approx(level / 100, rel=0.3)
    for silent in (
        wav,
        notes(24000, seconds=1.2, decay=1.0)[0],
        torch.zeros(1, 24000),
        wav[:, :9000],
    ):
        assert RecordingStats.of([silent], 24000).noise == 0


def test_the_follower_leaves_what_is_right_and_does_not_see_blocks():
    random = torch.Generator().manual_seed(0)
    wav = 0.1 * torch.randn(1, 200 * 320, generator=random)
    power = wav.unflatten(-1, (200, -1)).square().mean(-1)
    calm, free = torch.zeros_like(power), slice(0, 200)
    assert torch.allclose(QuietFollower(0.1)(wav, power, calm, free), wav, atol=0.02)
    for given, made in ((1e-4, 1e-2), (1e-2, 1e-4)):  # a pause that is 20 dB too loud, and too soft
        there = torch.where(torch.arange(200) < 100, 1.0, given)[None]
        sound = wav * torch.where(torch.arange(200) < 100, 1.0, made**0.5).repeat_interleave(320)
        out = QuietFollower(0.1)(sound, power * there, calm, free)
        pause = 10 * (out[:, 110 * 320 :].square().mean() / (power[:, 110:].mean() * given)).log10()
        assert -9 < float(pause) < 0.5 and torch.equal(out[:, : 90 * 320], sound[:, : 90 * 320])


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("rate", RATES)
def test_campaign_of_cuts(pair, rate, bridge_of):
    """All rates, fades, amplitudes and floors; cuts anywhere in a window; the end within a note."""
    bridge, first = bridge_of(*pair, "normal"), PITCHES[pair[0]]
    for index, (fade, gain, floor) in enumerate(
        itertools.product((0.0, 0.001, 0.005, 0.02), (1.0, 0.03), (0.0, 0.001))
    ):
        wav, ends = notes(rate, first, fade)
        wav = wav + floor * noise("white", wav.shape[1], rate, 1.0)
        lead = torch.zeros(1, round((0.1 + 0.37 * index) * rate))
        last = round((ends[-1] - 0.1) * rate) if index % 4 == 3 else wav.shape[1]
        wav = gain * torch.cat([lead, wav[:, :last]], 1)
        ends = [end + lead.shape[1] / rate for end in ends][: -1 if index % 4 == 3 else None]
        out = bridge(wav, rate, octaves=0)
        assert burst(out, rate, ends) < 3, (fade, gain, floor)
        assert abs(level_change(out, wav, rate)) < 1, (fade, gain, floor)


def test_a_dry_run_and_a_run_listen_to_the_same():
    wav, _ = notes(24000)
    rumbling = wav + 0.4 * torch.sin(2 * torch.pi * 6 * torch.arange(wav.shape[1]) / 24000)
    there = torch.cat(list(audible(rumbling.split(1000, 1), 24000)), 1)
    assert RecordingStats.of([rumbling], 24000).level == pytest.approx(
        RecordingStats.of([wav], 24000).level, rel=0.01
    )
    assert RecordingStats.of(rumbling.split(999, 1), 24000) == RecordingStats.of_audible(
        [there], 24000
    )
