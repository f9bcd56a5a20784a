"""Settings that change memory and time of training, not its results."""

from functools import partial

import pytest
import torch
from conftest import TINY_UNET
from torch.autograd.graph import saved_tensors_hooks

from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.memory import activation_bytes

UNET = {
    **TINY_UNET,
    "channels": 32,
    "attentions": [1, 1],
    "attention_heads": 2,
    "attention_features": 8,
}


def make(codec, **settings) -> InstrumentModule:
    torch.manual_seed(0)
    return InstrumentModule(UNet1d(**UNET), codec, KDistribution(0.01, 10.0), **settings)


def gradients(
    module: InstrumentModule, batch: int = 2, frames: int = 64
) -> tuple[dict[str, torch.Tensor], int]:
    """By parameter, and the bytes that were kept for the backward pass."""
    generator = torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, batch, 128, frames, generator=generator)
    weights = {p.untyped_storage().data_ptr() for p in module.denoiser.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.denoiser.loss(z, noise, torch.tensor([0.5, 5.0])[:batch]).mean()
    size = sum(kept.values())
    loss.backward()
    return {name: p.grad for name, p in module.denoiser.named_parameters()}, size


@pytest.mark.parametrize("switch", ["checkpoint_activations", "compile"])
def test_gradients_and_keys_stay(switch, codec, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, switched = make(codec), make(codec, **{switch: True})
    assert list(plain.state_dict()) == list(switched.state_dict()) and plain.spec == switched.spec
    if switch == "compile":
        assert switched.denoiser.net._compiled_call_impl is not None
    (expected, size), (found, less) = gradients(plain), gradients(switched)
    for name, gradient in expected.items():
        # Gradients: sums over all frames in another order, the small ones of large terms.
        assert torch.allclose(
            found[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
        ), name
    if switch == "checkpoint_activations":
        assert less < 0.5 * size


def test_the_estimate_of_memory_is_what_is_kept(codec):
    _, size = gradients(make(codec))
    # An estimate: autograd also keeps other tensors.
    assert activation_bytes(UNET, 2, 64) == pytest.approx(size, rel=0.3)
    # Twice the batch needs twice the memory, except for constant parts.
    assert activation_bytes(UNET, 4, 64) == pytest.approx(
        2 * activation_bytes(UNET, 2, 64), rel=0.05
    )
    assert activation_bytes(UNET, 2, 64, recompute=True) < 0.6 * activation_bytes(UNET, 2, 64)
