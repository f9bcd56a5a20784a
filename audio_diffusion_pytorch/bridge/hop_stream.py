"""Bridge a stream by short hops, with a short and constant delay."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.audio.gliding import GlidingResampler
from audio_diffusion_pytorch.audio.highpass import CausalHighPass
from audio_diffusion_pytorch.bridge.hop_decoder import FEATURES, HopDecoder
from audio_diffusion_pytorch.bridge.hop_gain import HopGain
from audio_diffusion_pytorch.bridge.hop_octaves import HopOctaves
from audio_diffusion_pytorch.bridge.hop_sizes import FADE, HopSizes
from audio_diffusion_pytorch.bridge.inputs import validate_blocks
from audio_diffusion_pytorch.bridge.recording_stats import QUIET, SILENCE, RecordingStats
from audio_diffusion_pytorch.bridge.running_stats import RunningStats
from audio_diffusion_pytorch.bridge.windows import Window, WindowCutter

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.model_pair import ModelPair
    from audio_diffusion_pytorch.pitch.octaves import Octaves


class HopTransfer:
    """Bridge sound that arrives in blocks, hop by hop.

    Each hop passes one window [context | hop | look-ahead] through the networks. Of its latents the
    hop remains, with a short cross-fade from the look-ahead of the window before. The decoder
    continues the sound of the hop before. Memory does not grow.

    Args:
        pair: bridge.
        sample_rate: rate of input and output in Hz.
        channels: channels of every block.
        sizes: sizes of the hops.
        survey: level, tuning and noise of the stream; None: measured while it passes.
        octaves: octaves by which the sound moves first; "auto": into the target's range, decided
            once, on the first sound.

    Attributes:
        sizes: as given.
        hops: hops so far.
    """

    def __init__(
        self,
        pair: ModelPair,
        sample_rate: int,
        channels: int,
        sizes: HopSizes,
        survey: RecordingStats | None = None,
        octaves: Octaves = "auto",
    ):
        self.sizes = sizes
        self.hops = 0
        self._pair = copy.copy(pair)
        self._pair.vibrato = False  # to keep it needs sound that has not arrived
        self._sample_rate = sample_rate
        self._channels = channels
        self._framing = replace(pair.framing, window=sizes.window, hop=sizes.hop)
        codec = pair.codec
        self._hop_length = codec.hop_length
        self._high_pass = CausalHighPass(sample_rate, channels)
        self._resampler = GlidingResampler(sample_rate, codec.sample_rate, channels)
        self._stats = RunningStats(sample_rate, survey)
        self._gain = HopGain(sizes.window, sizes.hop, sizes.seconds)
        self._octaves = HopOctaves(octaves, pair.target.spec, codec.sample_rate)
        stats = survey or RecordingStats(0.0)
        self._cutter = WindowCutter(self._framing, codec.sample_rate, channels, stats)
        self._decoder = HopDecoder(self._framing, sizes, channels)
        # Sound of the next window, at the codec's rate.
        self._sound = torch.zeros(channels, sizes.context * codec.hop_length)
        self._tail = torch.zeros(channels, codec.latent_channels + FEATURES, FADE)
        # Parts of one length: level and tuning must not depend on the length of the blocks.
        self._part = max(1, sample_rate // 100)
        self._rest = torch.zeros(channels, 0)
        self._received = 0  # samples
        self._returned = 0

    @torch.inference_mode()
    def add(self, block: Tensor, skip: bool = False) -> Tensor:
        """Bridge the next block.

        Args:
            block: [C, n], n >= 0, float32.
            skip: replace hops that this block completes by silence, without the networks.

        Returns:
            [C, m] as soon as it is complete, m >= 0. The output lags by at most
            `sizes.lag_seconds`.
        """
        self._received += block.shape[-1]
        wav = torch.cat([self._rest, block], -1)
        whole = wav.shape[-1] // self._part * self._part
        self._rest = wav[:, whole:].clone()
        parts = [block[:, :0]]
        if whole:
            parts += [self._add(part, skip) for part in wav[:, :whole].split(self._part, -1)]
        out = torch.cat(parts, -1)
        self._returned += out.shape[-1]
        return out

    def _add(self, part: Tensor, skip: bool) -> Tensor:
        """Add sound [C, n]; return the completed sound [C, m]."""
        wav = self._high_pass(part)
        self._stats.update(wav)
        wav = self._resampler.there(wav, self._stats.tuned_rate)
        self._sound = torch.cat([self._sound, wav], -1)
        if self._sound.shape[-1] < self.sizes.window * self._hop_length:
            return part[:, :0]
        made = self._next_hop(skip)
        self._sound = self._sound[:, self.sizes.hop * self._hop_length :].clone()
        return self._resampler.back(made)

    def finish(self) -> Tensor:
        """Return the rest [C, n] of the output, which then has as many samples as the input."""
        missing = self._received - self._returned
        silence = torch.zeros(self._channels, self._part)
        parts = [silence[:, :0]]
        while missing > 0:
            part = self.add(silence)[:, :missing]
            parts.append(part)
            missing -= part.shape[-1]
        return torch.cat(parts, -1)

    def _next_hop(self, skip: bool) -> Tensor:
        """Bridge one window; return its hop [C, samples] at the codec's rate."""
        sizes = self.sizes
        self.hops += 1
        wav = self._sound[:, : sizes.window * self._hop_length]
        stats = self._stats.now
        done = sizes.context + FADE
        silent = self._silent(wav, stats.level)
        if skip or not stats.level or silent[sizes.context - FADE :].all():
            rows = torch.zeros(self._channels, self._tail.shape[1], sizes.window)
            rows[:, -1] = 1
        else:
            gains = self._gain.next(self._framing.gain(stats.level), done, silent)
            rows = self._bridge(wav, gains, stats)
        rows = rows[..., sizes.context :]
        share = (torch.arange(FADE) + 0.5) / FADE
        faded = torch.lerp(self._tail, rows[..., :FADE], share)
        self._tail = rows[..., sizes.hop : sizes.hop + FADE].clone()
        rows = torch.cat([faded, rows[..., FADE : sizes.hop + sizes.decoder_ahead]], -1)
        return self._decoder.decode(rows, stats.level * self._framing.gain(stats.level))

    def _bridge(self, wav: Tensor, gains: Tensor, stats: RecordingStats) -> Tensor:
        """Bridge a window [C, samples] with the gains [L] of its frames: rows [C, D + 4, L]."""
        self._cutter.update(stats)
        end = (self.sizes.context + self.sizes.hop + FADE) * self._hop_length
        threshold = max(QUIET * stats.level, SILENCE)
        self._cutter.octaves = self._octaves.decide(wav, end, threshold)
        smooth = F.interpolate(gains[None, None], size=wav.shape[-1], mode="linear")[0, 0]
        windows = list(self._cutter.cut(wav * smooth, self.hops, None))
        bridged = self._pair.bridge_batch([(None, window) for window in windows])
        return torch.stack([_rows(window, latents, gains) for _, window, latents in bridged])

    def _silent(self, wav: Tensor, level: float) -> Tensor:
        """Return whether each frame of a window [C, samples] is silent: [L]."""
        peaks = wav.unflatten(-1, (self.sizes.window, -1)).abs().amax((0, -1))
        return peaks < max(QUIET * level, SILENCE)


