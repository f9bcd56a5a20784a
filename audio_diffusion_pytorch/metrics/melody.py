"""How much of the melody a transfer kept, and how far its sound is from a reference."""

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
    """One value per pair of clips; float64 on the CPU.

    dpd [B]: pitch distance along the time alignment, 0 (same melody) to 6 (a tritone apart throughout) in `correct`
    mode, to 11 in `paper` mode. jaccard [B]: 1 - |A and B| / |A or B| of the pitch classes that occur, 0 to 1.
    voiced_a, voiced_b [B]: share of frames with a pitch. problems: why a value is NaN, or None, for each pair.
    """

    dpd: Tensor
    jaccard: Tensor
    voiced_a: Tensor
    voiced_b: Tensor
    problems: tuple[str | None, ...]


def pitch_metrics(
    a: Tensor, b: Tensor, sample_rate: int, mode: Mode = "correct", median_frames: int = 0
) -> PitchMetrics:
    """Melody distances (DPD and JD of Mancusi et al. 2024, arXiv 2409.06096) of pairs of clips.

    a [B, Ta], b [B, Tb]: mono at sample_rate, on any device.

    `correct`: pitches at the true sample rate, in the official windows; frames in which no note reaches
    `pitch.VOICED` are left out of either clip; exact dynamic time warping on the circular distance of pitch
    classes; DPD is the cheapest path's cost over its length, of equally cheap paths the shortest. A clip without a
    voiced frame has no melody: DPD is NaN and `problems` says why; JD is then 1, or NaN where neither clip has one.

    `paper`: the authors' numbers. 24 kHz audio is read as 22.05 kHz in one piece, every frame has a class, silence
    too, and DPD is the `fastdtw` package's radius-1 approximation on the difference of the class numbers.

    `median_frames` (odd) smooths the classes over time first; 0 leaves them as they are.

    Raises:
        InputError: audio that is empty, not [B, T], not finite, or of different batch sizes; an unknown mode.
    """
    _check_pair(a, b, sample_rate)
    first, second = (track_melody(clip, sample_rate, mode, median_frames) for clip in (a, b))
    return melody_distances(first, second, mode)


def melody_distances(a: Melody, b: Melody, mode: Mode = "correct") -> PitchMetrics:
    """`pitch_metrics` of melodies that are tracked already; the clips of a and b may differ in length."""
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
    """1 - |A and B| / |A or B| of the values that occur in a and in b; NaN where both are empty."""
    first, second = set(a.tolist()), set(b.tolist())
    union = first | second
    return 1 - len(first & second) / len(union) if union else math.nan


def dtw_distance(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
    """Exact dynamic time warping of pairs of pitch-class sequences -> path cost / path length, float64 [B].

    first[i], second[i]: integers 0 to 11, of any lengths; a pair with an empty one gives NaN. The local cost is the
    circular distance (0 to 6), the steps are (1, 0), (0, 1) and (1, 1). Cost and length are one integer, cost * base +
    length with base above any length, so the minimum over paths is the cheapest one and among those the shortest:
    the same whichever clip comes first. All pairs run together, one anti-diagonal at a time: O(F^2) time, O(F) memory.
    """
    rows, columns = (np.array([len(x) for x in side], dtype=np.int64) for side in (first, second))
    height, width = int(rows.max(initial=0)), int(columns.max(initial=0))
    result = np.full(len(first), np.nan)
    if height == 0 or width == 0:
        return result
    base = np.int64(height + width)
    x, y = _stack(first, height), _stack(second, width)[:, ::-1]
    unreached = np.int64(2**62)
    # diagonals are indexed by the row + 1; index 0 and rows outside a diagonal stay unreached
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
    """FastDTW (Salvador and Chan 2007) of radius 1, path cost / path length."""
    from fastdtw.fastdtw import (
        fastdtw,  # the pure-Python one: a compiled one may break ties another way
    )

    cost, path = fastdtw(a, b)
    return cost / len(path)


def _stack(sequences: list[np.ndarray], length: int) -> np.ndarray:
    """Sequences of any lengths -> int64 [B, length], zeros behind the end (cells there follow every real one)."""
    stacked = np.zeros((len(sequences), length), dtype=np.int64)
    for row, sequence in zip(stacked, sequences, strict=True):
        row[: len(sequence)] = sequence
    return stacked


def _problem(a: np.ndarray, b: np.ndarray) -> str | None:
    empty = [name for name, classes in (("a", a), ("b", b)) if len(classes) == 0]
    return f"no voiced frame in {' and '.join(empty)}" if empty else None


def _check_pair(a: Tensor, b: Tensor, sample_rate: int) -> None:
    check_clips(a, sample_rate, "a")
    check_clips(b, sample_rate, "b")
    if a.shape[0] != b.shape[0]:
        raise InputError(f"a and b must hold as many clips, got {a.shape[0]} and {b.shape[0]}")
