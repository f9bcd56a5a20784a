"""Latents that a model of several instruments denoised: which, how far, and what is refused."""

import pytest
import torch
from conftest import TINY_UNET

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.denoised_latents import DenoisedLatents

LABELS = ("flute", "violin", "plain", "varied")


@pytest.fixture
def source(make_instrument, tmp_path) -> str:
    model = make_instrument("both", labels=LABELS, unet={**TINY_UNET, "num_labels": 4})
    model.mean[1] += 3
    model.save(tmp_path / "both.safetensors")
    return str(tmp_path / "both.safetensors")


def latents(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 128, 16, generator=torch.Generator().manual_seed(0)) - 5


def test_a_share_of_the_samples_is_denoised(source):
    given, label = latents(), torch.arange(16) % 4
    made = DenoisedLatents(source, share=0.5, seed=3)
    out = made(given, label, step=7, rank=0)
    changed = (out != given).flatten(1).any(1)
    assert out.shape == given.shape and 2 < changed.sum() < 14
    assert torch.equal(out, DenoisedLatents(source, share=0.5, seed=3)(given, label, 7, 0))
    assert not torch.equal(out, made(given, label, 8, 0))
    assert torch.equal(DenoisedLatents(source, share=0)(given, label, 7, 0), given)
    assert torch.equal(given, latents())


def test_low_noise_changes_little(source):
    given, label = latents(), torch.arange(16) % 4
    errors = [
        (DenoisedLatents(source, 1.0, level, level)(given, label, 0, 0) - given).std()
        for level in (0.01, 0.1, 1.0)
    ]
    assert errors[0] < 0.2 * errors[1] < 0.2 * errors[2]


def test_settings_are_checked(source, make_instrument, tmp_path):
    make_instrument("flute").save(tmp_path / "flute.safetensors")
    with pytest.raises(InputError, match="several instruments"):
        DenoisedLatents(str(tmp_path / "flute.safetensors"))
    with pytest.raises(InputError, match=r"model\.denoised\.share"):
        DenoisedLatents(source, share=2)
    with pytest.raises(InputError, match=r"model\.denoised\.lowest"):
        DenoisedLatents(source, lowest=0)
    with pytest.raises(InputError, match=r"model\.denoised\.highest"):
        DenoisedLatents(source, lowest=0.5, highest=0.1)
