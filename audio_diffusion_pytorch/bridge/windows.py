"""Recordings of any length as overlapping windows, and the windows' latents back to sound, in bounded memory.

Nothing here depends on how the recording is cut into blocks: a whole clip and a stream of it give the same.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.audio import LevelMeter, Resampler
from audio_diffusion_pytorch.bridge.pauses import QuietFollower, smooth
from audio_diffusion_pytorch.bridge.softening import soften_breaks
from audio_diffusion_pytorch.pitch.octaves import shift_octaves

if TYPE_CHECKING:
    from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.recording_stats import QUIET, SILENCE, RecordingStats

EDGE = 4  # frames at a window's border that lack context and count for nothing in a cross-fade
DECODE_FRAMES, DECODE_CONTEXT = (
    512,
    64,
)  # a block of the decoder, and what it sees beyond on both sides
STILL, PLAYED = (
    3.0,
    7.0,
)  # dB above the recording's noise: up to there it is noise, from there on something is played
SOFTENED, AROUND = (
    0.8,
    8,
)  # share of a frame's power that softening left; frames around, in which models exaggerate
FAINT = 0.022  # peak beside the level, -33 dB, below which the codec's floor would be heard: what comes out is lowered


def window_starts(frames: int, window: int, hop: int) -> list[int]:
    """First frames of the windows over `frames` frames, the last one flush with the end."""
    last = max(frames - window, 0)
    return [*range(0, last, hop), last]


def fade(window: int, hop: int, fade_in: bool, fade_out: bool) -> Tensor:
    """Weights [window]: a ramp over the overlap where there is a neighbour, small but not zero at the very edge."""
    overlap = window - hop
    ramp = ((torch.arange(overlap) - EDGE + 0.5) / (overlap - 2 * EDGE)).clamp(1e-6, 1)
    weights = torch.ones(window)
    if fade_in:
        weights[:overlap] = ramp
    if fade_out:
        weights[-overlap:] = torch.minimum(weights[-overlap:], ramp.flip(0))
    return weights


def _half_range(parts: Tensor) -> Tensor:
    """[..., n] -> the peak of each part, whatever constant there is."""
    return (parts.amax(-1) - parts.amin(-1)) / 2


@dataclass(frozen=True, eq=False)
class Window:
    """One channel of one window of a recording.

    Args:
        channel: which of the recording's channels.
        start: first latent frame.
        last: no window follows in this channel.
        sounding: [L] 1 in the latent frames that hold sound, less in faint ones, 0 in silence.
        power: [L] mean square of the latent frames' sound, at the source model's level.
        still: [L] 1 in latent frames that hold nothing but the recording's noise, 0 where something is played.
        broken: [L] whether a latent frame lies near a place where sound broke off, or began at once, and was softened.
        wav: [samples] at the codec's rate, at the source model's level.
    """

    channel: int
    start: int
    last: bool
    sounding: Tensor
    power: Tensor
    still: Tensor
    broken: Tensor
    wav: Tensor

    @property
    def played(self) -> Tensor:
        """[L] how far the latent frames hold what is played."""
        return self.sounding * (1 - self.still)


def matching_gain(level: float, sound: LevelMeter) -> float:
    """The gain that takes sound to the RMS `level`, or less where its peak would pass 1."""
    gain = level / max(sound.rms, 1e-8)
    return gain / max(1.0, sound.peak * gain)


class Track:
    """One recording on its way through a bridge: cuts its windows, takes their latents, gives sound.

    Windows come window by window, the channels of each in turn, and their latents are taken in that order.

    Args:
        bridge: whose windows, codec and levels.
        sample_rate: of the recording, in Hz.
        channels: of the recording.
        survey: the recording's level and tuning. What lies 66 dB below the level is silence and stays silent.
            Recordings that are not tuned to A = 440 Hz go through the networks at 440, faster or slower, and come back.
        octaves: by which the recording is moved before it is bridged.
    """

    def __init__(
        self,
        bridge: "Bridge",
        sample_rate: int,
        channels: int,
        survey: RecordingStats,
        octaves: int = 0,
    ):
        self.octaves, level = octaves, survey.level
        self.bridge, self.channels, self.length = (
            bridge,
            channels,
            0,
        )  # `length` in samples of the recording, so far
        expected = bridge.source.spec.level_db
        self.gain = 1.0 if expected is None or level < SILENCE else 10 ** (expected / 20) / level
        self.quiet, self.faint = (
            max(QUIET * level, SILENCE) * self.gain,
            max(FAINT * level, SILENCE) * self.gain,
        )
        self._noise = (survey.noise * self.gain) ** 2
        self._quiet_follower = QuietFollower(level * self.gain)
        rate = bridge.codec.sample_rate
        self.sample_rate = tuned = (
            sample_rate * 2 ** (-survey.cents / 1200) if survey.cents else sample_rate
        )
        self._in, self._out = Resampler(tuned, rate, channels), Resampler(rate, tuned, channels)
        size = (
            bridge.codec.latent_channels + 3
        )  # the last ones are the windows' `sounding`, `power` and `broken`
        self._sum, self._weights, self._first = torch.zeros(channels, size, 0), torch.zeros(0), 0
        self._latents, self._before = torch.zeros(channels, size, 0), 0
        self._given = 0  # samples of sound, so far

    def cut(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        """Blocks [C, n], what is `audible` of the recording -> its windows; blocks are asked for as they are needed."""
        window, samples = self.bridge.window, self.bridge.codec.hop_length
        buffer, first, start = (
            torch.zeros(self.channels, 0),
            0,
            0,
        )  # it begins where the window before did, at `first`
        for block in self._resampled(blocks):
            buffer = torch.cat([buffer, block], -1)
            while (
                buffer.shape[-1] > (start + window - first) * samples
            ):  # there is more: not the last window
                buffer, first = buffer[:, (start - first) * samples :], start
                yield from self._windows(buffer[:, : window * samples], start, False)
                start += self.bridge.hop
        frames = max(first + self.bridge.codec.num_frames(buffer.shape[-1]), window)
        buffer = F.pad(buffer, (0, (frames - first) * samples - buffer.shape[-1]))
        yield from self._windows(buffer[:, -window * samples :], frames - window, True)

    @torch.inference_mode()
    def take(self, window: Window, latents: Tensor) -> Tensor:
        """Latents [D, window] of the next window -> the sound [C, n] that they complete, at the recording's rate.

        The last window's last channel gives the rest: in all there are as many samples as in the recording.
        """
        if window.channel == 0:
            self._grow(window)
        latents = self._with_calm_ends(window, latents)
        part = torch.cat([latents, torch.stack([window.sounding > 0, window.power, window.broken])])
        here = slice(window.start - self._first, window.start - self._first + self.bridge.window)
        weights = fade(self.bridge.window, self.bridge.hop, window.start > 0, not window.last)
        self._sum[window.channel, :, here] += part * weights
        if window.channel < self.channels - 1:
            return part.new_zeros(self.channels, 0)
        self._weights[here] += weights
        final = (
            self._sum.shape[-1] if window.last else window.start - self._first
        )  # no later window reaches these
        self._latents = torch.cat(
            [self._latents, self._sum[..., :final] / self._weights[:final]], -1
        )
        self._sum, self._weights = self._sum[..., final:], self._weights[final:]
        self._first += final
        return self._sound(window.last)

    def _with_calm_ends(self, window: Window, latents: Tensor) -> Tensor:
        """Frames that see beyond an end of the recording rise no further: models exaggerate clicks."""
        frames = self.bridge.num_frames(self.length, self.sample_rate)
        if (edge := min(self.bridge.codec.edge_frames, frames // 3)) == 0:
            return latents
        latents = latents.clone()
        if window.start == 0:
            latents[:, :edge] = latents[:, :edge].minimum(latents[:, edge, None])
        if window.last:  # a short recording ends within its only window
            end = frames - window.start - edge
            latents[:, end:] = latents[:, end:].minimum(latents[:, end - 1, None])
        return latents

    def _resampled(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        for block in blocks:
            self.length += block.shape[-1]
            yield self._in(block * self.gain)
        yield self._in(torch.zeros(self.channels, 0), last=True)

    def _windows(self, wav: Tensor, start: int, last: bool) -> Iterator[Window]:
        before = wav.unflatten(-1, (self.bridge.window, -1))
        wav = soften_breaks(wav, self.bridge.codec.sample_rate, self.quiet, start == 0, last)
        parts = wav.unflatten(-1, (self.bridge.window, -1))
        power = parts.square().mean(-1)
        broken = (power < SOFTENED * before.square().mean(-1)).float()
        broken = F.max_pool1d(broken, 2 * AROUND + 1, 1, AROUND)
        peaks = _half_range(parts)
        sounding = torch.where(peaks >= self.quiet, (peaks / self.faint).clamp(max=1.0), 0.0)
        sounding = F.max_pool1d(sounding, 2 * EDGE + 1, 1, EDGE)
        above = 10 * (smooth(power) / max(self._noise, 1e-12)).log10()
        still = ((PLAYED - above) / (PLAYED - STILL)).clamp(0, 1)
        if self.octaves:  # what is played moves, hiss and hum stay
            kept = F.interpolate(still[:, None], size=wav.shape[-1], mode="linear")[:, 0]
            wav = torch.lerp(
                shift_octaves(wav, self.octaves, self.bridge.codec.sample_rate), wav, kept
            )
        for channel in range(self.channels):
            rows = (row[channel] for row in (sounding, power, still, broken, wav))
            yield Window(channel, start, last, *rows)

    def _grow(self, window: Window) -> None:
        """Make room for the latents of a window."""
        missing = max(0, window.start + self.bridge.window - self._first - self._sum.shape[-1])
        self._sum, self._weights = (
            F.pad(self._sum, (0, missing)),
            F.pad(self._weights, (0, missing)),
        )

    def _sound(self, last: bool) -> Tensor:
        """Decode what is complete, in blocks that see enough beyond their borders to join without a seam."""
        parts, hop = [], self.bridge.codec.hop_length
        needed = 1 if last else DECODE_FRAMES + DECODE_CONTEXT
        while (
            self._latents.shape[-1] - self._before >= needed
        ):  # the first frames were decoded before
            block = self._latents[..., : self._before + DECODE_FRAMES + DECODE_CONTEXT]
            wav = self.bridge.codec.decode(block[:, :-3].to(self.bridge.device)).cpu()[:, 0]
            new = slice(self._before, self._before + DECODE_FRAMES)
            wav = self._quiet_follower(wav, block[:, -2], block[:, -1], new)
            wav = wav * F.interpolate(block[:, -3:-2], scale_factor=hop, mode="linear")[:, 0]
            parts.append(wav[:, self._before * hop : (self._before + DECODE_FRAMES) * hop])
            kept = min(self._before + DECODE_FRAMES, DECODE_CONTEXT)
            self._latents, self._before = (
                self._latents[..., self._before + DECODE_FRAMES - kept :],
                kept,
            )
        wav = self._out(torch.cat([torch.zeros(self.channels, 0), *parts], -1), last)
        if last:  # the last frame may reach beyond the recording's end
            missing = self.length - self._given - wav.shape[-1]
            wav = F.pad(wav, (0, missing)) if missing > 0 else wav[:, : wav.shape[-1] + missing]
        self._given += wav.shape[-1]
        return wav
