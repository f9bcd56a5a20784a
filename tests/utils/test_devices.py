"""Apple's GPU, simulated: it is chosen, and float64 and complex numbers avoid it."""

import copy
from dataclasses import dataclass

import pytest
import torch
from conftest import RATE, melody
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs import mel as codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models import classifier
from audio_diffusion_pytorch.models.classifier import load_classifier
from audio_diffusion_pytorch.utils import devices
from audio_diffusion_pytorch.utils.devices import choose_device, device_of, exact_device, exactly

MPS = torch.device("mps", 0)


def test_the_device_of_a_module():
    """Codecs of users may have buffers only, or neither."""
    linear, buffer = nn.Linear(1, 1, device="meta"), nn.Module()
    buffer.register_buffer("basis", torch.empty(1, device="meta"))
    found = [device_of(module).type for module in (linear, buffer, nn.Identity())]
    assert found == ["meta", "meta", "cpu"]


def test_auto_finds_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    made = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: made.append(device) or torch.zeros(0))
    choose_device("auto")
    choose_device("mps")
    assert made == ["mps", "mps"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choose_device("auto")
    assert made[-1] == "cuda"


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
def test_where_there_is_none_an_error_says_so():
    with pytest.raises(
        InputError, match=r"device=mps cannot be used .*use cpu, cuda, cuda:1 \.\.\., mps or auto"
    ):
        choose_device("mps")


def test_exact_work_is_done_elsewhere():
    assert exact_device(MPS) == torch.device("cpu")
    for name in ("cpu", "cuda:1", "meta"):
        assert exact_device(torch.device(name)) == torch.device(name)


@dataclass
class OnMps:
    """As much of a tensor as `exactly` asks for."""

    value: float
    device: torch.device = MPS

    def to(self, device: torch.device) -> "OnMps":
        return OnMps(self.value, torch.device(device))


class Places(nn.Module):
    def forward(self, *inputs: OnMps) -> OnMps:
        self.seen = [x.device.type for x in inputs]
        return OnMps(sum(x.value for x in inputs), inputs[0].device)


def test_inputs_move_there_and_the_result_back(monkeypatch):
    module, copied = Places(), []
    monkeypatch.setattr(
        devices.copy, "deepcopy", lambda m: copied.append(copy.copy(m)) or copied[-1]
    )
    assert exactly(module, OnMps(1.0), OnMps(2.0)) == OnMps(3.0)
    assert copied[0].seen == ["cpu", "cpu"] and not hasattr(
        module, "seen"
    )  # the module stays where it is
    x = torch.ones(1)
    assert exactly(nn.Identity(), x) is x


STEPS = 3


class Plain(TorchDispatchMode):
    """Refuse what Apple's GPU lacks; the schedule, a few float64 numbers, stays on the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        double = any(x.dtype == torch.float64 for x in tensors)
        if any(x.is_complex() for x in tensors) or (
            double and max(x.numel() for x in tensors) > STEPS
        ):
            raise TypeError(f"{func} with {[x.dtype for x in tensors]}")
        return out


@pytest.fixture
def plain_device(monkeypatch):
    def on_the_cpu(module, *inputs):
        with _disable_current_modes():
            return module(*inputs)

    monkeypatch.setattr(codec, "exactly", on_the_cpu)
    monkeypatch.setattr(classifier, "exactly", on_the_cpu)
    return Plain


def test_what_is_refused(plain_device):
    for work in (torch.fft.rfft, torch.Tensor.double):
        with pytest.raises(TypeError), plain_device():
            work(torch.zeros(8))


@pytest.mark.parametrize("handoff", ["matched", "plain"])
def test_models_and_codec_use_neither(handoff, plain_device):
    bridge = Bridge("flute", "violin", num_steps=STEPS, handoff=handoff)
    wav = torch.from_numpy(melody(2.0))[None, None]
    windows = torch.ones(1, 150)
    with plain_device(), torch.inference_mode():
        latents = bridge.codec.encode(wav)
        noise = bridge.hand_over(bridge.to_noise(latents[..., :144]), windows[:, :144])
        given = bridge.codec.impose_levels(
            bridge.from_noise(noise), bridge.codec.frame_levels(latents[..., :144])
        )
        assert bridge.codec.decode(given).dtype == torch.float32


def test_the_classifier_uses_neither(plain_device):
    wav = torch.from_numpy(melody(2.0))[None]
    model = load_classifier()
    heard = wav if model.sample_rate == RATE else torch.zeros(1, 2 * model.sample_rate)
    with plain_device(), torch.inference_mode():
        assert model(heard).dtype == torch.float32
