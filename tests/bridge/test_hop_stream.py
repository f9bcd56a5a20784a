"""Streams with low latency: constant delay, any blocks, settled levels, bounded memory."""

import resource

import pytest
import torch
from conftest import RATE, TINY_UNET, melody
from tolerances import BRIDGED
from torch import nn

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.frozen import FrozenDenoiser, with_frozen_networks
from audio_diffusion_pytorch.bridge.hop_gain import HopGain
from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes
from audio_diffusion_pytorch.bridge.hop_stream import HopTransfer
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.running_stats import RunningStats
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.metrics.spectral import log_mel_distance
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS


class Gaussian(nn.Module):
    """The ideal denoiser of standard normal data: a bridge of two of them is the identity."""

    downsample_factor = 2

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma.reshape(-1, 1, 1) ** 2)

    net = property(lambda self: self)


@pytest.fixture(scope="module")
def identity(make_instrument):
    """A bridge that changes nothing but what codec and windows do, with windows of 64 frames."""
    models = [make_instrument(name) for name in ("flute", "violin")]
    for model in models:
        model.denoiser = Gaussian()
    codec = load_codec("small")
    codec.phase.rounds = 3  # of 16, for the time of the tests
    options = {"num_steps": 24, "handoff": "plain", "quality": "draft"}
    return Bridge(*models, sigma=4.0, codec=codec, **options)


def clip(seconds: float, rate: int = RATE, channels: int = 1) -> torch.Tensor:
    wavs = [torch.from_numpy(melody(seconds, rate, seed=seed)) for seed in range(channels)]
    return torch.stack(wavs)


def streamed(bridge: Bridge, wav: torch.Tensor, rate: int = RATE, size: int = 1000, **options):
    options = {"octaves": 0, "latency": 1.0, **options}
    return torch.cat(list(bridge.stream(wav.split(size, 1), rate, **options)), 1)


# Delay


@pytest.mark.parametrize(("latency", "rate"), [(0.5, RATE), (1.0, 44100), (4.0, 8000)])
def test_the_output_never_lags_more_than_promised(latency, rate, identity):
    sizes = identity.hop_sizes(latency)
    assert sizes.latency_seconds <= latency
    stream = HopTransfer(identity, rate, 1, sizes, octaves=0)
    received = returned = 0
    lags = []
    for block in clip(1.5, rate).split(rate // 100, 1):
        received += block.shape[1]
        returned += stream.add(block).shape[1]
        lags.append(received - returned)
    assert max(lags) <= sizes.lag_seconds * rate
    # The slack of the promise, and a block of 10 ms.
    assert max(lags) > (sizes.lag_seconds - 0.051) * rate


def test_the_delay_is_known_beforehand(identity):
    stream = identity.stream([], RATE, latency=0.8)
    assert 0.7 < stream.latency_seconds <= 0.8 and stream.lag_seconds < stream.latency_seconds
    assert list(stream) == []


def test_onsets_stay_in_place(identity):
    wav = torch.cat([torch.zeros(1, RATE), clip(1.0)], 1)
    out = streamed(identity, wav)
    first = int((out.abs() > 0.02).any(0).int().argmax())
    expected = int((wav.abs() > 0.02).any(0).int().argmax())
    assert abs(first - expected) < 0.03 * RATE  # two frames: attacks are softened by some ms


@pytest.mark.parametrize("latency", [0.2, 0, -1, "soon"])
def test_an_impossible_delay(latency, identity):
    with pytest.raises(InputError, match=f"latency={latency} must be"):
        identity.stream([], RATE, latency=latency)


# Blocks


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44100, 2), (8000, 1)])
def test_blocks_of_any_size_give_the_same(rate, channels, identity):
    wav = clip(0.8, rate, channels)
    outs = [streamed(identity, wav, rate, size) for size in (7, 1000, 10 * rate)]
    assert all(out.shape == wav.shape for out in outs)
    for out in outs[1:]:
        assert torch.allclose(outs[0], out, atol=BRIDGED)


def test_single_samples(identity):
    wav = clip(0.2)
    assert torch.allclose(streamed(identity, wav, size=1), streamed(identity, wav), atol=BRIDGED)
    assert streamed(identity, wav[:, :1]).shape == (1, 1)


def test_wrong_blocks(identity):
    for blocks, says in [
        ([torch.zeros(5)], "not \\[5\\]"),
        ([torch.full((1, 9), torch.nan)], "NaN or infinite"),
        ([torch.zeros(1, 9), torch.zeros(2, 9)], "not 1 and then 2"),
    ]:
        with pytest.raises(InputError, match=says):
            list(identity.stream(blocks, RATE, latency=1.0))


# Sound


