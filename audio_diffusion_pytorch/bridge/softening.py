"""Soften abrupt ends and starts of sound: models turn the click of a break into a burst."""

import torch
import torch.nn.functional as F
from torch import Tensor

FALL = 1.5  # dB per ms: fastest fall of the level that stays unchanged
RISE = 10.0  # dB per ms: fastest rise of the level that stays unchanged
DEPTH = 30.0  # dB below the sound down to which a break is softened
_SLIGHT = 3.0  # dB: a smaller attenuation is not a break
_FULL = 9.0  # dB: a larger attenuation is applied fully; attenuations in between partly
_PERIOD = 25  # ms: the level of a 40 Hz oscillation holds between its peaks


def soften_breaks(
    wav: Tensor, sample_rate: int, quiet: float, first: bool = True, last: bool = True
) -> Tensor:
    """Limit the fall of the level to `FALL` and its rise to `RISE`; other parts stay unchanged.

    A level that falls faster starts to fall earlier, so the sound after a break stays unchanged.

    Args:
        wav: [C, T].
        sample_rate: in Hz.
        quiet: peak below which sound is silence.
        first: whether wav starts the recording.
        last: whether wav ends the recording.

    Returns:
        [C, T].
    """
    step = max(1, sample_rate // 1000)
    blocks = F.pad(wav, (0, -wav.shape[-1] % step), mode="replicate").unflatten(-1, (-1, step))
    peaks = (blocks.amax(-1) - blocks.amin(-1)) / 2  # DC offset is ignored
    level = 20 * peaks.clamp_min(quiet).log10()
    silence = float(20 * torch.tensor(quiet).log10())
    fall = _attenuation(level.flip(-1), FALL, silence if last else None).flip(-1)
    rise = _attenuation(level, RISE, silence if first else None)
    # The attenuation holds to the very end of the sound before a break.
    attenuation = -F.max_pool1d(-(fall + rise), 3, 1, 1)
    if not attenuation.any():
        return wav
    size = blocks.shape[1] * step
    gain = F.interpolate(attenuation[:, None], size=size, mode="linear")[:, 0, : wav.shape[-1]]
    return wav * 10 ** (gain / 20)


def _attenuation(level: Tensor, slope: float, before: float | None) -> Tensor:
    """Return gains [C, n] in dB under which levels [C, n] in dB rise by at most `slope` per step.

    Args:
        level: levels, one per ms.
        slope: highest rise.
        before: level before the first step; None: the level at the start.
    """
    edge = level[:, :_PERIOD].amax(-1, keepdim=True)
    edge = edge if before is None else torch.full_like(edge, before)
    level = torch.cat([edge.expand(-1, 2 * _PERIOD), level], -1)
    held = F.max_pool1d(F.pad(level, (_PERIOD, 0), value=-torch.inf), _PERIOD + 1, 1)
    # Sound after silence rises from `DEPTH` below itself, however deep the silence is.
    ahead = F.max_pool1d(F.pad(held, (0, 2 * _PERIOD), mode="replicate"), 2 * _PERIOD + 1, 1)
    held = torch.maximum(held, ahead - DEPTH)
    ramp = slope * torch.arange(held.shape[-1], dtype=torch.float64)
    allowed = (held - ramp).cummin(-1).values + ramp
    gains = (allowed - held)[:, 2 * _PERIOD :].float()
    deepest = F.max_pool1d(-gains, 2 * _PERIOD + 1, 1, _PERIOD)
    return gains * ((deepest - _SLIGHT) / (_FULL - _SLIGHT)).clamp(0, 1)
