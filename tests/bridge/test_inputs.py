"""The first sound of a stream: after silence, noise, a constant or rumble, for any blocks."""

import pytest
import torch

from audio_diffusion_pytorch.bridge.inputs import SoundBuffer, after_first_second
from audio_diffusion_pytorch.bridge.recording_stats import audible


def stream_of(wav: torch.Tensor, size: int, samples: int) -> tuple[int, torch.Tensor, int]:
    """Samples of silence, what is held, and the samples that were not asked for yet."""
    blocks, silent = iter(audible(wav.split(size, 1), 1000)), 0
    start = SoundBuffer(blocks, 1000, samples / 1000)
    for block in start.silence():
        assert not block.any()
        silent += block.shape[1]
    held = torch.cat([wav[:, :0], *start.held], 1)
    return silent, held, sum(block.shape[1] for block in blocks)


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 5000])
@pytest.mark.parametrize("below", ["nothing", "offset", "rumble"])
def test_the_first_sound_is_held_whatever_the_blocks(size, below):
    time = torch.arange(4000) / 1000
    wav = 1e-3 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    wav += {"nothing": 0.0, "offset": 0.3, "rumble": 0.3 * (2 * torch.pi * 5 * time).cos()}[below]
    wav[1, 1500:] += 0.3 * torch.sin(torch.arange(1, 2501) * 0.5)
    silent, held, left = stream_of(wav, size, 600)
    heard = torch.cat(list(audible([wav], 1000)), 1)
    assert abs(silent - 1500) < 20 and torch.equal(held, heard[:, silent : silent + held.shape[1]])
    assert held.shape[1] >= 600 and silent + held.shape[1] + left == 4000
    assert held.shape[1] < 600 + size + 1024 or left == 0  # what the high-pass saw is held, too


@pytest.mark.parametrize("level", [0.005, 0.5])
def test_what_has_no_sound_is_silent_to_its_end(level):
    assert stream_of(torch.full((1, 500), level), 30, 100) == (
        500,
        pytest.approx(torch.zeros(1, 0)),
        0,
    )


def test_a_stream_that_ends_early_is_held_to_its_end():
    wav = torch.cat([torch.zeros(1, 100), (torch.arange(50) * 0.7).sin()[None]], 1)
    silent, held, left = stream_of(wav, 50, 100)
    assert 0 < silent <= 101 and (silent + held.shape[1], left) == (150, 0)


def test_a_decision_falls_once_with_the_first_second_of_sound():
    sound = torch.cat([torch.zeros(1, 500), torch.ones(1, 2000)], 1)
    for size in (1, 300, 2500):
        decided = []
        out = list(after_first_second(sound.split(size, 1), 1000, 0.5, decided.append))
        assert torch.equal(torch.cat(out, 1), sound) and len(decided) == 1
        assert torch.equal(decided[0], torch.ones(1, 1000))
    short, decided = torch.ones(1, 10), []
    assert list(after_first_second([short], 1000, 0.5, decided.append)) == [short] and torch.equal(
        decided[0], short
    )
    assert (
        len(list(after_first_second([0 * short], 1000, 0.5, decided.append))) == 1
        and len(decided) == 1
    )
