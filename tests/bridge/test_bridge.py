"""Bridge: any length, rate and number of channels; kept level and silence; no seams."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import RATE, TINY_UNET, melody
from tolerances import BRIDGED
from torch import nn

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.overlap_add import CrossFade
from audio_diffusion_pytorch.bridge.presets import QUALITY
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.errors import InputError


class Gaussian(nn.Module):
    """The ideal denoiser of standard normal data: a bridge of two of them is the identity."""

    downsample_factor = 2

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + torch.as_tensor(sigma).reshape(-1, 1, 1) ** 2)

    net = property(lambda self: self)


@pytest.fixture
def bridge(make_instrument, codec):
    return Bridge(
        make_instrument("flute", 0), make_instrument("violin", 1), num_steps=2, codec=codec
    )


@pytest.fixture
def identity(make_instrument, codec):
    """A bridge that changes nothing but what codec and windows do, with windows of 64 frames."""
    models = [make_instrument(name) for name in ("flute", "violin")]
    for model in models:
        model.denoiser = Gaussian()
    return Bridge(*models, sigma=4.0, num_steps=24, handoff="plain", codec=codec)


def clip(seconds: float, rate: int = RATE, channels: int = 1) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([melody(seconds, rate, seed=seed) for seed in range(channels)])
    )


@pytest.mark.parametrize("samples", [1, 100, 320, 20479, 20480, 20481, 40000])
def test_any_length(samples, bridge):
    wav = clip(2.0)[:, 1000 : 1000 + samples]
    out = bridge(wav, RATE)
    assert out.shape == wav.shape and out.isfinite().all() and out.abs().max() <= 1


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000, 192000])
def test_any_rate_keeps_length_and_level(rate, bridge):
    wav = clip(0.5, rate)
    out = bridge(wav, rate)
    assert out.shape == wav.shape
    # The level is that of 50 ms blocks, and the output has other quiet ones: half a dB.
    assert active_rms(out, rate) == pytest.approx(active_rms(wav, rate), rel=0.05)


def test_channels_are_bridged_on_their_own(bridge):
    wav = clip(0.5, channels=2)
    wav = torch.stack([wav[0], wav[0], wav[1]])
    out = bridge(wav, RATE)
    assert out.shape == wav.shape
    # Two rows of one batch: equal on paper, not in bits.
    assert torch.allclose(out[0], out[1], atol=BRIDGED) and not torch.allclose(
        out[0], out[2], atol=20 * BRIDGED
    )


def test_quiet_and_loud_recordings_give_the_same_but_for_level(bridge):
    wav = clip(0.5)
    loud, quiet = bridge(wav, RATE), bridge(wav * 0.01, RATE)
    # The mel floor, 1e-4 of full scale, is 2 % of the partials of a recording at -50 dB.
    assert torch.allclose(loud, quiet * 100, atol=0.02 * float(loud.abs().max()))


def test_silence_stays_silent(bridge):
    assert not bridge(torch.zeros(2, 5000), RATE).any()


def test_latents_come_back_through_windows_unchanged(identity, codec):
    """Windows, cross-fades and batches change nothing where the model changes nothing."""
    wav = clip(4.0)
    cutter = WindowCutter(identity.framing, RATE, 1, RecordingStats(0.0))  # no change of level
    cross_fade = CrossFade(identity.window, identity.hop, 1, 128)
    windows = identity.bridge_windows((None, window) for window in cutter.windows([wav]))
    parts = [cross_fade.add(window, latents) for _, window, latents in windows]
    assert len(parts) == identity.num_windows(4 * RATE, RATE) == 6
    error = torch.cat(parts, -1)[..., 8:-8] - codec.encode(wav[None])[..., 8:-8]
    assert error.square().mean().sqrt() < 0.05


def test_windows_of_any_batch_size_give_the_same(make_instrument, codec):
    models = make_instrument("flute", 0), make_instrument("violin", 1)
    outs = [
        Bridge(*models, num_steps=2, batch_size=n, codec=codec)(clip(3.0), RATE) for n in (1, 3)
    ]
    assert torch.allclose(*outs, atol=BRIDGED)


def test_progress_counts_windows(bridge):
    calls = []
    bridge(clip(3.0, channels=2), RATE, lambda done, total: calls.append((done, total)))
    total = 2 * bridge.num_windows(3 * RATE, RATE)
    assert calls == [(done, total) for done in range(1, total + 1)] and total > 4


def test_quality_chooses_and_arguments_override(make_instrument, codec):
    models = make_instrument("flute", 0, sigma_min=0.001), make_instrument("violin", 1)

    def settings(**arguments):
        bridge = Bridge(*models, codec=codec, **arguments).with_sigma(3.0)
        return (
            bridge.solver,
            len(bridge.sigmas),
            bridge.rho,
            float(bridge.sigmas[-1]),
            float(bridge.sigmas[0]),
        )

    for name, quality in QUALITY.items():
        sigma_min = max(quality.sigma_min or 0, 0.01)  # the second model knows no less than 0.01
        expected = (quality.solver, quality.num_steps, quality.rho, sigma_min, 3.0)
        assert settings(quality=name) == pytest.approx(expected)
    assert settings() == settings(quality="normal")
    given = dict(num_steps=5, solver="heun", sigma_min=0.3, rho=2.0)
    assert settings(quality="draft", **given) == pytest.approx(("heun", 5, 2.0, 0.3, 3.0))
    assert float(
        Bridge(*models, sigma=0.1, codec=codec, quality="draft").sigmas[-1]
    ) == pytest.approx(0.01)
    for sigma in (0.02, 0.3, 8.0):  # another sigma is one of a bridge that is made for it
        for arguments in (
            {"quality": "draft"},
            {"quality": "high", "num_steps": 5},
            {"sigma_min": 0.015},
        ):
            made = Bridge(*models, sigma=sigma, codec=codec, **arguments)
            assert (
                Bridge(*models, codec=codec, **arguments).with_sigma(2.0).with_sigma(sigma).settings
                == made.settings
            )


# float16 rounds by 5e-4, bfloat16 by 4e-3: ten times that after a bridge.
@pytest.mark.parametrize(("precision", "tolerance"), [("16", 5e-3), ("bf16", 4e-2)])
def test_half_precision_follows_single(precision, tolerance, make_instrument, codec):
    models = make_instrument("flute", 0), make_instrument("violin", 1)
    plain = Bridge(*models, codec=codec, quality="draft", precision=32)
    half = Bridge(*models, codec=codec, quality="draft", precision=precision)
    latents = torch.randn(2, 128, 64, generator=torch.Generator().manual_seed(0)) * 2 - 6
    expected, actual = (bridge.from_noise(bridge.to_noise(latents)) for bridge in (plain, half))
    error = (actual - expected).norm() / (expected + 6).norm()
    assert actual.dtype == torch.float32 and 0 < error < tolerance
    assert torch.equal(half.with_sigma(half.sigma).to_noise(latents), half.to_noise(latents))
    types = {p.dtype for model in models for p in model.denoiser.parameters()}
    assert types == {torch.float32}  # the caller's models stay as they are


def test_automatic_precision_is_single_on_a_processor(make_instrument, codec):
    models = make_instrument("flute", 0), make_instrument("violin", 1)
    latents = torch.randn(1, 128, 64, generator=torch.Generator().manual_seed(0)) * 2 - 6
    outs = [
        Bridge(*models, codec=codec, num_steps=3, precision=p).to_noise(latents)
        for p in ("auto", "32")
    ]
    assert torch.equal(*outs)


def test_compiled_networks_are_called(make_instrument, codec, monkeypatch):
    """The compiler itself is not run here: it takes minutes."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda net, mode: compiled.append((net, mode)) or net)
    models = make_instrument("flute", 0), make_instrument("violin", 1)
    Bridge(*models, codec=codec, compile=True)
    assert compiled == [(model.denoiser.net, None) for model in models]


