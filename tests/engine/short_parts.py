"""Plugin of the workers of a transfer: recordings of a few seconds are split."""

from audio_diffusion_pytorch.transfer import parts

parts._WINDOWS = 4
