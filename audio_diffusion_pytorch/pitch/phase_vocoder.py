"""Phase vocoder: pitch shifts without a change of duration."""

import numpy as np
from scipy import fft

_WINDOW = 0.085  # s: a Hann window that separates partials 50 Hz apart
_BLOCK = 512  # frames of one FFT call


def shift_pitch(wav: np.ndarray, semitones: float, sample_rate: int) -> np.ndarray:
    """Shift all frequencies by `semitones`, with the same duration.

    A phase vocoder with identity phase locking (Laroche and Dolson 1999, section IV): the spectrum
    of a window of n samples is inverted to m = n / ratio samples at the same position, which
    multiplies every frequency by the ratio. Each spectral peak advances its phase by its new
    frequency since the last window; the surrounding bins rotate with their peak. Phase differences
    of the channels are preserved: peaks are detected in the average of the channels, in which
    channels out of phase are inverted. Frequencies above half the sample rate are dropped.

    Args:
        wav: [C, T], float32.
        semitones: shift, not necessarily whole.
        sample_rate: sample rate in Hz.

    Returns:
        Shifted waveform [C, T], float32.
    """
    ratio = 2 ** (semitones / 12)
    n, m = _windows(ratio, sample_rate)
    ratio = n / m
    hop = min(n, m) // 4
    bins = min(n, m) // 2
    window = _hann(n)
    fade = _hann(m) * np.float32(m / n)
    loudest = wav[np.square(wav).sum(-1).argmax()]
    polarity = np.where((wav * loudest).sum(-1) < 0, np.float32(-1), np.float32(1))[:, None, None]
    length = wav.shape[-1]
    count = -(-length // hop) + 1
    padded = np.pad(wav.astype(np.float32), ((0, 0), (n // 2, hop + n)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n, axis=-1)[:, ::hop]
    out = np.zeros((len(wav), (count - 1) * hop + m), np.float32)
    weight = np.full(out.shape[-1], 1e-6, np.float32)

    # Phase advance of a bin's centre in a hop, and the additional advance of the shift.
    advance = 2 * np.pi * (np.arange(bins) * hop % n) / n
    added = (ratio - 1) * 2 * np.pi * np.arange(bins) * hop / n % (2 * np.pi)
    last = np.zeros((1, bins), np.complex64)
    turn = np.ones(bins, np.complex64)
    for start in range(0, count, _BLOCK):
        spectrum = fft.rfft(frames[:, start : min(start + _BLOCK, count)] * window)[..., :bins]
        mix = (spectrum * polarity).mean(0)
        previous = np.concatenate([last, mix[:-1]])
        moved = np.angle(mix * np.conj(previous)) - advance.astype(np.float32)
        moved -= np.float32(2 * np.pi) * np.round(moved / np.float32(2 * np.pi))
        steps = _unit(added.astype(np.float32) + np.float32(ratio - 1) * moved)
        nearest = _nearest_peaks(np.abs(mix))
        turns = np.empty_like(mix)
        for index in range(len(mix)):
            turn = turns[index] = (turn * steps[index])[nearest[index]]
        last = mix[-1:]
        pieces = fft.irfft(spectrum * turns, n=m) * fade
        for index in range(len(mix)):
            at = (start + index) * hop
            out[:, at : at + m] += pieces[:, index]
            weight[at : at + m] += fade * fade * np.float32((n / m) ** 2)
    begin = m // 2
    return out[:, begin : begin + length] / weight[begin : begin + length]


def _windows(ratio: float, sample_rate: int) -> tuple[int, int]:
    """Return even window lengths with the quotient nearest to `ratio` (0.3 cents at 24 kHz)."""
    # Downward shifts have a longer second window, which smears onsets: shorten both windows.
    shortest = round(_WINDOW * min(1.0, ratio) ** 0.5 * sample_rate / 2)
    pairs = [(2 * half, 2 * round(half / ratio)) for half in range(shortest, shortest * 3 // 2)]
    fast = [pair for pair in pairs if all(fft.next_fast_len(length) == length for length in pair)]
    return min(fast or pairs, key=lambda pair: abs(pair[0] / pair[1] / ratio - 1))


def _unit(angle: np.ndarray) -> np.ndarray:
    """Compute exp(i angle) as complex64."""
    out = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=out.real)
    np.sin(angle, out=out.imag)
    return out


def _hann(length: int) -> np.ndarray:
    return np.square(np.sin(np.pi * np.arange(length) / length)).astype(np.float32)


def _nearest_peaks(magnitude: np.ndarray) -> np.ndarray:
    """Return the index [frames, bins] of the peak nearest to each bin of a magnitude.

    A peak is a bin above two neighbours on each side.
    """
    bins = magnitude.shape[1]
    around = np.pad(magnitude, ((0, 0), (2, 2)), constant_values=-1.0)
    peak = np.ones(magnitude.shape, bool)
    for offset, strictly in ((0, True), (1, True), (3, False), (4, False)):
        other = around[:, offset : offset + bins]
        peak &= magnitude > other if strictly else magnitude >= other
    index = np.arange(bins, dtype=np.int32)
    before = np.maximum.accumulate(np.where(peak, index, -bins), axis=1)
    after = np.minimum.accumulate(np.where(peak, index, 3 * bins)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(index - before <= after - index, before, after)
    return np.clip(nearest, 0, bins - 1)
