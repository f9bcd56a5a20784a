"""Digests: their digits are in cache keys and must not change."""

import os

import pytest
import torch
from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils import hashing


@pytest.fixture
def linear():
    module = nn.Linear(2, 2)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def test_digits_stay(linear, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 40)
    assert hashing.content_digest(path) == "c305368eac76ec04ed623f426c82e443"
    assert hashing.content_sample(path) == "9df0a73ac939d229"
    assert hashing.text_digest("a\udcff", 6) == "8dd06b"
    assert hashing.digest({"b": 1, "a": [None]}, 2.5) == "5620e998fd4c89eaa61c5f53"
    assert hashing.digest_of(linear, "x") == "b95c8c8eb234ef0bb047415f"
    assert hashing.fingerprint("Codec", 128, linear.state_dict()) == "a762e7d7f29e018a"


def test_weights_and_names_count(linear):
    before = hashing.digest_of(linear), hashing.fingerprint(linear.state_dict())
    with torch.no_grad():
        linear.bias[0] = 1e-30
    assert hashing.digest_of(linear) != before[0]
    assert hashing.fingerprint(linear.state_dict()) != before[1]


def test_a_remembered_file_is_read_again_after_a_change(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    memory = hashing.DigestMemory(tmp_path / "memory.json")
    first = memory(str(path))
    memory.save()
    again = hashing.DigestMemory(tmp_path / "memory.json")
    assert again(str(path)) == first and not again.new
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert again(str(path)) == hashing.content_digest(path) != first
    with pytest.raises(InputError, match="cannot read"):
        again(str(tmp_path / "none"))
