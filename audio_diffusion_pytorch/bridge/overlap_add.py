"""Join the latents of overlapping windows and decode them to sound, in bounded memory."""

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.audio import LevelMeter, Resampler
from audio_diffusion_pytorch.bridge.framing import Framing
from audio_diffusion_pytorch.bridge.pauses import QuietFollower
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.vibrato import bend
from audio_diffusion_pytorch.bridge.windows import EDGE, Window

DECODE_FRAMES = 512  # new frames per block of the decoder
DECODE_CONTEXT = 64  # frames of context on each side of a block
_JOINT = 8  # frames over which two blocks cross-fade
_FEATURES = 4  # rows below the latents: bend, active, power, broken


def fade(window: int, hop: int, fade_in: bool, fade_out: bool) -> Tensor:
    """Return cross-fade weights [window]: a ramp over each overlap, small but not 0 at the edge.

    Args:
        window: frames of a window.
        hop: frames from one window to the next.
        fade_in: whether a window comes before.
        fade_out: whether a window follows.
    """
    overlap = window - hop
    ramp = ((torch.arange(overlap) - EDGE + 0.5) / (overlap - 2 * EDGE)).clamp(1e-6, 1)
    weights = torch.ones(window)
    if fade_in:
        weights[:overlap] = ramp
    if fade_out:
        weights[-overlap:] = torch.minimum(weights[-overlap:], ramp.flip(0))
    return weights


def matching_gain(level: float, sound: LevelMeter) -> float:
    """Return the gain from the measured sound to the RMS `level`; peaks stay within 1."""
    gain = level / max(sound.rms, 1e-8)
    return gain / max(1.0, sound.peak * gain)


