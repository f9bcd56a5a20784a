"""Harmonics-to-noise ratio: the partials of a pitch track against the rest of the spectrum."""

import math

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.pitch.notes import F0Track

LOWEST, HIGHEST = 60.0, 8000.0  # Hz
BANDS = (0.0, 262.0, 523.0, 1047.0, math.inf)  # Hz: pitch below C4, C5, C6, and above
_SECONDS = 0.085  # of a frame
_HALF_WIDTH = 2.0  # bins on each side of a partial: the main lobe of the Hann window
_SEARCH = np.arange(-40.0, 41.0, 2.0)  # cents around the tracked pitch


def harmonics_to_noise(wav: Tensor, sample_rate: int, track: F0Track) -> dict[str, float]:
    """Compare the power at the partials with the power between them, 60 Hz to 8 kHz.

    The pitch of each frame is refined within 40 cents to the largest power at the partials. The
    noise at the partials is estimated from the noise between them.

    Args:
        wav: sound [T].
        sample_rate: in Hz.
        track: pitch of the sound; its voiced frames count.

    Returns:
        hnr: mean over the frames in dB; hnr_low, hnr_mid, hnr_high, hnr_top: mean over the frames
            with a pitch below C4, C5, C6, and above. NaN without such frames.
    """
    size = 2 * round(_SECONDS * sample_rate / 2)
    padded = torch.nn.functional.pad(wav.double(), (size // 2, size // 2))
    window = torch.hann_window(size, dtype=torch.float64)
    frames = []
    pitches = []
    for time, hertz in zip(track.times[track.voiced], track.hertz[track.voiced], strict=True):
        start = round(time * sample_rate)
        if start + size > len(padded):
            break
        power = torch.fft.rfft(padded[start : start + size] * window).abs().square().numpy()
        ratio = _ratio(power, hertz, sample_rate / size)
        if ratio is not None:
            frames.append(ratio)
            pitches.append(hertz)
    scores = {"hnr": float(np.mean(frames)) if frames else math.nan}
    names = ("hnr_low", "hnr_mid", "hnr_high", "hnr_top")
    for name, low, high in zip(names, BANDS[:-1], BANDS[1:], strict=True):
        inside = [r for r, pitch in zip(frames, pitches, strict=True) if low <= pitch < high]
        scores[name] = float(np.mean(inside)) if inside else math.nan
    return scores


def _ratio(power: np.ndarray, hertz: float, width: float) -> float | None:
    """Return the ratio in dB of one spectrum with bins of `width` Hz; None if partials touch."""
    band = slice(math.ceil(LOWEST / width), min(len(power), math.floor(HIGHEST / width)))
    if hertz / width < 3 * _HALF_WIDTH or not power[band].any():
        return None
    bins = np.arange(len(power))[band]
    inside = power[band]
    harmonic = -1.0
    partial = np.zeros(len(bins), bool)
    for pitch in hertz * 2 ** (_SEARCH / 1200):
        distance = np.abs(bins - np.maximum(1, np.round(bins * width / pitch)) * pitch / width)
        found = float(inside[distance <= _HALF_WIDTH].sum())
        if found > harmonic:
            harmonic = found
            partial = distance <= _HALF_WIDTH
    between = inside[~partial].sum()
    # noise under the partials: its density between them, over their width
    under = between * partial.sum() / max(1, (~partial).sum())
    signal = max(harmonic - under, 1e-12 * inside.sum())
    return 10 * math.log10(signal / max(between + under, 1e-12 * inside.sum()))
