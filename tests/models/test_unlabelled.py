"""The denoiser without a label comes from a model of several instruments that suits the target."""

import pytest
import torch
from conftest import TINY_UNET

from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.instrument import select_instrument
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unlabelled import unlabelled_of

LABELS = ("flute", "violin", "plain", "varied")
X, SIGMA = torch.randn(1, 128, 64), torch.tensor(2.0)


@pytest.fixture
def whole(make_instrument):
    return make_instrument("both", labels=LABELS, unet={**TINY_UNET, "num_labels": 4})


@pytest.fixture
def single(make_instrument, tmp_path):
    """`single(name)`: a model of one instrument, read from a file in `tmp_path`."""

    def make(name="violin", **spec):
        make_instrument(name, **spec).save(tmp_path / "single.safetensors")
        return load_instrument(tmp_path / "single.safetensors")

    return make


def test_the_file_beside_a_single_model_is_read_once(whole, single, tmp_path):
    whole.save(tmp_path / "all.safetensors")
    model = single()
    found = unlabelled_of(model)
    assert found.digest == weights_digest(tmp_path / "all.safetensors")
    read = load_instrument(tmp_path / "all.safetensors", whole=True)
    wanted = read.denoiser(X, SIGMA, torch.tensor([len(LABELS)]))
    assert torch.allclose(found.denoiser(X, SIGMA), wanted, atol=1e-6)
    (tmp_path / "all.safetensors").unlink()
    assert unlabelled_of(model) is found


def test_one_instrument_of_several_needs_no_file(whole):
    model = select_instrument(whole, "flute")
    found = unlabelled_of(model)
    assert found.denoiser is model.unlabelled and found.digest == ""


def test_a_model_without_a_file_has_none(make_instrument):
    assert unlabelled_of(make_instrument("flute")) is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "cello"}, "does not contain cello"),
        ({"sigma_data": 0.5}, "differs from violin in sigma_data"),
        ({"codec": "other"}, "differs from violin in codec"),
        ({"unet": {**TINY_UNET, "melody_channels": 3}}, "differs from violin in melody_channels"),
    ],
)
def test_an_unsuitable_file_is_ignored_with_a_warning(whole, single, tmp_path, spec, says):
    whole.save(tmp_path / "all.safetensors")
    model = single(**spec)
    with pytest.warns(UserWarning, match=f"all.safetensors {says}: the guidance of"):
        assert unlabelled_of(model) is None


def test_a_damaged_file_is_ignored_with_a_warning(single, tmp_path):
    (tmp_path / "all.safetensors").write_bytes(b"no model")
    with pytest.warns(UserWarning, match="the guidance of violin does not include its label"):
        assert unlabelled_of(single()) is None
