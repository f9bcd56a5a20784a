"""Melody distances between a recording and its transfer (Mancusi et al. 2024, arXiv 2409.06096)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.tracker import Melody, Mode, check_clips, track_melody


@dataclass(frozen=True)
class PitchMetrics:
    """Melody distances of pairs of clips, each [B] in float64 on the CPU.

    Attributes:
        dpd: pitch distance along the time alignment, from 0 (equal melodies) to 6 (a tritone apart
            throughout) in the mode `correct`, to 11 in the mode `paper`.
        jaccard: 1 - |A and B| / |A or B| of the pitch classes that occur, from 0 to 1.
        voiced_a: share of the first clip's frames with a pitch.
        voiced_b: share of the second clip's frames with a pitch.
        problems: reason for a NaN, or None, for each pair.
    """

    dpd: Tensor
    jaccard: Tensor
    voiced_a: Tensor
    voiced_b: Tensor
    problems: tuple[str | None, ...]


def pitch_metrics(
    a: Tensor, b: Tensor, sample_rate: int, mode: Mode = "correct", median_frames: int = 0
) -> PitchMetrics:
    """Compute the melody distances DPD and JD (Mancusi et al. 2024) of pairs of clips.

    The mode `correct` tracks pitches at the true sample rate in the official windows. It leaves out
    frames in which no note reaches `pitch.VOICED`. Exact dynamic time warping runs on the circular
    distance of pitch classes. DPD is the cost of the cheapest path over its length; of equally
    cheap paths, the shortest counts. Without a voiced frame, DPD is NaN and `problems` gives the
    reason; JD is then 1, or NaN if neither clip has a voiced frame.

    The mode `paper` reproduces the authors' numbers: audio at 24 kHz is read as 22.05 kHz in one
    piece, every frame has a pitch class (silence, too), and DPD is the radius-1 approximation of
    the package `fastdtw` on the difference of the class numbers.

    Args:
        a: mono clips [B, Ta], on any device.
        b: mono clips [B, Tb].
        sample_rate: rate of the clips in Hz.
        mode: `correct` or `paper`.
        median_frames: odd length of a median filter over the pitch classes; 0 for none.

    Returns:
        The distances.

    Raises:
        InputError: the clips are empty, not [B, T], not finite, or differ in number; or the mode is
            unknown.
    """
    check_pair(a, b, sample_rate)
    first, second = (track_melody(clip, sample_rate, mode, median_frames) for clip in (a, b))
    return melody_distances(first, second, mode)


def melody_distances(a: Melody, b: Melody, mode: Mode = "correct") -> PitchMetrics:
    """Compute melody distances of tracked melodies; see `pitch_metrics`.

    Args:
        a: melodies of B clips.
        b: melodies of B clips, which may differ in length from a's.
        mode: `correct` or `paper`.

    Returns:
        The distances.
    """
    masks = [m.voiced if mode == "correct" else torch.ones_like(m.voiced) for m in (a, b)]
    first, second = (
        [classes[mask].cpu().numpy() for classes, mask in zip(m.classes, masks_, strict=True)]
        for m, masks_ in zip((a, b), masks, strict=True)
    )
    pairs = list(zip(first, second, strict=True))
    dpd = (
        dtw_distance(first, second)
        if mode == "correct"
        else np.array([_paper_distance(x, y) for x, y in pairs])
    )
    voiced_a, voiced_b = (mask.cpu().double().mean(dim=-1).nan_to_num(0.0) for mask in masks)
    return PitchMetrics(
        dpd=torch.from_numpy(dpd),
        jaccard=torch.tensor([jaccard_distance(x, y) for x, y in pairs], dtype=torch.float64),
        voiced_a=voiced_a,
        voiced_b=voiced_b,
        problems=tuple(_problem(x, y) for x, y in pairs),
    )


def jaccard_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute 1 - |A and B| / |A or B| of the values in a and in b; NaN if both are empty."""
    first, second = set(a.tolist()), set(b.tolist())
    union = first | second
    return 1 - len(first & second) / len(union) if union else math.nan


