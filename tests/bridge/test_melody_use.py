"""Models with a melody input receive the melody; models without give what they gave before."""

from dataclasses import replace

import pytest
import torch
from conftest import RATE, TINY_UNET, melody
from tolerances import BRIDGED

from audio_diffusion_pytorch.bridge import model_pair
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.frozen import FrozenDenoiser, with_frozen_networks
from audio_diffusion_pytorch.bridge.melody_use import MelodyUse
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.instrument import select_instrument
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.models.unlabelled import LABEL_GUIDANCE
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS
from audio_diffusion_pytorch.transfer.run import TransferRun

UNET = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
SILENCE = torch.zeros(1, RATE)


@pytest.fixture
def make(make_instrument, codec):
    """`make(inputs=(True, False), melody=False)`: a bridge whose source has a melody input."""

    def bridge(inputs=(True, True), **options) -> Bridge:
        models = [
            make_instrument(name, seed, unet=UNET if has_input else TINY_UNET)
            for seed, (name, has_input) in enumerate(zip(("flute", "violin"), inputs, strict=True))
        ]
        plain = {"num_steps": 2, "codec": codec, "melody_guidance": 1}
        return Bridge(*models, **{**plain, **options})

    return bridge


@pytest.fixture(scope="module")
def given() -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and melodies of three windows."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 128, 64, generator=generator) * 2 - 6
    return latents, torch.rand(3, MELODY_CHANNELS, 64, generator=generator)


