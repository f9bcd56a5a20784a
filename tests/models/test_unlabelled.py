"""The denoiser without a label comes from a model of several instruments that suits the target."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_UNET

from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.instrument import select_instrument
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unlabelled import (
    LABEL_GUIDANCE,
    label_weight,
    unlabelled_of,
)

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
    assert unlabelled_of(single()).denoiser is found.denoiser
    whole.save(tmp_path / "all.safetensors", {"changed": "yes"})
    assert unlabelled_of(single()).denoiser is not found.denoiser


def test_one_instrument_of_several_needs_no_file(whole):
    model = select_instrument(whole, "flute")
    found = unlabelled_of(model)
    assert found.denoiser is model.unlabelled and found.digest == ""


def test_the_weight_is_that_of_the_file_or_the_usual_one(make_instrument, whole):
    assert label_weight(make_instrument("flute")) == 1
    assert label_weight(make_instrument("flute", label_guidance=2.0)) == 2
    assert label_weight(select_instrument(whole, "flute")) == LABEL_GUIDANCE
    whole.spec = replace(whole.spec, label_guidance=1.0)
    assert label_weight(select_instrument(whole, "flute")) == 1


def test_a_name_with_an_underscore_is_that_of_the_label(make_instrument, single, tmp_path):
    labels = ("double bass", "violin", "plain", "varied")
    both = make_instrument("both", labels=labels, unet={**TINY_UNET, "num_labels": 4})
    both.save(tmp_path / "all.safetensors")
    assert unlabelled_of(single("double_bass")) is not None


@pytest.mark.parametrize("name", ["flute", "trumpet"])
def test_the_shipped_models_use_theirs(name, recwarn):
    assert label_weight(load_instrument(name)) > 1
    assert unlabelled_of(load_instrument(name)) is not None and not recwarn.list


def test_a_model_without_a_file_has_none(make_instrument):
    assert unlabelled_of(make_instrument("flute")) is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "cello"}, "does not contain cello"),
        ({"sigma_data": 0.5}, "differs from violin in sigma_data"),
        ({"codec": "other"}, "differs from violin in codec"),
        ({"unet": {**TINY_UNET, "melody_channels": 3}}, "differs from violin in melody_channels"),
        ({"unet": {**TINY_UNET, "factors": [4]}}, "differs from violin in downsample_factor"),
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
