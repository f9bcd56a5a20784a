"""The first sound of a stream: after silence, a room's noise, a constant, whatever the blocks."""

import pytest
import torch

from audio_diffusion_pytorch.incoming import hold_first_sound


def stream_of(wav: torch.Tensor, size: int, samples: int) -> tuple[int, torch.Tensor, int]:
    """Samples of silence, what is held, and the samples that were not asked for yet."""
    blocks, silent = iter(wav.split(size, 1)), 0
    holding = hold_first_sound(blocks, 1000, samples / 1000)
    while True:
        try:
            block = next(holding)
        except StopIteration as end:
            held = torch.cat([wav[:, :0], *end.value], 1)
            return silent, held, sum(block.shape[1] for block in blocks)
        assert not block.any()
        silent += block.shape[1]


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 5000])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_the_first_sound_is_held_whatever_the_blocks(size, offset):
    noise = 1e-3 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    wav = noise + offset
    wav[1, 1500:] += 0.3 * torch.sin(torch.arange(1, 2501) * 0.1)
    silent, held, left = stream_of(wav, size, 600)
    assert silent <= 1500 < silent + size and torch.equal(held, wav[:, silent : silent + held.shape[1]])
    assert 2100 <= silent + held.shape[1] < 2100 + size or left == 0
    assert silent + held.shape[1] + left == 4000


def test_what_has_no_sound_is_silent_to_its_end():
    assert stream_of(torch.full((1, 500), 0.005), 30, 100) == (500, pytest.approx(torch.zeros(1, 0)), 0)
    wav = torch.cat([torch.zeros(1, 100), torch.ones(1, 50)], 1)
    silent, held, left = stream_of(wav, 50, 100)
    assert (silent, held.shape[1], left) == (100, 50, 0)  # it ends early
