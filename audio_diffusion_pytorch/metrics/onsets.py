"""Measure by how much the notes of an output start later than those of its input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

HOP = 0.002  # seconds between the values of an envelope
_WINDOW = 0.010  # seconds of sound for a value of an envelope
_BEFORE, _AFTER = 0.1, 0.2  # seconds around an onset that are compared
_LATEST = 0.1  # seconds, the longest delay that is found
_RANGE = 60.0  # dB below the clip's peak, at which an envelope ends
_RISE = 6.0  # dB by which an envelope moves around an onset


def envelope(wav: Tensor, sample_rate: int) -> Tensor:
    """Return the level of wav [T] in dB every 2 ms: [1 + T // hop]."""
    hop = round(HOP * sample_rate)
    width = round(_WINDOW * sample_rate)
    power = F.avg_pool1d(wav.double().square()[None], width, hop, width // 2)[0]
    level = 10 * power.clamp_min(1e-12).log10()
    return level.clamp_min(float(level.max()) - _RANGE)


def onset_delays(
    reference: Tensor, output: Tensor, sample_rate: int, onsets: Sequence[float]
) -> list[float]:
    """Return the delay of each note by the cross-correlation of both envelopes around its onset.

    Args:
        reference: sound [T] at whose onsets a delay is 0, for example the codec alone.
        output: sound [T].
        sample_rate: rate of both in Hz.
        onsets: times of the notes in seconds.

    Returns:
        Delays in seconds, a multiple of 2 ms, negative for early notes. Onsets where an envelope
        hardly moves, such as slurred notes, are left out.
    """
    given = envelope(reference, sample_rate)
    found = envelope(output, sample_rate)
    reach = round(_LATEST / HOP)
    before, after = round(_BEFORE / HOP), round(_AFTER / HOP)
    delays = []
    for onset in onsets:
        middle = round(onset / HOP)
        start, end = middle - before, middle + after
        if start - reach < 0 or end + reach > min(len(given), len(found)):
            continue
        template = given[start:end]
        others = found[start - reach : end + reach].unfold(0, end - start, 1)
        if min(float(x.max() - x.min()) for x in (template, found[start:end])) < _RISE:
            continue
        correlation = F.cosine_similarity(
            others - others.mean(1, keepdim=True), (template - template.mean())[None]
        )
        delays.append((int(correlation.argmax()) - reach) * HOP)
    return delays


def delay_scores(delays: Sequence[float]) -> dict[str, float]:
    """Return the median and the 95th percentile of absolute delays in ms; NaN without delays."""
    if not delays:
        return {"onset_median": math.nan, "onset_p95": math.nan}
    absolute = torch.tensor(delays, dtype=torch.float64).abs() * 1000
    return {
        "onset_median": float(absolute.median()),
        "onset_p95": float(absolute.quantile(0.95)),
    }
