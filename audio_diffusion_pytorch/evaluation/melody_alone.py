"""Reference point of models with a melody input: play the melody, ignore everything else."""

import time
from typing import Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import LevelMeter, Resampler
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.overlap_add import CrossFade, matching_gain
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.windows import WindowCutter
from audio_diffusion_pytorch.evaluation.clips import Excerpt
from audio_diffusion_pytorch.evaluation.settings import MELODY
from audio_diffusion_pytorch.evaluation.systems import Output, SeededTarget
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.utils.iterables import batches


class MelodyAlone(SeededTarget):
    """Play the melody of the excerpt with the target's model, from fresh noise.

    No source model is involved, and the output follows neither the level nor the noise of the
    excerpt.

    Args:
        target: model of the target instrument, with a melody input.
        seed: seed of the noise.
        options: passed to `Bridge`; `sigma` is the level of the noise.
    """

    name = MELODY
    shifts = True

    def __init__(self, target: InstrumentModel, seed: int, **options: Any):
        super().__init__(Bridge(target, target, **options), target, seed, "melody")

    @torch.inference_mode()
    def make(self, wav: Tensor, excerpt: Excerpt, index: int, octaves: int = 0) -> Output:
        """Play the melody; the seed of the noise follows from the excerpt's name."""
        rate = self.bridge.codec.sample_rate
        started = time.perf_counter()
        wav = torch.cat(list(audible([wav], rate)), -1)
        stats = RecordingStats.of_audible([wav], rate)
        latents = self._latents(wav, stats, octaves, self.seed_of(excerpt))
        out = self.bridge.codec.decode(latents.to(self.bridge.device)).cpu()[:, 0]
        out = Resampler(rate, stats.tuned_rate(rate), 1)(out, last=True)
        out = torch.nn.functional.pad(out, (0, max(0, wav.shape[-1] - out.shape[-1])))
        out = out[:, : wav.shape[-1]]
        meter = LevelMeter(rate)
        meter.update(out)
        seconds = (time.perf_counter() - started) / excerpt.seconds
        return out * matching_gain(stats.level, meter), {"seconds_per_second": seconds}

    def _latents(self, wav: Tensor, stats: RecordingStats, octaves: int, seed: int) -> Tensor:
        """Generate latents [1, D, L]; overlapping windows share their noise."""
        bridge = self.bridge
        cutter = WindowCutter(bridge.framing, bridge.codec.sample_rate, 1, stats, octaves)
        windows = list(cutter.windows([wav]))
        channels = bridge.codec.latent_channels
        generator = torch.Generator().manual_seed(seed)
        frames = windows[-1].start + bridge.window
        noise = bridge.sigma * torch.randn(channels, frames, generator=generator)
        cross_fade = CrossFade(bridge.window, bridge.hop, 1, channels)
        parts = []
        for batch in batches(windows, bridge.batch_size):
            melody = bridge.melody_of(torch.stack([window.wav for window in batch]))
            rows = [noise[:, window.start : window.start + bridge.window] for window in batch]
            latents = bridge.from_noise(torch.stack(rows).to(bridge.device), melody).cpu()
            parts += [cross_fade.add(*pair) for pair in zip(batch, latents, strict=True)]
        return torch.cat(parts, -1)