def _rows(window: Window, latents: Tensor, gains: Tensor) -> Tensor:
    features = torch.stack([(window.active > 0).float(), window.power, window.broken, gains])
    return torch.cat([latents, features])


class HopStream(Iterator[Tensor]):
    """Iterate over the bridged blocks [C, n] of a stream with low latency.

    Args:
        pair: bridge.
        blocks: [C, n] of any lengths.
        sample_rate: rate of input and output in Hz.
        sizes: sizes of the hops.
        survey: see `HopTransfer`.
        octaves: see `HopTransfer`.

    Attributes:
        latency_seconds: delay from sound in to sound out if the stream is played in real time: the
            lag of the output, and the time of one hop for computing.
        lag_seconds: largest delay of the output's samples behind the input's.
    """

    def __init__(
        self,
        pair: ModelPair,
        blocks: Iterable[Tensor],
        sample_rate: int,
        sizes: HopSizes,
        survey: RecordingStats | None = None,
        octaves: Octaves = "auto",
    ):
        self.latency_seconds = sizes.latency_seconds
        self.lag_seconds = sizes.lag_seconds
        self._parts = self._bridge(pair, blocks, sample_rate, sizes, survey, octaves)

    def __next__(self) -> Tensor:
        """Return the next block [C, n], n > 0."""
        return next(self._parts)

    def _bridge(
        self,
        pair: ModelPair,
        blocks: Iterable[Tensor],
        sample_rate: int,
        sizes: HopSizes,
        survey: RecordingStats | None,
        octaves: Octaves,
    ) -> Iterator[Tensor]:
        transfer = None
        for block in validate_blocks(blocks, sample_rate):
            if transfer is None:
                transfer = HopTransfer(pair, sample_rate, len(block), sizes, survey, octaves)
            for part in block.split(sample_rate, -1):  # sound comes out before a long block ends
                if (wav := transfer.add(part)).shape[-1]:
                    yield wav
        if transfer is not None and (wav := transfer.finish()).shape[-1]:
            yield wav
