"""Codecs: exact lengths, the range of the latents, files."""

import pytest
import torch
from conftest import ODD_NAME, RATE, TINY_CODEC, melody
from tolerances import HALF_MODEL, NETWORK, ROUNDING

from audio_diffusion_pytorch.audio.mel import LogMel
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.errors import InputError

TINY_ENCODEC = {"n_filters": 4, "dimension": 16, "lstm": 1}


@pytest.fixture(scope="module")
def encodec():
    return EncodecCodec(weights="random", config=TINY_ENCODEC).freeze()


@pytest.mark.parametrize("kind", ["codec", "encodec"])
@pytest.mark.parametrize("length", [1, 319, 320, 321, 4800, 12345])
def test_lengths_come_back_exactly(kind, length, request):
    codec = request.getfixturevalue(kind)
    wav = torch.randn(2, 1, length) / 10
    latents = codec.encode(wav)
    assert (
        latents.shape
        == (2, codec.latent_channels, codec.num_frames(length))
        == (2, codec.latent_channels, -(-length // 320))
    )
    assert codec.decode(latents, length).shape == wav.shape
    assert codec.decode(latents).shape == (2, 1, latents.shape[-1] * codec.hop_length)


@pytest.mark.parametrize("kind", ["codec", "encodec"])
@pytest.mark.parametrize("shape", [(1, 320), (1, 2, 320), (1, 1, 0)])
def test_wrong_shapes_are_refused(kind, shape, request):
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        request.getfixturevalue(kind).encode(torch.zeros(shape))


def test_frozen_codecs_have_no_gradients(codec, encodec):
    for frozen in (codec, encodec):
        assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())


def test_encodec_with_its_weight_norm_folded_gives_the_same():
    torch.manual_seed(0)
    codec = EncodecCodec(weights="random", config=TINY_ENCODEC).eval()
    for name, value in codec.named_parameters():
        if name.endswith("weight_g"):
            value.data.mul_(1.5)  # changes gain and direction after initialisation
    wav = 0.1 * torch.randn(2, 1, 3200)
    with torch.no_grad():
        latents = codec.encode(wav)
        sound = codec.decode(latents)
        codec.freeze()
        assert not [key for key in codec.state_dict() if key.endswith(("weight_g", "weight_v"))]
        assert torch.allclose(codec.encode(wav), latents, atol=ROUNDING)
        assert torch.allclose(codec.decode(latents), sound, atol=ROUNDING)


def test_mel_latents_lie_between_silence_and_full_scale(codec):
    silence = codec.encode(torch.zeros(1, 1, 6400))
    assert torch.allclose(silence, torch.tensor(1e-4).log(), atol=NETWORK)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(6400) / RATE)[None, None]
    peak = codec.encode(tone).amax(1)[0, 5:-5]
    assert (peak - peak.mean()).abs().max() < 0.05 and -1.5 < peak.mean() < 0.5
    quieter = codec.encode(tone / 10).amax(1)[0, 5:-5]
    # The floor of 1e-4 raises levels 20 dB below by up to 5 %.
    assert torch.allclose(peak - quieter, torch.tensor(10.0).log(), atol=0.05)


def test_mel_frames_are_where_the_sound_is():
    """A click in hop 7's middle is loudest in frame 7."""
    wav = torch.zeros(1, 6400)
    wav[0, 7 * 320 + 160] = 1.0
    assert LogMel(RATE, 2048, 320, 128, 20.0, 1e-4)(wav)[0].mean(0).argmax() == 7


def test_every_mel_band_hears_something():
    filters = LogMel(RATE, 2048, 320, 128, 20.0, 1e-4).filters
    assert filters.shape == (128, 1025) and (filters.sum(1) > 0).all()


def test_saved_in_half_precision_with_its_configuration(codec, tmp_path):
    path = tmp_path / ODD_NAME / "codec.safetensors"
    codec.save(path, {"step": "7"})
    assert path.stat().st_size < 2.2 * sum(p.numel() for p in codec.parameters()) + 10000
    again = load_codec(path)
    assert again.config == codec.config and again.config["dim"] == TINY_CODEC["dim"]
    for key, value in codec.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.half().float())
    wav = torch.from_numpy(melody(0.5))[None, None]
    assert torch.equal(again.encode(wav), codec.encode(wav))
    assert torch.allclose(
        again.decode(again.encode(wav)), codec.decode(codec.encode(wav)), atol=HALF_MODEL
    )


def test_files_that_are_no_codec(codec, make_instrument, tmp_path):
    path = tmp_path / "codec.safetensors"
    with pytest.raises(InputError, match="codec file not found"):
        load_codec(path)
    codec.save(path)
    good = path.read_bytes()
    for bad in (b"", b"no codec", good[: len(good) // 2]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=f"cannot read {path}"):
            load_codec(path)
    make_instrument().save(path)
    with pytest.raises(InputError, match=f"cannot read {path}"):
        load_codec(path)
    with pytest.raises(InputError, match="codec=mp3 must be one of small, encodec"):
        load_codec("mp3")


def test_encodec_has_the_published_shape():
    codec = load_codec("encodec", weights="random")
    assert (codec.sample_rate, codec.hop_length, codec.latent_channels) == (24000, 320, 128)
    latents = codec.encode(torch.randn(1, 1, 3200))
    assert latents.shape == (1, 128, 10)


def test_encodec_without_weights_says_what_to_do(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_codec("encodec")
    assert "encodec_24khz-d7cc33bc.th" in str(caught.value) and "small" in str(caught.value)
    (tmp_path / ODD_NAME).mkdir()
    with pytest.raises(InputError, match=r"encodec_24khz-d7cc33bc.th"):
        load_codec("encodec", repository=str(tmp_path / ODD_NAME))
    assert not list(tmp_path.rglob("*.th"))


class OldCodec(MelCodec):
    """A codec from before the renames: old names, called through `super` and on itself."""

    cheap = False

    def __init__(self):
        super().__init__(dim=8, intermediate_dim=8, num_layers=1, rounds=0)
        self.edge = 7

    def levels(self, latents):
        return super().levels(latents) + 1

    def follow(self, latents, levels):
        return super().follow(latents, levels - 1) if self.spectral else latents


def test_a_codec_with_the_old_names_works_under_the_new_ones():
    old = OldCodec().freeze()
    new = MelCodec(dim=8, intermediate_dim=8, num_layers=1, rounds=0).freeze()
    latents = torch.randn(1, 128, 40)
    levels = new.frame_levels(latents)
    assert torch.equal(old.frame_levels(latents), levels + 1)
    followed = old.impose_levels(latents, levels + 1)
    assert torch.allclose(followed, new.impose_levels(latents, levels + 1 - 2), atol=ROUNDING)
    assert (old.encodes_fast, old.cheap, old.edge_frames, old.edge) == (False, False, 7, 7)
    assert (new.cheap, new.spectral, new.edge) == (True, True, new.edge_frames)


def test_old_names_of_a_mixin_and_of_the_base_class_work():
    class Loud:
        spectral = True

        def levels(self, latents):
            return super().levels(latents) + 2

    class Mixed(Loud, Codec):
        pass

    codec, latents = Mixed(), torch.zeros(1, 4, 3)
    assert codec.has_frequency_bands and (codec.frame_levels(latents) == 2).all()
    assert (codec.levels(latents) == 2).all() and codec.edge == codec.edge_frames == 0
