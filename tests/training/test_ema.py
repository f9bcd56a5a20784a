"""The moving average of the weights."""

import copy

import pytest
import torch
from tolerances import NETWORK
from torch import nn

from audio_diffusion_pytorch.training.ema import EMA, ema_decay


def test_decay_starts_late_and_ends_at_beta():
    """The reference: 0 until step 100, then min(beta, 1 - (1 + n)^-power) with n = step - 101."""
    assert [ema_decay(step) for step in (1, 100, 101)] == [0.0] * 3
    assert ema_decay(102) == pytest.approx(1 - 2**-0.7)
    assert ema_decay(201) == pytest.approx(1 - 101**-0.7)
    assert ema_decay(10**6) == 0.995
    steps = [ema_decay(step) for step in range(1, 3000)]
    assert steps == sorted(steps)


def test_the_average_follows_the_formula():
    torch.manual_seed(0)
    online = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema, expected = EMA(online), None
    for step in range(1, 131):
        with torch.no_grad():
            for p in online.parameters():
                p.add_(torch.randn_like(p))
        online(torch.randn(4, 3))
        ema.update(online)
        decay, weight = ema_decay(step), online[0].weight.detach().clone()
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    assert torch.allclose(ema.model[0].weight, expected, atol=NETWORK)
    assert torch.equal(ema.model[1].running_mean, online[1].running_mean)
    assert int(ema.step) == 130 and ema.decay == ema_decay(130)


def test_the_average_is_apart_and_only_evaluated():
    online = nn.Dropout(0.5)
    online.weight = nn.Parameter(torch.ones(3))
    ema = EMA(online).train()
    assert not ema.model.training and not ema.model.weight.requires_grad
    assert ema.model.weight is not online.weight and online.training


def test_state_is_restored():
    online = nn.Linear(2, 2)
    ema = EMA(online)
    for _ in range(105):
        ema.update(online)
    other = EMA(copy.deepcopy(online))
    other.load_state_dict(ema.state_dict())
    assert int(other.step) == 105
