"""Features of latents and melody, as a codec for the latent cache."""

import torch
from conftest import melody

from audio_diffusion_pytorch.data.melody_features import MelodyFeatures
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS, melody_input


def test_features_are_latents_and_melody(codec):
    features = MelodyFeatures(codec)
    wav = torch.from_numpy(melody(0.5))[None, None]
    encoded = features.encode(wav)
    latents = codec.encode(wav)
    assert encoded.shape == (1, 128 + MELODY_CHANNELS, latents.shape[2])
    assert encoded.shape[1] == features.latent_channels
    assert torch.equal(encoded[:, :128], latents)
    assert torch.equal(encoded[:, 128:], melody_input(wav[:, 0], 24000, codec.hop_length))
    assert features.fingerprint() != codec.fingerprint()
    assert torch.equal(features.decode(encoded), codec.decode(latents))
