import numpy as np
import torch
from conftest import RATE, melody

from audio_diffusion_pytorch.bridge.fit_windows import Recording
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.training.varied_recordings import SOFTER, vary

STILL = RecordingAugment(probability=0.0)  # changes nothing


def recording(seconds=1.0, rate=RATE, channels=2, seed=0):
    wav = torch.from_numpy(melody(seconds, seed=seed)).float()
    return Recording(wav.expand(channels, -1), rate)


def copies(recordings, augment=STILL, second_voice=0.0, seed=0):
    return vary(recordings, augment, second_voice, np.random.default_rng(seed))


def test_copies_are_varied_mono_and_repeatable():
    given = [recording(), recording(seed=1)]
    augment = RecordingAugment(probability=1.0)
    first, again, other = (copies(given, augment, 1.0, seed) for seed in (0, 0, 1))
    assert len(first) == 2
    for one, same, different, source in zip(first, again, other, given, strict=True):
        length = source.wav.shape[1] - augment.margin(source.wav.shape[1])
        assert one.wav.shape == (1, length) and one.wav.abs().max() <= 1
        assert one.sample_rate == RATE
        torch.testing.assert_close(one.wav, same.wav, rtol=0, atol=0)
        assert not torch.allclose(one.wav, different.wav)


def test_a_second_voice_is_another_recording_and_softer():
    given = [recording(), recording(0.5, seed=1)]
    alone, both = copies(given), copies(given, second_voice=1.0, seed=3)
    found = 0
    for one, two in zip(alone, both, strict=True):
        added = two.wav - one.wav
        decibels = 20 * (added.square().mean().sqrt() / one.wav.square().mean().sqrt()).log10()
        if two.wav.abs().max() < 1:  # not scaled
            found += 1
            assert -SOFTER[1] - 3.1 <= decibels <= -SOFTER[0] + 0.1
    assert found


def test_rates_are_not_mixed():
    """Each recording has only itself as its second voice, so the copy is a multiple of it."""
    given = [recording(rate=48000), recording(rate=44100, seed=1)]
    for seed in range(4):
        for one, two in zip(copies(given), copies(given, second_voice=1.0, seed=seed), strict=True):
            assert torch.cosine_similarity(one.wav, two.wav) > 0.9999


def test_a_recording_shorter_than_the_margin_has_no_copy():
    assert copies([Recording(torch.zeros(1, 1), RATE)]) == []
