"""Choose the phases of an amplitude spectrogram so that each partial continues across frames.

Single-pass spectrogram inversion (Beauregard, Harish and Wyse 2015, DSP): the phase of a peak
advances by the peak's frequency, and the bins around a peak follow it. A convolutional decoder
cannot do this: latents of a steady tone are equal in all frames, and so are its phases.
"""

import math

import torch
from torch import Tensor

_EPSILON = 1e-7  # added to amplitudes before the logarithm
_NEAR = 3.0  # bins; a partial moves less from one frame to the next


def propagate_phases(amplitudes: Tensor, hop: int, known: Tensor | None = None) -> Tensor:
    """Choose phases, frame by frame.

    Args:
        amplitudes: amplitudes of the frames' spectra under a symmetric window [B, L, F].
        hop: samples from one frame to the next.
        known: phases of the first frames [B, K, F]; the phases of later frames continue them.

    Returns:
        Phases [B, L, F] in radian, relative to the first sample of each frame's window.
    """
    count = amplitudes.shape[-1]
    size = 2 * (count - 1)
    frequency, peak = _peaks(amplitudes)
    omega = (2 * math.pi / size) * frequency
    before = torch.cat([omega[:, :1], omega[:, :-1]], 1).gather(-1, peak)
    steady = (before - omega).abs() < _NEAR * 2 * math.pi / size
    advance = hop * torch.where(steady, (before + omega) / 2, omega)
    advance = advance.remainder(2 * math.pi)  # sums of large phases would lose precision
    bins = torch.arange(count, device=amplitudes.device)
    # Phases at the centre of the window, where those of all bins around a partial are equal. The
    # first ones spread the energy of harmonic sounds over time (Schroeder 1970).
    phase = (math.pi / count * bins.square()).expand_as(amplitudes[:, 0])
    centre = math.pi * bins
    first = 0 if known is None else known.shape[1]
    phases = [] if known is None else [known]
    if known is not None:
        phase = known[:, -1] + centre
    for frame in range(first, amplitudes.shape[1]):
        phase = phase.gather(-1, peak[:, frame]) + advance[:, frame]
        phases.append((phase - centre)[:, None])
    return torch.cat(phases, 1)


def _peaks(amplitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Assign each bin to a peak; the valleys between peaks separate them.

    Args:
        amplitudes: [B, L, F].

    Returns:
        Frequency of the bin's peak in bins, by a parabola through the logarithms around it, and
        index of the bin's peak, both [B, L, F].
    """
    level = (amplitudes + _EPSILON).log()
    count = level.shape[-1]
    bins = torch.arange(count, device=level.device).expand_as(level)
    rises = torch.nn.functional.pad(level.diff(dim=-1) > 0, (1, 1))
    rises, continues = rises[..., :-1], rises[..., 1:]
    inner = (bins > 0) & (bins < count - 1)
    is_peak = rises & ~continues & inner
    is_valley = ~rises & continues
    last_peak = torch.where(is_peak, bins, -1).cummax(-1).values
    last_valley = torch.where(is_valley, bins, -1).cummax(-1).values
    next_peak = torch.where(is_peak, bins, count).flip(-1).cummin(-1).values.flip(-1)
    peak = torch.where((last_peak > last_valley) | (next_peak == count), last_peak, next_peak)
    peak = peak.clamp(1, count - 2)
    below, above = level.gather(-1, peak - 1), level.gather(-1, peak + 1)
    bend = below - 2 * level.gather(-1, peak) + above
    offset = torch.where(bend < -_EPSILON, (below - above) / (2 * bend), 0.0).clamp(-0.5, 0.5)
    return peak + offset, peak
