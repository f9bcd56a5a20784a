"""CREPE tracks known pitches, repeatably, without noise on the pitch."""

import sys

import numpy as np
import pytest
import torch

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.crepe import track_crepe

RATE = 24000


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcrepe", None)
    with pytest.raises(InputError, match=r"pip install torchcrepe"):
        track_crepe(torch.zeros(1, RATE), RATE)


@pytest.mark.long
def test_pitches_and_pauses_are_found():
    pytest.importorskip("torchcrepe", reason="needs the extra `judge`")
    time = torch.arange(RATE) / RATE
    rows = [
        sum(torch.sin(2 * torch.pi * k * f * time) / k for k in range(1, 9)) for f in (196, 440)
    ]
    wavs = 0.2 * torch.stack(rows)
    wavs[:, RATE // 2 :] = 1e-5 * torch.randn(2, RATE // 2, generator=torch.manual_seed(0))
    first, second = track_crepe(wavs, RATE), track_crepe(wavs, RATE)
    for found, again, hertz in zip(first, second, (196, 440), strict=True):
        assert len(found.times) == 101 and found.times[1] == pytest.approx(0.01)
        assert found.voiced[5:45].all() and not found.voiced[60:].any()
        assert np.abs(1200 * np.log2(found.hertz[5:45] / hertz)).max() < 15
        assert np.array_equal(found.hertz, again.hertz)