def test_a_long_latency_is_nearly_the_whole_clip(identity):
    """Phases differ, so spectra are compared."""
    wav = clip(2.0)
    whole = identity(wav, RATE, octaves=0)
    survey = RecordingStats.of([wav], RATE)
    long = streamed(identity, wav, latency=15.0, survey=survey)
    short = streamed(identity, wav, latency=1.0, survey=survey)
    # Phases, and attacks at other places of a window: 1.3 dB. An untrained bridge is above 10 dB.
    assert float(log_mel_distance(long, whole, RATE)) < 0.15
    assert float(log_mel_distance(short, whole, RATE)) < 0.17
    # The whole clip reaches its level exactly; a stream settles: within 2 dB.
    assert active_rms(long, RATE) == pytest.approx(active_rms(whole, RATE), rel=0.2)


def test_no_seams(identity):
    """The sound at the borders of hops is as smooth as elsewhere."""
    time = torch.arange(2 * RATE) / RATE
    out = streamed(identity, 0.2 * torch.sin(2 * torch.pi * 440 * time)[None])
    rough = out[0].diff().diff().diff().abs()
    hop = identity.hop_sizes(1.0).hop * identity.codec.hop_length
    borders = torch.arange(2 * hop, len(rough) - hop, hop)
    near = torch.stack([rough[b - 50 : b + 50].max() for b in borders])
    between = torch.stack([rough[b + hop // 2 - 50 : b + hop // 2 + 50].max() for b in borders])
    assert near.median() < 1.5 * between.median()


@pytest.mark.parametrize("seconds", [5, pytest.param(300, marks=pytest.mark.long)])
def test_silence_then_sound_is_as_sound_alone(seconds, identity):
    """The length of a silence does not matter."""
    wav = clip(1.0)
    hop = identity.hop_sizes(1.0).hop * identity.codec.hop_length
    silence = torch.zeros(1, seconds * RATE // hop * hop)
    out = streamed(identity, torch.cat([silence, wav], 1))
    assert not out[:, : silence.shape[1] - RATE // 10].any()
    short = streamed(identity, torch.cat([silence[:, : 2 * hop], wav], 1))[:, 2 * hop :]
    expected = active_rms(short, RATE)
    assert active_rms(out[:, silence.shape[1] :], RATE) == pytest.approx(expected, rel=0.05)


def test_hum_alone_stays_silent_and_clipping_stays_finite(identity):
    time = torch.arange(2 * RATE) / RATE
    hum = 0.005 * torch.sin(2 * torch.pi * 50 * time)[None]
    assert not streamed(identity, hum).any()
    clipped = (20 * clip(1.0)).clamp(-1, 1)
    out = streamed(identity, clipped)
    assert out.isfinite().all() and 0.3 < active_rms(out, RATE) < 2
    assert streamed(identity, hum[:, :RATE] + clip(1.0)).isfinite().all()


@pytest.mark.parametrize("gain", [0.05, 1.0])
def test_the_level_follows_the_input(gain, identity):
    wav = gain * clip(1.0)
    assert active_rms(streamed(identity, wav), RATE) == pytest.approx(
        active_rms(wav, RATE), rel=0.3
    )


def test_the_level_glides_to_a_louder_player(identity):
    wav = torch.cat([0.1 * clip(2.0), clip(2.0)], 1)
    out = streamed(identity, wav)
    for part in (out[:, RATE : 2 * RATE], out[:, 3 * RATE :]):
        assert part.isfinite().all()
    louder = active_rms(out[:, 3 * RATE :], RATE) / active_rms(out[:, RATE : 2 * RATE], RATE)
    assert louder == pytest.approx(10, rel=0.4)


def test_skipped_hops_are_silent(identity):
    transfer = HopTransfer(identity, RATE, 1, identity.hop_sizes(1.0), octaves=0)
    blocks = clip(4.0).split(2400, 1)
    out = [transfer.add(block, skip=10 <= index < 20) for index, block in enumerate(blocks)]
    wav = torch.cat(out, 1)
    silent = [not block.any() for block in wav.split(2400, 1)]
    assert 5 <= sum(silent) <= 14 and not silent[2] and not silent[-1]


# Parts


def test_the_gain_glides_while_sound_is_audible():
    gain = HopGain(20, 4, 0.1)  # 0.6 dB a frame
    loud, silent = torch.zeros(20, dtype=torch.bool), torch.ones(20, dtype=torch.bool)
    assert gain.next(2.0, 10, loud).tolist() == [2.0] * 20
    glide = gain.next(1.0, 10, loud)
    assert (glide[:10] == 2).all() and (glide.diff() <= 0).all()
    assert (glide[1:] / glide[:-1]).min() >= 10 ** (-0.61 / 20)
    for _ in range(6):
        glide = gain.next(1.0, 10, loud)
    assert glide[-1] == pytest.approx(1.0)
    jump = gain.next(5.0, 10, silent)
    assert (jump[10:] == 5).all() and jump[9] < 2


def test_running_stats_forget():
    stats = RunningStats(RATE)
    assert stats.now.level == 0
    wav = torch.sin(torch.arange(RATE) * 0.3)[None]
    for _ in range(30):
        stats.update(0.5 * wav)
    assert stats.now.level == pytest.approx(0.5 / 2**0.5, rel=0.02)
    for _ in range(30):
        stats.update(0.05 * wav)
    assert stats.now.level == pytest.approx(0.05 / 2**0.5, rel=0.02)
    level = stats.now.level
    for _ in range(60):
        stats.update(0 * wav)
    assert stats.now.level == level  # pauses do not change the level
    survey = RecordingStats(0.2, 10.0, 0.01)
    assert RunningStats(RATE, survey).now == survey


def test_the_tuning_is_followed():
    stats = RunningStats(RATE)
    time = torch.arange(RATE // 100)
    for index in range(1000):
        phase = 2 * torch.pi * 440 * 2 ** (30 / 1200) * (time + index * len(time)) / RATE
        stats.update(0.3 * torch.sin(phase)[None])
    assert stats.tuned_rate == pytest.approx(RATE * 2 ** (-30 / 1200), rel=2e-3)


def test_frozen_networks_compute_the_same(make_instrument, codec):
    unet = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    models = make_instrument("flute", 0, unet=unet), make_instrument("violin", 1)
    bridge = Bridge(*models, num_steps=2, codec=codec)
    frozen = with_frozen_networks(bridge, 64)
    assert all(isinstance(net, FrozenDenoiser) for net in frozen.denoisers)
    generator = torch.Generator().manual_seed(0)
    for rows, frames in [(1, 64), (2, 64), (1, 32)]:
        latents = torch.randn(rows, 128, frames, generator=generator) - 6
        melody = torch.rand(rows, MELODY_CHANNELS, frames, generator=generator)
        for given in ((latents,), (latents, melody)):
            assert torch.allclose(frozen.to_noise(*given), bridge.to_noise(*given), atol=BRIDGED)


def test_the_decoder_continues_its_past():
    """The sound after the past meets the bands of its latents, as if the past were its own."""
    codec = load_codec("small")
    time = torch.arange(RATE) / RATE
    tone = sum(0.1 * torch.sin(2 * torch.pi * 220 * k * time + k) for k in range(1, 4))
    latents = codec.encode(tone[None, None])
    past = tone[None, None, : 40 * codec.hop_length]
    plain, out = codec.decode(latents), codec.decode_after(latents, past)
    assert out.shape == plain.shape and torch.equal(out[..., : past.shape[-1]], past)

    def error(wav: torch.Tensor) -> float:
        loud = latents[0].mean(-1) > -5
        return float((codec.encode(wav) - latents)[0, loud, 37:43].abs().mean())

    cut = torch.cat([past, plain[..., past.shape[-1] :]], -1)
    assert error(out) < 0.7 * error(cut)


def numbers(value, depth: int = 0) -> int:
    """Count the numbers that an object holds."""
    if isinstance(value, torch.Tensor) or hasattr(value, "nbytes"):
        return int(value.nbytes)
    if hasattr(value, "__len__") and not isinstance(value, (str, dict)):
        return len(value)
    if hasattr(value, "__dict__") and depth < 3:
        names = set(vars(value)) - {"_pair", "_framing", "_codec", "framing"}
        return sum(numbers(vars(value)[name], depth + 1) for name in names)
    return 0


def test_the_state_does_not_grow(identity):
    rate = 8000
    transfer = HopTransfer(identity, rate, 1, identity.hop_sizes(1.0), octaves=0)
    held = []
    wav = clip(1.0, rate)
    for second in range(28):
        for block in wav.split(rate // 5, 1):
            transfer.add(block, skip=second % 7 > 0)
        held.append(numbers(transfer))
    # The statistics hold 20 s: 800 numbers. The tuning holds up to 5.5 s of sound.
    assert max(held[24:]) <= max(held[:24]) + 1000


@pytest.mark.long
def test_an_hour_needs_the_memory_of_a_minute(identity):
    transfer = HopTransfer(identity, RATE, 1, identity.hop_sizes(1.0), octaves=0)
    wav = clip(1.0)
    peaks = []
    for minute in range(60):
        for second in range(60):
            transfer.add(wav, skip=second % 20 > 0)
        if minute in (0, 59):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    assert peaks[1] - peaks[0] < 20  # MB


def test_sizes_fit_the_window(identity):
    for latency in (0.5, 1, 2, 5, 60):
        sizes = HopSizes.for_latency(latency, identity.framing, 2)
        assert sizes.context >= 0 and sizes.window <= identity.window
        assert sizes.decoder_context <= sizes.context and sizes.decoder_ahead > 0