def test_to_noise_and_back(identity, codec):
    latents = torch.randn(2, 128, 64) * 2 - 6
    noise = identity.to_noise(latents)
    # Of 16,384 numbers the deviation scatters by 0.6 %; the solver adds 2 %.
    assert noise.std() == pytest.approx(17**0.5, rel=0.05)  # sqrt(sigma^2 + 1)
    # The solver's own error, both ways in 24 steps; the latents spread over 2.
    assert torch.allclose(identity.from_noise(noise), latents, atol=0.1)


def test_wrong_arguments(make_instrument, codec):
    models = make_instrument("flute"), make_instrument("violin")
    for settings, says in [
        ({"sigma": 11}, "sigma=11"),
        ({"sigma": 0.005}, "sigma=0.005"),
        ({"num_steps": 1}, "num_steps=1"),
        ({"num_steps": 2.5}, "num_steps=2.5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"solver": "magic"}, "solver=magic must be one of heun"),
        ({"precision": "8"}, "precision=8 must be one of auto, 32, bf16, 16"),
        ({"quality": "best"}, "quality=best must be one of instant, draft, normal, high"),
    ]:
        with pytest.raises(InputError, match=says):
            Bridge(*models, codec=codec, **settings)
    with pytest.raises(
        InputError,
        match=r"flute was trained on codec .*'encodec', violin on '.*same codec",
    ):
        Bridge(make_instrument("flute", codec="encodec"), models[1], codec=codec)
    with pytest.raises(InputError, match="the codec has 16 channels, the models 128"):
        Bridge(
            *models,
            codec=EncodecCodec("random", config={"n_filters": 4, "dimension": 16, "lstm": 1}),
        )
    several = make_instrument(labels=("flute", "violin"), unet={**TINY_UNET, "num_labels": 2})
    for pair in ((several, models[1]), (models[0], several)):
        with pytest.raises(
            InputError, match="the model holds flute, violin: name one, for example all:flute"
        ):
            Bridge(*pair, codec=codec)


def test_models_of_different_sizes_and_paths(instruments, make_instrument, codec):
    """The shorter window and the coarser factor decide; models may be given as paths."""
    other = make_instrument("violin", unet={**TINY_UNET, "factors": [4]}, frames=50)
    bridge = Bridge(instruments[0], other, num_steps=2, codec=codec)
    assert bridge.window == 52 and bridge.sigma == other.spec.handoff_sigma
    assert bridge(clip(1.0), RATE).shape == (1, RATE)
    assert Bridge(*instruments, num_steps=2)(clip(0.1), RATE).shape == (1, RATE // 10)


# To noise and back, in blocks, on other devices, in threads.


def test_decode_undoes_encode(bridge):
    wav = clip(3.0, channels=2)
    encoded = bridge.encode(wav, RATE)
    assert encoded.noise.shape == (2 * bridge.num_windows(3 * RATE, RATE), 128, bridge.window)
    assert torch.equal(bridge.decode(encoded), bridge(wav, RATE))
    other = replace(encoded, noise=encoded.noise.roll(1, 0))
    assert not torch.allclose(bridge.decode(other), bridge(wav, RATE), atol=1e-2)
    with pytest.raises(
        InputError, match=r"noise of sigma 4, 64 frames a window, .* of sigma 2, 64 frames"
    ):
        bridge.with_sigma(2.0).decode(encoded)


@pytest.mark.parametrize(("rate", "size"), [(RATE, 1000), (44100, 12345), (8000, 100_000)])
def test_a_stream_of_blocks_is_the_whole(rate, size, bridge):
    """But for one gain: the level of a stream follows from the models' levels."""
    wav = clip(4.0, rate, channels=2)
    blocks = list(bridge.stream(wav.split(size, 1), rate, RecordingStats.of([wav], rate)))
    streamed, whole = torch.cat(blocks, 1), bridge(wav, rate)
    assert streamed.shape == wav.shape
    gain = float((streamed * whole).sum() / (whole * whole).sum())
    assert torch.allclose(streamed, gain * whole, atol=BRIDGED * gain)


def test_a_stream_starts_before_its_input_ends(bridge):
    """Sound comes out while blocks still come in, from an endless input."""

    def endless():
        while True:
            yield clip(1.0)

    stream = bridge.stream(endless(), RATE)
    assert sum(next(stream).shape[1] for _ in range(3)) > RATE


@pytest.mark.parametrize("decibels", [None, -90, -60])
def test_a_stream_without_a_level_follows_its_first_sound(decibels, bridge):
    """Neither silence nor a room's noise is its first sound."""
    wav = torch.cat([torch.zeros(1, 2 * RATE), clip(2.0) * 0.5], 1)
    if decibels is not None:
        wav += 10 ** (decibels / 20) * torch.randn(
            wav.shape, generator=torch.Generator().manual_seed(0)
        )
    out = torch.cat(list(bridge.stream(wav.split(2000, 1), RATE)), 1)
    assert out.shape == wav.shape and not out[:, : 2 * RATE].any()
    again = torch.cat(
        list(bridge.stream(wav.split(2000, 1), RATE, RecordingStats.of([wav], RATE))), 1
    )
    # Its first sound is only an estimate of the level: within 3 dB.
    assert active_rms(out, RATE) == pytest.approx(active_rms(again, RATE), rel=0.3)
    assert list(bridge.stream([], RATE)) == []
    assert not torch.cat(list(bridge.stream(wav[:, :RATE].split(99, 1), RATE)), 1).any()


def test_a_stream_that_is_quiet_throughout_needs_a_survey(bridge):
    wav = clip(1.0) * 0.01
    assert not torch.cat(list(bridge.stream(wav.split(2000, 1), RATE)), 1).any()
    out = torch.cat(
        list(bridge.stream(wav.split(2000, 1), RATE, RecordingStats.of([wav], RATE))), 1
    )
    assert out.shape == wav.shape and 0.003 < out.abs().max() < 0.03


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        (torch.zeros(0), r"\[C, (T|n)\].*not \[0\]"),
        (torch.zeros(5), r"\[C, (T|n)\].*not \[5\]"),
        (torch.zeros(0, 5), r"\[C, (T|n)\].*not \[0, 5\]"),
        (torch.zeros(1, 1, 5), r"\[C, (T|n)\].*not \[1, 1, 5\]"),
        (torch.zeros(1, 5, dtype=torch.int16), "floats .* torch.int16"),
        (torch.tensor([[0.1, torch.nan]]), "NaN or infinite"),
        (torch.tensor([[0.1, torch.inf]]), "NaN or infinite"),
    ],
)
def test_what_is_no_sound(wav, says, bridge):
    for call in (bridge, bridge.encode, lambda *x: list(bridge.stream([clip(0.1), x[0]], x[1]))):
        with pytest.raises(InputError, match=says):
            call(wav, RATE)


