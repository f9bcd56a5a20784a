"""What is quiet beside the notes (pauses, decays, soft entries) comes out as quiet as it went in."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOUD, QUIET = (
    -3.0,
    -15.0,
)  # dB beside the level: of frames that count as loud and as quiet; in between, in between
# dB by which a frame may be louder or softer than in the recording: the loud ones, and the quiet ones
LOUDER, SOFTER = (6.0, 0.0), (6.0, 2.0)
SOUNDING = -30.0  # dB beside the level: as in `LevelMeter`
_MOST = 12.0  # dB by which a frame is raised: what a codec's floor swallowed stays away
_LEAST = 1e-12  # power: silence
_MOMENTS = 4  # parts of a frame
_SMOOTH = 3  # frames over which levels are taken


class QuietFollower:
    """Gives the quiet frames of a bridge's sound, block by block, the level that they had in the recording.

    Args:
        level: RMS of the recording's sounding parts, as the source model gets it.
    """

    def __init__(self, level: float):
        self._level = max(level, 1e-8) ** 2
        self._sums = 0.0  # [2, C] powers of the sounding frames so far: made, given

    def __call__(self, wav: Tensor, power: Tensor, broken: Tensor, new: slice) -> Tensor:
        """
        Args:
            wav: [C, L * hop] sound of a block's frames.
            power: [C, L] mean square of the recording's frames.
            broken: [C, L] 1 in frames that follow the recording even where they are loud, up to 0.
            new: frames that no earlier block had. A block sees some before and after them.

        Returns:
            [C, L * hop]
        """
        hop = wav.shape[-1] // power.shape[-1]
        moments = (
            wav.unflatten(-1, (-1, math.gcd(_MOMENTS, hop), hop // math.gcd(_MOMENTS, hop)))
            .square()
            .mean(-1)
        )
        made = moments.mean(-1)
        sounding = power > self._level * 10 ** (SOUNDING / 10)
        sums = torch.stack([made * sounding, power * sounding]).double()
        ahead, self._sums = (
            self._sums + sums[..., new.start :].sum(-1),
            self._sums + sums[..., new].sum(-1),
        )
        ratio = torch.where(ahead[1] > 0, ahead[0] / ahead[1], 1.0).float()[:, None]
        # Where sound breaks off a click counts as if it filled half of its frame, and each frame is taken by itself.
        click = made.maximum(moments.amax(-1) / 2)
        given, made = (
            torch.where(broken > 0.5, sharp.clamp_min(_LEAST), smooth(level))
            for sharp, level in ((power, power), (click, made))
        )
        beside = 10 * (given / self._level).log10()
        free = ((beside - QUIET) / (LOUD - QUIET)).clamp(0, 1) * (1 - broken)
        louder, softer = (low + (high - low) * free for high, low in (LOUDER, SOFTER))
        stray = 10 * (made / (ratio * given)).log10()
        gain = 10 ** ((stray.clamp(-softer, louder) - stray).clamp(max=_MOST) / 20)
        return wav * F.interpolate(gain[:, None], size=wav.shape[-1], mode="linear")[:, 0]


def smooth(power: Tensor) -> Tensor:
    """Geometric mean of powers [C, L] over neighbouring frames, those at hand near the ends."""
    level = power.clamp_min(_LEAST).log()[:, None]
    return F.avg_pool1d(level, _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False)[:, 0].exp()
