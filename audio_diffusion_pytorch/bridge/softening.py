"""Sounds that break off, or begin at once, fade: a click sets models astray, and comes out as a burst."""

import torch
import torch.nn.functional as F
from torch import Tensor

FALL, RISE = 1.5, 10.0  # dB per ms: the fastest fall and rise of the level that is left as it is
DEPTH = 30.0  # dB: a break is softened down to as far below the sound
_SLIGHT = 3.0, 9.0  # dB: what has to be lowered by less is no break, from the second on it is one
_PERIOD = 25  # ms: the level of what swings 40 times a second holds between its peaks


def soften_breaks(
    wav: Tensor, sample_rate: int, quiet: float, first: bool = True, last: bool = True
) -> Tensor:
    """wav [C, T] in which the level falls no faster than `FALL` and rises no faster than `RISE`; the rest stays.

    A level that would fall faster begins to fall earlier: what comes after a break stays as it is.

    Args:
        sample_rate: in Hz.
        quiet: peak below which everything is silence.
        first, last: nothing comes before or after wav.
    """
    step = max(1, sample_rate // 1000)
    blocks = F.pad(wav, (0, -wav.shape[-1] % step), mode="replicate").unflatten(-1, (-1, step))
    peaks = (blocks.amax(-1) - blocks.amin(-1)) / 2  # whatever constant there is
    level = 20 * peaks.clamp_min(quiet).log10()
    silence = float(20 * torch.tensor(quiet).log10())
    fall = _lowered(level.flip(-1), FALL, silence if last else None).flip(-1)
    rise = _lowered(level, RISE, silence if first else None)
    lowered = -F.max_pool1d(
        -(fall + rise), 3, 1, 1
    )  # the gain stays down to the very end of what breaks off
    if not lowered.any():
        return wav
    gain = F.interpolate(lowered[:, None], size=blocks.shape[1] * step, mode="linear")[
        :, 0, : wav.shape[-1]
    ]
    return wav * 10 ** (gain / 20)


def _lowered(level: Tensor, slope: float, before: float | None) -> Tensor:
    """Levels [C, n] in dB, step by step -> the gains [C, n] in dB under which they rise by `slope` a step at most.

    Args:
        before: the level before the first step; None: as at the beginning.
    """
    edge = level[:, :_PERIOD].amax(-1, keepdim=True)
    edge = edge if before is None else torch.full_like(edge, before)
    level = torch.cat([edge.expand(-1, 2 * _PERIOD), level], -1)
    held = F.max_pool1d(F.pad(level, (_PERIOD, 0), value=-torch.inf), _PERIOD + 1, 1)
    # What follows a silence rises from `DEPTH` below itself, however deep the silence is.
    ahead = F.max_pool1d(F.pad(held, (0, 2 * _PERIOD), mode="replicate"), 2 * _PERIOD + 1, 1)
    held = torch.maximum(held, ahead - DEPTH)
    ramp = slope * torch.arange(held.shape[-1], dtype=torch.float64)
    allowed = (held - ramp).cummin(-1).values + ramp
    gains = (allowed - held)[:, 2 * _PERIOD :].float()
    deepest = F.max_pool1d(-gains, 2 * _PERIOD + 1, 1, _PERIOD)
    return gains * ((deepest - _SLIGHT[0]) / (_SLIGHT[1] - _SLIGHT[0])).clamp(0, 1)
