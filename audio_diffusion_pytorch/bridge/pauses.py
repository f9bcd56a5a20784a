"""Keep quiet parts (pauses, decays, soft entries) as quiet in the output as in the recording."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Levels in dB relative to the recording's level.
LOUD = -3.0  # frames above count as loud
QUIET = -15.0  # frames below count as quiet; frames in between are interpolated
SOUNDING = -30.0  # frames above count as active, as in `LevelMeter`
# Tolerances in dB for loud and for quiet frames.
LOUDER = (6.0, 0.0)  # by which a frame may exceed its level in the recording
SOFTER = (6.0, 2.0)  # by which a frame may fall below its level in the recording
_MOST = 12.0  # highest gain in dB: sound below the codec's floor cannot be restored
_LEAST = 1e-12  # power of silence
_MOMENTS = 4  # parts of a frame, to find clicks
_PRIOR = 75  # frames that count as kept at the level, see `QuietFollower.ratio`
_SMOOTH = 3  # frames over which levels are averaged


class QuietFollower:
    """Scale the quiet frames of a bridge's sound, block by block, to their level in the recording.

    Args:
        level: RMS of the recording's active parts at the source model's level.

    Attributes:
        level: as given; it may change between blocks.
    """

    def __init__(self, level: float):
        self.level = level
        self._sums = torch.zeros(2, 1, dtype=torch.float64)  # [2, C] power: output, recording

    @property
    def ratio(self) -> Tensor:
        """Power of the output relative to the recording, over the active frames so far: [C, 1]."""
        # A second at the level counts as kept: the first frames must not decide alone.
        kept = _PRIOR * self._power
        return ((self._sums[0] + kept) / (self._sums[1] + kept)).float()[:, None]

    @property
    def _power(self) -> float:
        return max(self.level, 1e-8) ** 2

    def __call__(self, wav: Tensor, power: Tensor, broken: Tensor, new: slice) -> Tensor:
        """Scale the next block.

        Args:
            wav: [C, L * hop] sound of the block's L frames.
            power: [C, L] mean square of each frame in the recording.
            broken: [C, L] 1 in frames near a softened break, which follow the recording even if
                they are loud; down to 0 elsewhere.
            new: frames of the block that no earlier block contained; the others are context.

        Returns:
            [C, L * hop].
        """
        gain = self.gains(wav, power, broken, new)
        return wav * F.interpolate(gain[:, None], size=wav.shape[-1], mode="linear")[:, 0]

    def gains(self, wav: Tensor, power: Tensor, broken: Tensor, new: slice) -> Tensor:
        """Return the gain [C, L] of each frame of the next block; see `__call__`."""
        hop = wav.shape[-1] // power.shape[-1]
        parts = math.gcd(_MOMENTS, hop)
        moments = wav.unflatten(-1, (-1, parts, hop // parts)).square().mean(-1)
        made = moments.mean(-1)
        ratio = self._ratio(made, power, new)
        # Near a break a click counts as half of its frame, and frames are not averaged.
        click = made.maximum(moments.amax(-1) / 2)
        given = torch.where(broken > 0.5, power.clamp_min(_LEAST), smooth(power))
        made = torch.where(broken > 0.5, click.clamp_min(_LEAST), smooth(made))
        relative = 10 * (given / self._power).log10()
        loudness = ((relative - QUIET) / (LOUD - QUIET)).clamp(0, 1) * (1 - broken)
        louder = LOUDER[1] + (LOUDER[0] - LOUDER[1]) * loudness
        softer = SOFTER[1] + (SOFTER[0] - SOFTER[1]) * loudness
        deviation = 10 * (made / (ratio * given)).log10()
        change = (deviation.clamp(-softer, louder) - deviation).clamp(max=_MOST)
        return 10 ** (change / 20)

    def _ratio(self, made: Tensor, power: Tensor, new: slice) -> Tensor:
        """Return the power of the output relative to the recording, over active frames: [C, 1]."""
        active = power > self._power * 10 ** (SOUNDING / 10)
        sums = torch.stack([made * active, power * active]).double()
        ahead = self._sums + sums[..., new.start :].sum(-1)  # with the context that follows
        self._sums = self._sums + sums[..., new].sum(-1)
        return torch.where(ahead[1] > 0, ahead[0] / ahead[1], 1.0).float()[:, None]


def smooth(power: Tensor) -> Tensor:
    """Average powers [C, L] geometrically over neighbouring frames, over fewer at the ends."""
    level = power.clamp_min(_LEAST).log()[:, None]
    return F.avg_pool1d(level, _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False)[:, 0].exp()
