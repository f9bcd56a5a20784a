"""Write sound to a file on a thread of its own, so that a slow disk does not stop the sound."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import torch

from audio_diffusion_pytorch.audio import writing


class Recorder:
    """Record blocks; the complete file appears under its name when the recorder is closed.

    Args:
        path: file to write.
        sample_rate: in Hz.
        channels: channels of every block.

    Attributes:
        path: as given.
        failure: error of the writing thread.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int):
        self.path = path
        self.failure: BaseException | None = None
        self._blocks: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, args=(sample_rate, channels))
        self._thread.start()

    def add(self, block: np.ndarray) -> None:
        """Add the next block [n, C]; never waits."""
        if self.failure is None:
            self._blocks.put(block.copy())

    def close(self) -> None:
        """Complete the file.

        Raises:
            InputError: the file could not be written.
        """
        self._blocks.put(None)
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _write(self, sample_rate: int, channels: int) -> None:
        try:
            with writing(self.path, sample_rate, channels) as write:
                while (block := self._blocks.get()) is not None:
                    write(torch.from_numpy(np.ascontiguousarray(block.T, dtype=np.float32)))
        except BaseException as error:  # `close` raises it
            self.failure = error
