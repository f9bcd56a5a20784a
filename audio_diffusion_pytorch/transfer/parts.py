"""Split a long recording into parts of its windows, and join the parts.

The worker that opens the recording decides its level, tuning and octaves, and keeps its sound at
the codec's rate. Each part is a job: its worker bridges some windows of this sound and keeps their
latents. A last job joins and decodes all windows, as if one worker had bridged them. Parts hold
whole batches, so the batches of a recording that is transferred alone are the same with and without
parts.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from audio_diffusion_pytorch.bridge.framing import window_starts
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.transfer.file_transfer import FileTransfer
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis
from audio_diffusion_pytorch.utils.files import atomic_write

_WINDOWS = 32  # about so many windows of each channel in a part


@dataclass(frozen=True)
class Split:
    """Decisions for a whole recording, and the folder of its parts.

    Args:
        folder: folder with the sound and the latents.
        size: windows of each channel in a part; the last part may have fewer.
        count: number of parts.
        stats: level, tuning and noise.
        octaves: octaves by which the recording moves.
        analysis: analysis of the recording, if there was one.
        length: samples of the recording.
        seconds: working time until the split.
    """

    folder: Path
    size: int
    count: int
    stats: RecordingStats
    octaves: int
    analysis: Analysis | None
    length: int
    seconds: float

    @property
    def sound(self) -> Path:
        """File of the sound [n, C] in float32, at the codec's rate and the source model's level."""
        return self.folder / "sound"

    def part(self, number: int) -> Path:
        """Return the file of the latents of a part."""
        return self.folder / f"{number}.part"

    def remove(self) -> None:
        """Remove the folder, after the recording is written."""
        rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Part(Job):
    """Some windows of a recording; see `Job`.

    Args:
        number: index of the part.
    """

    number: int = 0


def part_size(batch_size: int) -> int:
    """Return the windows of each channel in a part: whole batches."""
    return batch_size * max(1, round(_WINDOWS / batch_size))


def num_parts(windows: int, batch_size: int) -> int:
    """Return the parts of a recording with `windows` windows of each channel; 1: it stays whole."""
    size = part_size(batch_size)
    return -(-windows // size) if windows > 2 * size else 1


def split_recording(file: FileTransfer, parts: Path) -> tuple[list[Part], Job] | None:
    """Split an open recording if it is long.

    Args:
        file: the recording.
        parts: folder for the folders of split recordings.

    Returns:
        The parts and the job that joins them; None for a short recording.
    """
    rate, batch_size = file.info.sample_rate, file.bridge.batch_size
    windows = file.bridge.num_windows(file.info.frames, file.stats.tuned_rate(rate))
    if num_parts(windows, batch_size) == 1:
        return None
    with file.timed():
        folder = Path(tempfile.mkdtemp(dir=parts))
        samples = 0
        with open(folder / "sound", "wb") as sound:
            for block in file.cutter.resampled(file.blocks()):
                samples += block.shape[-1]
                sound.write(block.T.contiguous().numpy().tobytes())
    size = part_size(batch_size)
    split = Split(
        folder,
        size,
        -(-len(_starts(file, samples)) // size),
        file.stats,
        file.octaves,
        file.analysis and replace(file.analysis, pitches=()),
        file.cutter.length,
        file.seconds,
    )
    join = replace(file.job, split=split)
    return [Part(**vars(join), number=number) for number in range(split.count)], join


class PartTransfer(FileTransfer):
    """Transfer some windows of a split recording, see `FileTransfer`."""

    job: Part

    def open(self) -> None:
        """Open the sound, instead of the input."""
        super().open()
        self.recording = np.memmap(self.job.split.sound, "f4", "r").reshape(-1, self.channels)
        self.done: list[tuple[dict[str, Any], Tensor]] = []  # windows and latents

    def windows(self) -> Iterator[Window]:
        """Return the windows of the part in order."""
        split = self.job.split
        starts = _starts(self, len(self.recording))
        index = self.job.number * split.size
        here = starts[index : index + split.size]
        self.count = len(here) * self.channels
        for start in here:
            length = split.length if start == starts[-1] else None
            yield from self.cutter.cut(self._read(start), start, length)

    def _read(self, start: int) -> Tensor:
        """Read the sound [C, samples] of the window at a frame; the last one ends in silence."""
        hop = self.bridge.codec.hop_length
        sound = self.recording[start * hop : (start + self.bridge.window) * hop]
        wav = torch.from_numpy(sound.T.copy())
        return F.pad(wav, (0, self.bridge.window * hop - wav.shape[-1]))

    def add(self, window: Window, latents: Tensor) -> bool:
        """Keep the latents [D, L] of the next window; return True after the last one."""
        self.done.append(({**vars(window), "wav": torch.empty(0), "unmoved": None}, latents))
        return len(self.done) == self.count

    def write(self, *_: Any, **__: Any) -> None:
        """Write the latents of the part, for `join`."""
        content = {"seconds": self.seconds, "windows": self.done}
        with atomic_write(self.job.split.part(self.job.number)) as temporary:
            torch.save(content, temporary)


def join(file: FileTransfer, split: Split) -> None:
    """Add the windows of all parts to an open recording, in order.

    Args:
        file: the recording.
        split: its parts.
    """
    file.seconds += split.seconds
    for number in range(split.count):
        part = torch.load(split.part(number), weights_only=True)
        file.seconds += part["seconds"]
        for window, latents in part["windows"]:
            file.add(Window(**window), latents)


def _starts(file: FileTransfer, samples: int) -> list[int]:
    """Return the first frame of each window, for `samples` samples at the codec's rate."""
    framing = file.bridge.framing
    return window_starts(framing.codec.num_frames(samples), framing.window, framing.hop)
