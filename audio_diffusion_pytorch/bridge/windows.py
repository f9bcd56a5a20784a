"""Cut recordings of any length into overlapping windows, in bounded memory.

The windows do not depend on the block size: a whole clip and a stream of it give equal windows.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.audio import Resampler
from audio_diffusion_pytorch.bridge.framing import Framing
from audio_diffusion_pytorch.bridge.pauses import smooth
from audio_diffusion_pytorch.bridge.recording_stats import QUIET, SILENCE, RecordingStats
from audio_diffusion_pytorch.bridge.softening import soften_breaks
from audio_diffusion_pytorch.pitch.octaves import shift_octaves

EDGE = 4  # frames at each border of a window that lack context; the cross-fade ignores them
STILL = 3.0  # dB above the recording's noise: up to this level a frame holds noise alone
PLAYED = 7.0  # dB above the recording's noise: from this level on a frame holds played sound
SOFTENED = 0.8  # share of a frame's power after softening, below which the frame counts as broken
AROUND = 8  # frames around a broken frame in which models exaggerate
FAINT = 0.022  # peak relative to the level (-33 dB) below which the codec's floor becomes audible


@dataclass(frozen=True, eq=False)
class Window:
    """One channel of one window of a recording.

    Args:
        channel: index of the channel.
        start: first latent frame.
        length: samples of the whole recording in the last window of a channel; None in the others.
        active: [L] 1 in latent frames with sound, less in faint frames, 0 in silence.
        power: [L] mean square of the sound in each latent frame, at the source model's level.
        still: [L] 1 in latent frames that hold only the recording's noise, 0 in played frames.
        broken: [L] 1 in latent frames near a break of the sound that was softened, else 0.
        wav: [samples] at the codec's rate, at the source model's level.
        unmoved: [samples] the sound before it moved by octaves; None: it did not move.
        octaves: octaves by which it moved.
        bend: [L] vibrato in cents that `straighten` removed; None: none.
    """

    channel: int
    start: int
    length: int | None
    active: Tensor
    power: Tensor
    still: Tensor
    broken: Tensor
    wav: Tensor
    unmoved: Tensor | None = None
    octaves: int = field(default=0, kw_only=True)
    bend: Tensor | None = None

    @property
    def last(self) -> bool:
        """Whether no window of the same channel follows."""
        return self.length is not None

    @property
    def played(self) -> Tensor:
        """[L] weight of the played sound in each latent frame, from 0 to 1."""
        return self.active * (1 - self.still)


class WindowCutter:
    """Cut one recording into windows; the channels of a window follow one another.

    Recordings that are not tuned to A = 440 Hz are resampled to 440 Hz; `OverlapAdd` undoes it.

    Args:
        framing: window size, codec and level of the bridge.
        sample_rate: rate of the recording in Hz.
        channels: channels of the recording.
        stats: level, tuning and noise of the recording. Sound 66 dB below the level is silence.
        octaves: octaves by which the recording moves before it is bridged. The attribute may change
            until the first window with sound is cut.
    """

    def __init__(
        self,
        framing: Framing,
        sample_rate: int,
        channels: int,
        stats: RecordingStats,
        octaves: int = 0,
    ):
        self.framing = framing
        self.channels = channels
        self.octaves = octaves
        self.update(stats)
        self.length = 0  # samples of the recording so far
        rate = framing.codec.sample_rate
        self._resample = Resampler(stats.tuned_rate(sample_rate), rate, channels)

    def update(self, stats: RecordingStats) -> None:
        """Replace the level and the noise of the recording, for the windows that follow."""
        self.gain = self.framing.gain(stats.level)
        self._quiet = max(QUIET * stats.level, SILENCE) * self.gain
        self._faint = max(FAINT * stats.level, SILENCE) * self.gain
        self._noise = (stats.noise * self.gain) ** 2

    def windows(self, blocks: Iterable[Tensor]) -> Iterator[Window]:
        """Yield the windows of a recording.

        Args:
            blocks: [C, n], high-passed by `audible`; each is requested when a window needs it.
        """
        size = self.framing.window
        samples = self.framing.codec.hop_length
        buffer = torch.zeros(self.channels, 0)
        first = 0  # frame at which the buffer starts: the start of the window before
        start = 0
        for block in self.resampled(blocks):
            buffer = torch.cat([buffer, block], -1)
            # Further samples show that the window at `start` is not the last one.
            while buffer.shape[-1] > (start + size - first) * samples:
                buffer = buffer[:, (start - first) * samples :]
                first = start
                yield from self.cut(buffer[:, : size * samples], start, None)
                start += self.framing.hop
        frames = max(first + self.framing.codec.num_frames(buffer.shape[-1]), size)
        buffer = F.pad(buffer, (0, (frames - first) * samples - buffer.shape[-1]))
        yield from self.cut(buffer[:, -size * samples :], frames - size, self.length)

    def resampled(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield a recording at the codec's rate and the source model's level.

        Args:
            blocks: see `windows`.
        """
        for block in blocks:
            self.length += block.shape[-1]
            yield self._resample(block * self.gain)
        yield self._resample(torch.zeros(self.channels, 0), last=True)

    def cut(self, wav: Tensor, start: int, length: int | None) -> Iterator[Window]:
        """Yield one window channel by channel, with the features of its frames.

        Args:
            wav: [C, samples] at the codec's rate, at the source model's level.
            start: first latent frame.
            length: samples of the whole recording in its last window; None in the others.
        """
        rate = self.framing.codec.sample_rate
        original = self._frames(wav).square().mean(-1)
        wav = soften_breaks(wav, rate, self._quiet, start == 0, length is not None)
        frames = self._frames(wav)
        power = frames.square().mean(-1)
        broken = (power < SOFTENED * original).float()
        broken = F.max_pool1d(broken, 2 * AROUND + 1, 1, AROUND)
        active = self._active(frames)
        still = self._still(power)
        features = [active, power, still, broken, wav]
        if self.octaves:  # played sound moves; hiss and hum stay in place
            stationary = F.interpolate(still[:, None], size=wav.shape[-1], mode="linear")[:, 0]
            moved = shift_octaves(wav, self.octaves, rate)
            features[-1:] = torch.lerp(moved, wav, stationary), wav
        for channel in range(self.channels):
            rows = (row[channel] for row in features)
            yield Window(channel, start, length, *rows, octaves=self.octaves)

    def _frames(self, wav: Tensor) -> Tensor:
        """Split a window [C, samples] into its latent frames [C, L, hop]."""
        return wav.unflatten(-1, (self.framing.window, -1))

    def _active(self, frames: Tensor) -> Tensor:
        """Weight frames [C, L, hop] by their peak, DC offset ignored: [C, L] from 0 to 1."""
        peaks = (frames.amax(-1) - frames.amin(-1)) / 2
        active = torch.where(peaks >= self._quiet, (peaks / self._faint).clamp(max=1.0), 0.0)
        return F.max_pool1d(active, 2 * EDGE + 1, 1, EDGE)

    def _still(self, power: Tensor) -> Tensor:
        """Weight frames of power [C, L] by their closeness to the recording's noise."""
        above = 10 * (smooth(power) / max(self._noise, 1e-12)).log10()
        return ((PLAYED - above) / (PLAYED - STILL)).clamp(0, 1)