def dtw_distance(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
    """Align pairs of pitch-class sequences by exact dynamic time warping.

    The local cost is the circular distance (0 to 6); the steps are (1, 0), (0, 1) and (1, 1). One
    integer combines cost and length: cost * base + length, with base above any length. Its minimum
    is the cheapest path, and the shortest of equally cheap paths, whichever clip comes first. All
    pairs advance together, one anti-diagonal at a time: O(F^2) time and O(F) memory for F frames.

    Args:
        first: B sequences of integers from 0 to 11, of any lengths.
        second: B sequences.

    Returns:
        Cost over length of each path [B], float64; NaN if a sequence is empty.
    """
    rows, columns = (np.array([len(x) for x in side], dtype=np.int64) for side in (first, second))
    height, width = int(rows.max(initial=0)), int(columns.max(initial=0))
    result = np.full(len(first), np.nan)
    if height == 0 or width == 0:
        return result
    base = np.int64(height + width)
    x, y = _stack(first, height), _stack(second, width)[:, ::-1]
    unreached = np.int64(2**62)
    # index of a diagonal: row + 1; index 0 and rows outside a diagonal stay unreached
    before, last = (np.full((len(first), height + 1), unreached) for _ in range(2))
    for diagonal in range(height + width - 1):
        low, high = max(0, diagonal - width + 1), min(height, diagonal + 1)
        offset = width - 1 - diagonal  # row i meets column diagonal - i, which is y[:, offset + i]
        apart = np.abs(x[:, low:high] - y[:, offset + low : offset + high])
        local = np.minimum(apart, 12 - apart) * base + 1
        here = np.full_like(last, unreached)
        reach = here[:, low + 1 : high + 1]
        np.minimum(
            last[:, low:high], last[:, low + 1 : high + 1], out=reach
        )  # from above, from the left
        np.minimum(reach, before[:, low:high], out=reach)  # along the diagonal
        if diagonal == 0:
            reach[:] = 0
        reach += local
        for pair in np.flatnonzero(rows + columns - 2 == diagonal):
            if rows[pair] and columns[pair]:
                cost, length = divmod(here[pair, rows[pair]], base)
                result[pair] = cost / length
        before, last = last, here
    return result


def _paper_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute cost over length of the path of FastDTW (Salvador and Chan 2007) with radius 1."""
    # the pure-Python version: a compiled version may break ties differently
    from fastdtw.fastdtw import fastdtw

    cost, path = fastdtw(a, b)
    return cost / len(path)


def _stack(sequences: list[np.ndarray], length: int) -> np.ndarray:
    """Stack sequences to int64 [B, length]; no path to a real end passes the zero padding."""
    stacked = np.zeros((len(sequences), length), dtype=np.int64)
    for row, sequence in zip(stacked, sequences, strict=True):
        row[: len(sequence)] = sequence
    return stacked


def _problem(a: np.ndarray, b: np.ndarray) -> str | None:
    empty = [name for name, classes in (("a", a), ("b", b)) if len(classes) == 0]
    return f"no voiced frame in {' and '.join(empty)}" if empty else None


def check_pair(a: Tensor, b: Tensor, sample_rate: int) -> None:
    """Check two sets of clips.

    Args:
        a: mono clips [B, Ta].
        b: mono clips [B, Tb].
        sample_rate: rate of the clips in Hz.

    Raises:
        InputError: the clips are empty, not [B, T], not finite, or differ in number.
    """
    check_clips(a, sample_rate, "a")
    check_clips(b, sample_rate, "b")
    if a.shape[0] != b.shape[0]:
        raise InputError(
            f"a and b must have the same number of clips, got {a.shape[0]} and {b.shape[0]}"
        )
