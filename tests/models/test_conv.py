"""Convolutions as matrix products: the same numbers and gradients as torch's own."""

import copy

import pytest
import torch
from tolerances import NETWORK
from torch import nn

from audio_diffusion_pytorch.models import conv
from audio_diffusion_pytorch.models.layers import downsample, upsample
from audio_diffusion_pytorch.models.unet import UNet1d


@pytest.mark.parametrize("length", [1, 5, 24])
@pytest.mark.parametrize(
    "make",
    [
        lambda: conv.Conv1d(6, 5, 3, padding=1),
        lambda: conv.Conv1d(6, 5, 1),
        lambda: downsample(6, 5, 2),
        lambda: downsample(6, 5, 4),
        lambda: downsample(6, 5, 3),
        lambda: upsample(6, 5, 2),
        lambda: upsample(6, 5, 4),
        lambda: upsample(6, 5, 3),
    ],
)
def test_product_and_convolution_agree(make, length, monkeypatch):
    torch.manual_seed(0)
    layer = make().double()
    x, results = torch.randn(3, 6, length, dtype=torch.double), []
    calls = []
    for name in ("Conv1d", "ConvTranspose1d"):
        plain = getattr(nn, name).forward
        monkeypatch.setattr(
            getattr(nn, name), "forward", lambda s, x, f=plain: calls.append(s) or f(s, x)
        )
    for least in (1, 1 << 30):
        monkeypatch.setattr(conv, "_MIN_WEIGHTS", least)
        own, layer_copy = x.clone().requires_grad_(), copy.deepcopy(layer)
        out = layer_copy(own)
        out.square().sum().backward()
        results.append([out, own.grad, *(p.grad for p in layer_copy.parameters())])
        assert len(calls) == (least > 1)  # that it was the product, and then was not
    for product, convolution in zip(*results, strict=True):
        # float64.
        assert product.shape == convolution.shape and torch.allclose(
            product, convolution, atol=1e-12
        )


def test_long_or_narrow_ones_stay_convolutions(monkeypatch):
    layer, x = conv.Conv1d(512, 512, 3, padding=1), torch.zeros(1, 512, conv._MAX_COLUMNS + 1)
    monkeypatch.setattr(nn.Conv1d, "forward", lambda self, x: "convolution")
    assert layer(x) == "convolution" and layer(x[..., 1:]) != "convolution"
    assert conv.Conv1d(16, 16, 3)(x[:, :16, :8]) == "convolution"


def test_a_wide_network_has_the_same_output(monkeypatch):
    torch.manual_seed(0)
    net = UNet1d(
        8,
        32,
        multipliers=[1, 16],
        factors=[2],
        num_blocks=[1],
        attentions=[0, 1],
        attention_features=8,
    )
    x, c_noise = torch.randn(2, 8, 16), torch.randn(2)
    out = net(x, c_noise)
    monkeypatch.setattr(conv, "_MAX_COLUMNS", 0)
    assert torch.allclose(net(x, c_noise), out, atol=NETWORK)
