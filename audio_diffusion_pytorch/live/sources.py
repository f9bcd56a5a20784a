"""Sound from files and pipes, in blocks of one length."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audio_diffusion_pytorch.audio import AudioReader

_SAMPLE = 2  # bytes of a sample in a pipe
_FULL = 32768.0  # 16-bit full scale


def file_blocks(path: Path, size: int) -> Iterator[np.ndarray]:
    """Yield a recording, averaged to one channel, in blocks [size, 1]; the last may be shorter.

    Args:
        path: recording in any format that the commands read.
        size: samples of a block.

    Raises:
        InputError: the file cannot be read.
    """
    with AudioReader(path) as file:
        yield from _in_blocks((block[0].numpy() for block in file.mono_blocks()), size)


def pipe_blocks(size: int, pipe: BinaryIO | None = None) -> Iterator[np.ndarray]:
    """Yield sound from a pipe in blocks [size, 1] as it arrives; the last may be shorter.

    Args:
        size: samples of a block.
        pipe: signed 16-bit little-endian samples of one channel; None: standard input.
    """
    pipe = sys.stdin.buffer if pipe is None else pipe
    while data := pipe.read(_SAMPLE * size):
        samples = np.frombuffer(data[: len(data) // _SAMPLE * _SAMPLE], "<i2")
        if len(samples):
            yield (samples / _FULL).astype(np.float32)[:, None]


def _in_blocks(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    rest = np.zeros(0, np.float32)
    for part in parts:
        rest = np.concatenate([rest, part])
        whole = len(rest) // size * size
        for start in range(0, whole, size):
            yield rest[start : start + size, None]
        rest = rest[whole:]
    if len(rest):
        yield rest[:, None]
