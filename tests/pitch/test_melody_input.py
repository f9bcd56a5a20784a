"""The melody input follows the pitch at the frame rate of the latents."""

import math

import pytest
import torch

from audio_diffusion_pytorch.pitch.melody_input import (
    MELODY_CHANNELS,
    drop_unpitched,
    melody_input,
    move_melody,
)

RATE = 24000


def tone(midi: float, seconds: float) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    frequency = 440 * 2 ** ((midi - 69) / 12)
    partials = (torch.sin(2 * math.pi * n * frequency * time) / n for n in (1, 2, 3))
    return 0.2 * sum(partials)


def test_the_strongest_channel_is_the_pitch_of_each_frame():
    wav = torch.cat([tone(69, 1.0), tone(76, 1.0)])[None]
    melody = melody_input(wav, RATE, 320)
    assert melody.shape == (1, MELODY_CHANNELS, 150)
    assert melody.min() >= 0 and melody.max() <= 1
    heard = 21 + melody[0].argmax(0) / 3  # three channels a semitone
    assert ((heard[8:67] - 69).abs() <= 0.5).all()
    assert ((heard[83:142] - 76).abs() <= 0.5).all()


def test_a_short_clip_has_the_melody_of_a_long_one():
    """A clip in one piece, and one in windows."""
    wav = torch.cat([tone(60 + step, 0.3) for step in range(16)])[None]
    whole = melody_input(wav, RATE, 256)
    short = melody_input(wav[:, : 130 * 256], RATE, 256)
    inner = slice(8, 122)  # without the frames that lack context
    clear = whole[0, :, inner].amax(0) > 0.5
    assert clear.sum() > 80
    distance = (short[0].argmax(0)[inner] - whole[0].argmax(0)[inner]).abs()[clear]
    assert (distance <= 1).float().mean() > 0.95  # a third of a semitone


@pytest.mark.parametrize("octaves", [-1, 0, 2])
def test_a_melody_moves_by_octaves(octaves):
    melody = torch.rand(MELODY_CHANNELS, 4)
    moved = move_melody(melody, octaves)
    by = 36 * octaves
    if by >= 0:
        assert torch.equal(moved[by:], melody[: MELODY_CHANNELS - by]) and not moved[:by].any()
    else:
        assert torch.equal(moved[:by], melody[-by:]) and not moved[by:].any()


def test_frames_are_rounded_up():
    assert melody_input(tone(60, 1.0)[None, :-1], RATE, 320).shape[-1] == 75
    assert melody_input(tone(60, 1.0)[None, :321], RATE, 320).shape[-1] == 2


def test_the_melody_of_noise_and_drums_is_dropped():
    noise = torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    drum = noise * torch.exp(-30 * (torch.arange(RATE) % (RATE // 4)) / RATE)
    sounds = torch.stack([0.2 * noise, 0.5 * drum, tone(60, 1.0), tone(90, 1.0)])
    melody = melody_input(sounds, RATE, 320)
    kept = drop_unpitched(melody)
    assert kept.shape == (4, MELODY_CHANNELS + 1, 75)
    assert kept[:, -1, 0].tolist() == [0, 0, 1, 1]
    assert not kept[:2].any() and torch.equal(kept[2:, :-1], melody[2:])