def soften_ends(window: Window, latents: Tensor, frames: int, edge: int) -> Tensor:
    """Limit latents at both ends of a recording to their inner neighbours.

    Frames that overlap an end of the recording are incomplete, and models exaggerate clicks there.

    Args:
        window: window of the latents.
        latents: [D, L].
        frames: latent frames of the recording up to the end of the window.
        edge: frames at each end of a recording that overlap its border, see `Codec`.

    Returns:
        [D, L].
    """
    edge = min(edge, frames // 3)
    if edge == 0:
        return latents
    latents = latents.clone()
    if window.start == 0:
        latents[:, :edge] = latents[:, :edge].minimum(latents[:, edge, None])
    if window.last:  # a short recording ends inside its only window
        end = frames - window.start - edge
        latents[:, end:] = latents[:, end:].minimum(latents[:, end - 1, None])
    return latents


def continued(past: Tensor, following: Tensor, wav: Tensor) -> Tensor:
    """Join decoded sound to the sound before, with a cross-fade.

    Args:
        past: sound before [C, n].
        following: sound that the former decoding gave after it [C, m].
        wav: decoded sound [C, n + m], or longer.

    Returns:
        Sound with the length of `wav`: the past, m cross-faded samples, and the new sound.
    """
    begin, end = past.shape[-1], past.shape[-1] + following.shape[-1]
    joint = torch.lerp(following, wav[:, begin:end], torch.linspace(0, 1, end - begin))
    return torch.cat([past, joint, wav[:, end:]], -1)


class CrossFade:
    """Cross-fade windows of rows [D, L] into rows of the whole recording.

    Args:
        window: frames of a window.
        hop: frames from one window to the next.
        channels: channels of the recording.
        rows: D.
    """

    def __init__(self, window: int, hop: int, channels: int, rows: int):
        self._window = window
        self._hop = hop
        self._first = 0  # frame at which the sums start
        self._sum = torch.zeros(channels, rows, 0)
        self._weights = torch.zeros(0)

    def add(self, window: Window, rows: Tensor) -> Tensor:
        """Add rows [D, L] of the next window and return the completed frames [C, D, n].

        Frames are complete when the last channel arrives and no later window reaches them.
        """
        if window.channel == 0:
            self._grow(window)
        begin = window.start - self._first
        here = slice(begin, begin + self._window)
        weights = fade(self._window, self._hop, window.start > 0, not window.last)
        self._sum[window.channel, :, here] += rows * weights
        if window.channel < len(self._sum) - 1:
            return self._sum[..., :0]
        self._weights[here] += weights
        final = self._sum.shape[-1] if window.last else begin
        complete = self._sum[..., :final] / self._weights[:final]
        self._sum = self._sum[..., final:]
        self._weights = self._weights[final:]
        self._first += final
        return complete

    def _grow(self, window: Window) -> None:
        """Make room for the frames of a window."""
        missing = max(0, window.start + self._window - self._first - self._sum.shape[-1])
        self._sum = F.pad(self._sum, (0, missing))
        self._weights = F.pad(self._weights, (0, missing))


class BlockDecoder:
    """Decode latents in blocks; the phases of each block continue those of the block before.

    Context on both sides prevents seams.

    Args:
        framing: codec and device.
        channels: channels of the recording.
        level: RMS of the recording's active parts at the source model's level.
    """

    def __init__(self, framing: Framing, channels: int, level: float):
        self._framing = framing
        self._channels = channels
        self._quiet_follower = QuietFollower(level)
        rows = framing.codec.latent_channels + _FEATURES
        self._rows = torch.zeros(channels, rows, 0)
        self._decoded = 0  # frames at the start of the rows that are context: decoded before
        self._past: Tensor | None = None  # their sound; None: before the first block
        self._next = torch.zeros(0)  # sound of the frames after them

    def decode(self, rows: Tensor, last: bool) -> Tensor:
        """Decode the next latents and return the completed sound at the codec's rate.

        Args:
            rows: [C, D + 4, n] latents, then the features bend, active, power and broken.
            last: no rows follow.

        Returns:
            [C, samples].
        """
        self._rows = torch.cat([self._rows, rows], -1)
        needed = 1 if last else DECODE_FRAMES + DECODE_CONTEXT
        parts = [torch.zeros(self._channels, 0)]
        while self._rows.shape[-1] - self._decoded >= needed:
            parts.append(self._next_block())
        return torch.cat(parts, -1)

    def _next_block(self) -> Tensor:
        codec = self._framing.codec
        hop = codec.hop_length
        end = self._decoded + DECODE_FRAMES
        new = slice(self._decoded, end)
        block = self._rows[..., : end + DECODE_CONTEXT]
        sound = self._sound(block[:, :-_FEATURES].to(self._framing.device))
        self._decoded = min(end, DECODE_CONTEXT)
        self._past = sound[:, (end - self._decoded) * hop : end * hop]
        self._next = sound[:, end * hop : (end + _JOINT) * hop]
        self._rows = self._rows[..., end - self._decoded :]
        wav = bend(sound, block[:, -_FEATURES], codec.sample_rate)
        wav = self._quiet_follower(wav, block[:, -2], block[:, -1], new)
        wav = wav * F.interpolate(block[:, -3:-2], scale_factor=hop, mode="linear")[:, 0]
        return wav[:, new.start * hop : end * hop]

    def _sound(self, latents: Tensor) -> Tensor:
        """Decode latents [C, D, L], whose first frames may have been decoded, to sound [C, n]."""
        codec = self._framing.codec
        if self._past is None:
            return codec.decode(latents).cpu()[:, 0]
        wav = codec.decode_after(latents, self._past[:, None].to(latents.device)).cpu()[:, 0]
        return continued(self._past, self._next[:, : wav.shape[-1] - self._past.shape[-1]], wav)


class OverlapAdd:
    """Join the latents of a recording's windows into sound of the recording's rate and length.

    Args:
        framing: window size, codec and level of the bridge.
        sample_rate: rate of the recording in Hz.
        channels: channels of the recording.
        stats: level and tuning of the recording, as given to `WindowCutter`.
    """

    def __init__(
        self,
        framing: Framing,
        sample_rate: int,
        channels: int,
        stats: RecordingStats,
    ):
        self._framing = framing
        self._channels = channels
        self._rate = stats.tuned_rate(sample_rate)
        rows = framing.codec.latent_channels + _FEATURES
        self._cross_fade = CrossFade(framing.window, framing.hop, channels, rows)
        level = stats.level * framing.gain(stats.level)
        self._decoder = BlockDecoder(framing, channels, level)
        self._resample = Resampler(framing.codec.sample_rate, self._rate, channels)
        self._returned = 0  # samples

    @torch.inference_mode()
    def add(self, window: Window, latents: Tensor) -> Tensor:
        """Add the latents of the next window and return the completed sound.

        The last channel of the last window completes the sound: the output has exactly as many
        samples as the input.

        Args:
            window: the window; windows come in the order in which they were cut.
            latents: [D, L] of the target.

        Returns:
            [C, n] at the recording's rate.
        """
        frames = window.start + self._framing.window
        if window.length is not None:
            frames = self._framing.num_frames(window.length, self._rate)
        latents = soften_ends(window, latents, frames, self._framing.codec.edge_frames)
        cents = torch.zeros_like(window.power) if window.bend is None else window.bend
        features = torch.stack([cents, window.active > 0, window.power, window.broken])
        complete = self._cross_fade.add(window, torch.cat([latents, features]))
        if window.channel < self._channels - 1:
            return latents.new_zeros(self._channels, 0)
        wav = self._resample(self._decoder.decode(complete, window.last), window.last)
        if window.length is not None:  # the last frame may reach beyond the recording's end
            missing = window.length - self._returned - wav.shape[-1]
            wav = F.pad(wav, (0, missing)) if missing > 0 else wav[:, : wav.shape[-1] + missing]
        self._returned += wav.shape[-1]
        return wav
