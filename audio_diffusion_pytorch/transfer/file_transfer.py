"""Transfer one file through a bridge, in bounded memory.

The file is read twice: first to measure its level and tuning, then to cut its windows. The output
is written after the last window.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import AudioReader, LevelMeter, to_db, writing
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.overlap_add import OverlapAdd, matching_gain
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.windows import Window, WindowCutter
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import Octaves, octaves_for
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis, analyse

_MEMORY = 1 << 23  # bytes of output sound in memory; more go to an unnamed temporary file
_BLOCK = 1 << 18  # frames per block when the output is scaled and written


@dataclass(frozen=True)
class FileOptions:
    """Options that every file of a run shares.

    Args:
        mid: bridge the channels' average only, and write one channel.
        transpose: octaves by which recordings move first; "auto": into the target's range, 0 if
            that range is unknown.
        listen: analyse the source, for a warning.
    """

    mid: bool = False
    transpose: Octaves = "auto"
    listen: bool = True


class FileTransfer:
    """Transfer one file through a bridge.

    Args:
        job: input and output.
        bridge: bridge at the job's sigma.
        options: options of the run.
        analysis: analysis of the recording, if it chose the bridge.

    Attributes:
        seconds: working time so far.
        evaluations: network calls so far.
        is_open: whether the transfer still holds its files and its lock.
    """

    def __init__(
        self,
        job: Job,
        bridge: Bridge,
        options: FileOptions | None = None,
        analysis: Analysis | None = None,
    ):
        self.job = job
        self.bridge = bridge
        self.options = options or FileOptions()
        self.analysis = analysis
        self.source_is_chosen = analysis is not None and bool(analysis.instruments)
        self.seconds = 0.0
        self.evaluations = 0
        self.is_open = True
        self._resources = ExitStack()

    def claim(self) -> bool:
        """Lock the job against other runs; return False if another run holds it."""
        return self._resources.enter_context(self.job.claimed())

    def close(self) -> None:
        """Release the files and the lock."""
        self.is_open = False
        self._resources.close()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of a block to `seconds`."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def open(self) -> None:
        """Open the input and measure it; a split recording has been measured.

        Raises:
            InputError: the input cannot be read.
            OSError: the output cannot be written.
        """
        self.reader = self._resources.enter_context(AudioReader(self.job.input))
        self.info = self.reader.info
        self.channels = 1 if self.options.mid else self.info.channels
        self.job.output.parent.mkdir(parents=True, exist_ok=True)
        spool = SpooledTemporaryFile(_MEMORY, dir=str(self.job.output.parent))  # noqa: SIM115
        self.spool = self._resources.enter_context(spool)
        self.sound = LevelMeter(self.info.sample_rate)
        if split := self.job.split:
            self.stats, self.octaves, self.analysis = split.stats, split.octaves, split.analysis
        else:
            self.stats = RecordingStats.of_audible(self.blocks(), self.info.sample_rate)
            if self.analysis is None and self._needs_analysis():
                self.analysis = analyse(self.reader, self.options.mid)
            self.octaves = octaves_of(self.analysis, self.options.transpose, self.bridge)
        sound = self.info.sample_rate, self.channels, self.stats
        self.joiner = OverlapAdd(self.bridge.framing, *sound)
        self.cutter = WindowCutter(self.bridge.framing, *sound, self.octaves)

    def windows(self) -> Iterator[Window]:
        """Return the windows of the open input in order."""
        return self.cutter.windows(self.blocks())

    def add(self, window: Window, latents: Tensor) -> bool:
        """Add the latents [D, L] of the next window; return True if the sound is complete."""
        wav = self.joiner.add(window, latents)
        self.sound.update(wav)
        self.spool.write(wav.T.contiguous().numpy().tobytes())
        if window.active.any():
            self.evaluations += self.bridge.num_evaluations
        return window.last and window.channel == self.channels - 1

    def write(self, settings: Mapping[str, Any], is_pending: bool = False) -> None:
        """Write the copies and the output with the input's level and tags; record `settings`.

        Args:
            settings: settings that the output depends on.
            is_pending: see `Job.remember`.
        """
        for path in self.job.copies:
            self._write(path)
        self._write(
            self.job.output, lambda written: self.job.remember(settings, written, is_pending)
        )

    def _write(self, path: Path, complete: Callable[[Path], None] | None = None) -> None:
        gain = np.float32(matching_gain(self.stats.level, self.sound))
        self.spool.seek(0)
        with writing(
            path,
            self.info.sample_rate,
            self.channels,
            self.info.subtype,
            self.reader.tags,
            self.info.frames,
            complete,
        ) as write_block:
            while data := self.spool.read(_BLOCK * self.channels * 4):
                block = np.frombuffer(data, "f4").reshape(-1, self.channels).T
                write_block(torch.from_numpy(block * gain))

    def facts(self) -> dict[str, Any]:
        """Return the facts of the finished transfer, for a report."""
        facts = {
            "input": str(self.job.input),
            "output": str(self.job.output),
            "sample_rate": self.info.sample_rate,
            "channels": self.channels,
            "octaves": self.octaves,
            "cents": self.stats.cents,
            "softer_db": round(self.softer_db, 2),
            "duration": round(self.info.seconds, 3),
            "seconds": round(self.seconds, 3),
            "evaluations": self.evaluations,
        }
        if self.options.listen and self.analysis is not None:
            facts |= {"warning": self.warning, **self.analysis.facts()}
        return facts

    @property
    def softer_db(self) -> float:
        """Attenuation of the output relative to the input that keeps its peaks in full scale."""
        return max(0.0, to_db(self.sound.peak * self.stats.level / max(self.sound.rms, 1e-8)))

    @property
    def warning(self) -> str | None:
        """One sentence about an unsuitable source, from the analysis; None without a reason."""
        if not self.options.listen or self.analysis is None:
            return None
        source = None if self.source_is_chosen else self.bridge.source.spec.name
        return self.analysis.warning(source, self.bridge.target.spec, self.octaves)

    def _needs_analysis(self) -> bool:
        """Whether the warning or the choice of octaves depends on the analysis."""
        moves = self.options.transpose == "auto"
        return self.options.listen or (moves and pitch_range(self.bridge.target.spec) is not None)

    def blocks(self) -> Iterator[Tensor]:
        """Return the blocks [C, n] of the open input, high-passed by `audible`."""
        blocks = self.reader.mono_blocks() if self.options.mid else self.reader.blocks()
        return audible(blocks, self.info.sample_rate)


def octaves_of(analysis: Analysis | None, transpose: Octaves, bridge: Bridge) -> int:
    """Return the octaves by which a recording moves; "auto" without a known range means 0."""
    if transpose != "auto":
        return transpose
    limits = pitch_range(bridge.target.spec)
    return 0 if limits is None or analysis is None else octaves_for(analysis.pitches, *limits)


def analysis_of(job: Job, mid: bool) -> Analysis:
    """Analyse a job's input.

    Args:
        job: the job.
        mid: analyse the channels' average instead of the loudest channel.

    Raises:
        InputError: the input cannot be read.
    """
    with AudioReader(job.input) as file:
        return analyse(file, mid)