def test_wrong_rates_and_blocks(bridge):
    wav = clip(0.1)
    for rate in (0, -1, 44099.5, None):
        for call in (bridge, bridge.encode, lambda *x: list(bridge.stream([x[0]], x[1]))):
            with pytest.raises(InputError, match=f"sample_rate={rate}"):
                call(wav, rate)
    with pytest.raises(InputError, match=r"wav \[C, T\] with C, T > 0, .* not \[1, 0\]"):
        bridge(wav[:, :0], RATE)
    with pytest.raises(InputError, match=r"blocks \[C, n\] must have the same C, not 1 and then 2"):
        list(bridge.stream([wav, torch.zeros(2, 5)], RATE))
    blocks = [wav[:, :0], wav[:, :99].double(), wav[:, :0], wav[:, 99:].double()]
    assert torch.equal(
        torch.cat(list(bridge.stream(blocks, RATE)), 1),
        torch.cat(list(bridge.stream([wav], RATE)), 1),
    )


def test_threads_share_a_bridge(bridge):
    wavs = [clip(1.0)[:, : RATE // n] for n in (1, 2, 3, 4)]

    def alone(wav: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(1)  # of this thread: MKL shares sums among free threads otherwise
        return bridge(wav, RATE)

    with ThreadPoolExecutor(4) as pool:
        outs = list(pool.map(alone, wavs))
    with ThreadPoolExecutor(1) as pool:
        expected = list(pool.map(alone, wavs))
    assert all(map(torch.equal, outs, expected))


def test_a_bridge_moves(instruments):
    bridge = Bridge(*instruments)
    assert bridge.to("meta") is bridge and bridge.device.type == "meta"
    assert (
        next(bridge.codec.parameters()).device.type == "meta"
        and bridge.target.mean.device.type == "meta"
    )


# Octaves, and the same result every time.


def test_a_melody_moves_into_the_range_by_default(make_instrument, codec):
    """Not where octaves are given, nor where the range is not known."""
    models = (
        make_instrument("flute"),
        make_instrument("cello", 1),
    )  # a cello reaches D5, the melody E flat 6
    bridge, wav = Bridge(*models, num_steps=2, codec=codec), clip(1.5)
    assert torch.equal(bridge(wav, RATE), bridge(wav, RATE, octaves=-2))
    assert not torch.equal(bridge(wav, RATE), bridge(wav, RATE, octaves=0))
    kazoo = Bridge(models[0], make_instrument("kazoo", 1), num_steps=2, codec=codec)
    assert torch.equal(kazoo(wav, RATE), kazoo(wav, RATE, octaves=0))


def test_a_moved_recording_keeps_its_levels(make_instrument, codec):
    """The levels are those of the sound before it moved; a window that stays has its own."""
    bridge = Bridge(
        make_instrument("flute"), make_instrument("violin", 1), num_steps=2, codec=codec
    )
    wav = clip(1.5) * torch.linspace(0.2, 1, round(1.5 * RATE))
    stats = RecordingStats.of([wav], RATE)
    still, moved = (
        next(WindowCutter(bridge.framing, RATE, 1, stats, octaves).windows([wav]))
        for octaves in (0, -1)
    )
    assert still.unmoved is None and torch.equal(moved.unmoved, still.wav)
    latents = bridge.codec.encode(torch.stack([still.wav, moved.wav])[:, None])
    levels = bridge._levels([still, moved], latents)
    assert torch.equal(levels[0], bridge.codec.frame_levels(latents)[0])
    assert torch.allclose(levels[1], levels[0], atol=1e-5)
    assert not torch.allclose(bridge.codec.frame_levels(latents)[1], levels[0], atol=0.1)


@pytest.mark.parametrize("size", [1000, 30000])
def test_a_stream_decides_on_its_first_second_of_sound(size, make_instrument, codec):
    """Whatever comes later: the second half of this one lies lower by two octaves."""
    bridge = Bridge(make_instrument("flute"), make_instrument("cello", 1), num_steps=2, codec=codec)
    high = clip(1.5)
    wav = torch.cat(
        [torch.zeros(1, 20000), high, torch.from_numpy(melody(2.0, RATE // 4))[None]], 1
    )
    survey = RecordingStats.of([wav], RATE)

    def stream(**options) -> torch.Tensor:
        return torch.cat(list(bridge.stream(wav.split(size, 1), RATE, **options)), 1)

    assert torch.equal(stream(survey=survey), stream(survey=survey, octaves=-2))
    assert stream().shape == wav.shape
    assert not torch.equal(stream(survey=survey), stream(survey=survey, octaves=0))


@pytest.mark.parametrize("rate", [24000, 44100])
def test_a_bridge_gives_the_same_bits_whatever_it_did_before(rate, bridge, make_instrument, codec):
    """Other rates, lengths, channels, octaves, streams and tunings do not change a result."""
    wav = clip(1.0, rate)
    first = bridge(wav, rate)
    for other in (8000, 48000, 44099):
        bridge(clip(0.3, other, 2), other, octaves=1)
    list(bridge.stream(clip(0.5).split(3000, 1), RATE))
    bridge.decode(bridge.encode(clip(0.4, 22050), 22050))
    assert torch.equal(bridge(wav, rate), first)
    unaligned = torch.zeros(1, wav.shape[1] + 3)[
        :, 3:
    ]  # libraries may choose other code where memory begins elsewhere
    assert torch.equal(bridge(unaligned.copy_(wav), rate), first)
    again = Bridge(
        make_instrument("flute", 0), make_instrument("violin", 1), num_steps=2, codec=codec
    )
    assert torch.equal(again(wav, rate), first)