def clip(seconds: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(melody(seconds))[None]


def test_the_melody_reaches_the_models_with_the_input(make, given):
    latents, pitches = given
    for inputs, receive in (
        ((True, True), (True, True)),
        ((True, False), (False, False)),  # noise without the melody would be lost on the target
        ((False, True), (False, True)),
    ):
        bridge = make(inputs)
        assert bridge.melody.given == receive
        assert bridge.settings["melody"] is any(receive) and bridge.settings["melody_guidance"] == 1
        for receives, way in zip(receive, (bridge.to_noise, bridge.from_noise), strict=True):
            assert torch.equal(way(latents, pitches), way(latents)) is not receives


def test_without_melody_is_the_model_with_its_input_dropped(make, given):
    latents, pitches = given
    dropped, used = make(melody=False), make()
    assert used.settings == {
        **dropped.settings,
        **{"melody": True, "vibrato": True, "phase_rounds": used.codec.phase_rounds},
    }
    assert torch.equal(dropped.to_noise(latents, pitches), used.to_noise(latents))
    assert torch.equal(dropped.from_noise(latents, pitches), used.from_noise(latents))
    assert not torch.allclose(dropped(clip(), RATE), used(clip(), RATE), atol=20 * BRIDGED)


def test_noise_is_bridged_without_a_melody(make):
    noise = 0.2 * torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    used, dropped = make()(noise, RATE), make(melody=False)(noise, RATE)
    assert torch.allclose(used, dropped, atol=BRIDGED)


def test_models_without_the_input_need_no_melody(make, monkeypatch):
    """Neither the tracker nor another argument of the networks, and no other settings."""
    monkeypatch.setattr(model_pair, "melody_input", lambda *_: pytest.fail("tracked"))
    bridge = make((False, False))
    for denoiser in bridge.denoisers:
        denoiser.forward = lambda x, sigma, forward=denoiser.forward: forward(x, sigma)
    assert bridge(clip(), RATE).isfinite().all() and bridge.encode(clip(), RATE).melody is None
    assert not any("melody" in name for name in bridge.settings)
    make(melody=False)(clip(), RATE)
    make()(SILENCE, RATE)  # silent windows bypass the models


def test_the_melody_is_computed_once_for_a_batch_of_played_windows(make, monkeypatch):
    shapes = []

    def track(wav, sample_rate, hop_length):
        shapes.append((tuple(wav.shape), sample_rate, hop_length))
        return torch.zeros(len(wav), MELODY_CHANNELS, wav.shape[1] // hop_length)

    monkeypatch.setattr(model_pair, "melody_input", track)
    bridge = make(batch_size=8)
    bridge(torch.cat([clip(0.5), torch.zeros(1, 3 * RATE), clip(0.5)], 1), RATE, octaves=0)
    assert shapes == [((2, 64 * 320), RATE, 320)]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_extrapolates_from_the_denoiser_without_melody(guidance, make, given):
    latents, pitches = given
    bridge = make(melody_guidance=guidance)
    calls = [0, 0]

    def count(index):
        def hook(*_):
            calls[index] += 1

        return hook

    for index, denoiser in enumerate(bridge.denoisers):
        denoiser.register_forward_pre_hook(count(index))
    bridge.from_noise(bridge.to_noise(latents, pitches), pitches)
    assert calls == [bridge.count_evaluations(0), bridge.count_evaluations(1)]
    assert sum(calls) == bridge.num_evaluations
    assert calls[1] == (1 if guidance == 1 else 2) * calls[0]
    assert bridge.settings["melody_guidance"] == guidance

    denoise = bridge.denoisers[1]
    sigma = torch.tensor(2.0)
    with_melody, without = denoise(latents, sigma, melody=pitches), denoise(latents, sigma)
    for index, weight in ((0, 1.0), (1, guidance)):
        guided = bridge.melody.denoiser(index, denoise, pitches)(latents, sigma)
        torch.testing.assert_close(guided, without + weight * (with_melody - without))


def test_samples_without_a_pitch_have_no_guidance(make, given):
    latents, pitches = given
    pitches = pitches.clone()
    pitches[1] = 0
    sigma = torch.tensor(2.0)
    bridge = make(melody_guidance=3.0)
    guided = bridge.conditioned(1, pitches)(latents, sigma)
    plain = make().conditioned(1, pitches)(latents, sigma)
    assert torch.allclose(guided[1], plain[1], atol=1e-5)
    assert not torch.allclose(guided[0], plain[0], atol=1e-3)


def test_the_number_of_evaluations_follows_the_level(make):
    bridge = make(num_steps=9, melody_guidance=3.0)
    high = bridge.num_evaluations
    assert bridge.with_sigma(1.5).num_evaluations < high == bridge.num_evaluations


@pytest.mark.parametrize("precision", ["32", "16"])
def test_each_half_embeds_the_melody_once(precision, make, given, monkeypatch):
    """The result is that of a melody in every network call."""
    latents, pitches = given
    bridge = make(precision=precision, melody_guidance=2.0, num_steps=4)
    embedded = []
    embed = UNet1d.embed_melody

    def count(net, melody):
        if melody is not None:  # a call without melody adds the bias
            embedded.append(melody.shape)
        return embed(net, melody)

    monkeypatch.setattr(UNet1d, "embed_melody", count)
    once = bridge.from_noise(bridge.to_noise(latents, pitches), pitches)
    assert len(embedded) == 2
    monkeypatch.setattr(Denoiser, "melody_conditions", lambda _, melody: {"melody": melody})
    every = bridge.from_noise(bridge.to_noise(latents, pitches), pitches)
    assert len(embedded) > 4 and torch.equal(once, every)


def test_guidance_by_one_is_the_model_with_melody(make, given):
    latents, pitches = given
    assert torch.equal(
        make(melody_guidance=1).from_noise(latents, pitches), make().from_noise(latents, pitches)
    )


def test_rows_of_melodies_stay_with_their_windows_in_threads(make, given):
    latents, pitches = given
    bridge = make(melody_guidance=2.0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = bridge.from_noise(bridge.to_noise(latents, pitches), pitches)
    finally:
        torch.set_num_threads(before)
    rows = [(latents[i : i + 1], pitches[i : i + 1]) for i in range(3)]
    single = torch.cat([bridge.from_noise(bridge.to_noise(*row), row[1]) for row in rows])
    assert torch.allclose(together, single, atol=BRIDGED)
    assert not torch.allclose(
        together, bridge.from_noise(bridge.to_noise(latents, pitches), pitches.flip(0)), atol=0.01
    )


def test_encoded_recordings_keep_their_melody(make):
    bridge = make()
    encoded = bridge.encode(clip(), RATE)
    assert encoded.melody.shape == (len(encoded.noise), MELODY_CHANNELS + 1, bridge.window)
    assert torch.equal(bridge.decode(encoded), bridge(clip(), RATE, octaves=0))
    dropped = bridge.decode(replace(encoded, melody=None))
    assert torch.equal(dropped, make(melody=False).decode(encoded))
    assert not torch.allclose(dropped, bridge.decode(encoded), atol=20 * BRIDGED)


# As in test_bridge.py: float16 rounds by 5e-4, ten times that after a bridge.
def test_half_precision_follows_single(make, given):
    latents, pitches = given
    expected, actual = (
        bridge.from_noise(bridge.to_noise(latents, pitches), pitches)
        for bridge in (make(precision=32), make(precision="16"))
    )
    assert 0 < (actual - expected).norm() / (expected + 6).norm() < 5e-3


def test_exported_models_keep_their_input(make, tmp_path):
    bridge = make(handoff="plain")
    paths = []
    for model in (bridge.source, bridge.target):
        paths.append(tmp_path / f"{model.spec.name}.safetensors")
        model.save(paths[-1])
    loaded = Bridge(*paths, num_steps=2, handoff="plain", melody_guidance=1)
    assert loaded.settings == bridge.settings
    assert loaded(clip(0.5), RATE).isfinite().all()


def test_records_of_transfers(make):
    """They name the melody for models with the input only; source=auto keeps what was asked."""
    run = TransferRun("flute", "violin")
    assert run.settings(make(melody=False))["melody"] is False
    assert "melody" not in run.settings(make((False, False)))
    auto = TransferRun("auto", "violin")
    assert auto.settings(make())["melody"] == "auto"
    assert "melody" not in auto.settings(make((False, False)))
    auto = TransferRun("auto", "violin", bridge={"melody": False})
    assert auto.settings(make((False, False), melody=False))["melody"] is False


def test_qualities_choose_the_guidance(make):
    for inputs, options, guidance in (
        ((True, True), {}, 3.0),
        ((False, True), {"quality": "high"}, 3.0),
        ((True, True), {"quality": "draft"}, 1),
        ((True, True), {"quality": "instant"}, 1),
        ((True, True), {"melody": False}, 1),
        ((True, False), {}, 1),
    ):
        bridge = make(inputs, melody_guidance="auto", **options)
        assert bridge.melody.guidance == guidance
        assert bridge.num_evaluations == (3 if guidance > 1 else 2)


def test_wrong_settings(make):
    for inputs, options, says in [
        ((False, False), {"melody": True}, "neither flute nor violin has one: use melody=auto"),
        ((True, True), {"melody": "yes"}, "melody=yes must be true or false, or auto"),
        ((True, True), {"melody_guidance": -1}, "melody_guidance=-1 must be a number of at least"),
        (
            (True, False),
            {"melody_guidance": 2},
            "melody_guidance=2 needs a target .* but violin has no melody input",
        ),
        ((True, True), {"melody_guidance": 2, "melody": False}, "but melody=false"),
    ]:
        with pytest.raises(InputError, match=says):
            make(inputs, **options)
    assert make((False, True), melody=True).melody == MelodyUse((False, True), 1.0, True)


def several(make_instrument):
    """A model of flute and violin whose labels have an effect."""
    labels = ("flute", "violin", "plain", "varied")
    model = make_instrument("both", labels=labels, unet={**UNET, "num_labels": 4})
    with torch.no_grad():
        model.denoiser.net.to_label.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def test_the_guidance_includes_the_label_of_one_instrument_of_several(
    make_instrument, codec, given
):
    both = several(make_instrument)
    models = [select_instrument(both, name) for name in ("flute", "violin")]
    plain, guided = (
        Bridge(*models, codec=codec, num_steps=4, melody_guidance=weight) for weight in (1, 3)
    )
    assert plain.settings.get("label_guidance") is None
    assert guided.settings["label_guidance"] == LABEL_GUIDANCE
    assert "label_model" not in guided.settings
    assert guided.num_evaluations > plain.num_evaluations
    latents, pitches = given
    whole = both.denoiser
    violin, unlabelled = torch.full((3,), 1), torch.full((3,), 4)
    for level, weights in ((5.0, (2.0, LABEL_GUIDANCE - 1)), (0.5, (0.0, 0.0))):
        sigma = torch.full((3,), level)
        found = whole(latents, sigma, violin, pitches)
        wanted = found + weights[0] * (found - whole(latents, sigma, violin))
        rest = whole(latents, sigma, violin) - whole(latents, sigma, unlabelled)
        wanted = wanted + weights[1] * rest
        assert torch.allclose(guided.conditioned(1, pitches)(latents, sigma), wanted, atol=BRIDGED)
    level = torch.full((3,), 5.0)
    source = whole(latents, level, torch.full((3,), 2), pitches)
    assert torch.allclose(guided.conditioned(0, pitches)(latents, level), source, atol=BRIDGED)


@pytest.fixture
def files(make_instrument, tmp_path):
    """A flute, a violin with guidance by the label, and a model of both beside them."""
    several(make_instrument).save(tmp_path / "all.safetensors")
    for name, weight in (("flute", None), ("violin", 2.5)):
        single = make_instrument(name, unet=UNET, label_guidance=weight)
        single.save(tmp_path / f"{name}.safetensors")
    return [tmp_path / f"{name}.safetensors" for name in ("flute", "violin")]


def test_the_guidance_of_a_single_model_uses_the_model_beside_its_file(files, codec, given):
    folder = files[0].parent
    bridge = Bridge(*files, codec=codec, num_steps=4, melody_guidance=3)
    settings = bridge.settings
    assert settings["label_guidance"] == 2.5
    assert settings["label_model"] == weights_digest(folder / "all.safetensors")
    latents, pitches = given
    sigma, unlabelled = torch.full((3,), 5.0), torch.full((3,), 4)
    both, single = load_instrument(folder / "all.safetensors", whole=True), bridge.denoisers[1]
    found = single(latents, sigma, melody=pitches)
    wanted = found + 2 * (found - single(latents, sigma))
    rest = 1.5 * (single(latents, sigma) - both.denoiser(latents, sigma, unlabelled))
    guided = bridge.conditioned(1, pitches)(latents, sigma)
    assert torch.allclose(guided, wanted + rest, atol=BRIDGED)
    silent = torch.zeros_like(pitches)
    guided, wanted = bridge.conditioned(1, silent), single(latents, sigma, melody=silent) + rest
    assert torch.allclose(guided(latents, sigma), wanted, atol=BRIDGED)

    back = Bridge(*files[::-1], codec=codec, num_steps=4, melody_guidance=3)
    assert "label_guidance" not in back.settings and back.unlabelled is None
    assert back.num_evaluations < bridge.num_evaluations
    (folder / "all.safetensors").unlink()
    with pytest.warns(UserWarning, match="model file not found.*does not include its label"):
        alone = Bridge(*files, codec=codec, num_steps=4, melody_guidance=3)
    assert alone.settings == {
        name: value for name, value in settings.items() if not name.startswith("label")
    }


def test_bridges_of_one_file_share_the_network_without_a_label(files, codec, given):
    pair = [Bridge(*files, codec=codec, num_steps=2, melody_guidance=3) for _ in range(2)]
    pair.append(pair[0].with_sigma(2.0))
    nets = [bridge.unlabelled for bridge in pair]
    assert nets[0] is nets[1] is nets[2] and nets[0] in pair[0].networks
    half = Bridge(*files, codec=codec, num_steps=2, melody_guidance=3, precision="bf16")
    assert half.unlabelled is half.with_sigma(2.0).unlabelled is not nets[0]
    latents, pitches = given
    near = torch.allclose(half.from_noise(latents, pitches), pair[0].from_noise(latents, pitches))
    assert not near


def test_frozen_networks_include_the_one_without_a_label(files, codec, given):
    bridge = Bridge(*files, codec=codec, num_steps=3, melody_guidance=3)
    frozen = with_frozen_networks(bridge, 64)
    assert isinstance(frozen.unlabelled, FrozenDenoiser)
    latents, pitches = (one[:1] for one in given)
    for _ in range(2):
        wanted = bridge.from_noise(latents, pitches)
        assert torch.allclose(frozen.from_noise(latents, pitches), wanted, atol=BRIDGED)
