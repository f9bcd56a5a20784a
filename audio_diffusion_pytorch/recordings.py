"""Files through a bridge: read twice (level, then windows), written when their last window is done.

The windows of all files and channels go through the networks together. A file that fails does not stop the others.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import AudioReader, LevelMeter, to_db, to_mono, writing
from audio_diffusion_pytorch.bridge import Bridge
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.jobs import Job
from audio_diffusion_pytorch.streaming import Survey, Track, Window, matching_gain
from audio_diffusion_pytorch.transpose import heard_pitches, octaves_for, pitch_range

# tell(what, job, value): "windows" and how many are done, then one of "done" and facts, "failed" and why, "left" (to
# another run)
Tell = Callable[[str, Job, Any], None]
Report = Callable[[Job, dict[str, Any]], dict[str, Any]]
_MEMORY = 1 << 23  # bytes of a recording's sound that stay in memory before they go to a file without a name
_BLOCK = 1 << 18  # frames that are scaled and written at a time


class Recording:
    """One file on its way through a bridge, in bounded memory.

    Args:
        job: what to make.
        bridge: at the job's sigma.
        mid: bridge the channels' average only, and write one channel.
        transpose: octaves by which the recording is moved before; "auto": as many as bring it into the target's range.
    """

    def __init__(self, job: Job, bridge: Bridge, mid: bool = False, transpose: int | Literal["auto"] = 0):
        self.job, self.bridge, self.mid, self.transpose = job, bridge, mid, transpose
        self.open = ExitStack()
        self.seconds = 0.0  # of work
        self.evaluations = 0

    def claim(self) -> bool:
        """Hold the recording against other runs; False where another one holds it."""
        return self.open.enter_context(self.job.claimed())

    def windows(self) -> Iterator[Window]:
        """The recording's windows, in order.

        Raises:
            InputError: the input cannot be used.
            OSError: the output cannot be written.
        """
        self.reader = self.open.enter_context(AudioReader(self.job.input))
        self.info = self.reader.info
        self.channels = 1 if self.mid else self.info.channels
        self.job.output.parent.mkdir(parents=True, exist_ok=True)
        spool = SpooledTemporaryFile(_MEMORY, dir=self.job.output.parent)  # noqa: SIM115
        self.spool = self.open.enter_context(spool)
        self.sound = LevelMeter(self.info.sample_rate)
        self.survey = Survey.of(self._blocks(), self.info.sample_rate)
        self.octaves = self._octaves() if self.transpose == "auto" else self.transpose
        self.track = Track(self.bridge, self.info.sample_rate, self.channels, self.survey, self.octaves)
        return self.track.cut(self._blocks())

    def take(self, window: Window, latents: Tensor) -> bool:
        """The next window's latents; True when the recording's sound is complete."""
        wav = self.track.take(window, latents)
        self.sound.update(wav)
        self.spool.write(wav.T.contiguous().numpy().tobytes())
        self.evaluations += self.bridge.evaluations if window.sounding.any() else 0
        return window.last and window.channel == self.channels - 1

    def write(self, settings: Mapping[str, Any]) -> None:
        """Write the output, at the input's level and with its tags."""
        gain = np.float32(matching_gain(self.survey.level, self.sound))
        self.spool.seek(0)
        with writing(
            self.job.output,
            self.info.sample_rate,
            self.channels,
            self.info.subtype,
            self.reader.tags,
            self.info.frames,
            lambda written: self.job.remember(settings, written),
        ) as write_block:
            while data := self.spool.read(_BLOCK * self.channels * 4):
                write_block(torch.from_numpy(np.frombuffer(data, "f4").reshape(-1, self.channels).T * gain))

    def facts(self) -> dict[str, Any]:
        """What was done, for a report."""
        return {
            "input": str(self.job.input),
            "output": str(self.job.output),
            "sample_rate": self.info.sample_rate,
            "channels": self.channels,
            "octaves": self.octaves,
            "cents": self.survey.cents,
            "softer_db": round(self.softer_db, 2),
            "duration": round(self.info.seconds, 3),
            "seconds": round(self.seconds, 3),
            "evaluations": self.evaluations,
        }

    @property
    def softer_db(self) -> float:
        """By how much the output is softer than the input, so that its peaks stay within full scale."""
        return max(0.0, to_db(self.sound.peak * self.survey.level / max(self.sound.rms, 1e-8)))

    def _octaves(self) -> int:
        """Octaves that bring what is heard at the beginning into the target's range."""
        limits = pitch_range(self.bridge.target.spec)
        if limits is None:
            raise InputError(f"the range of {self.bridge.target.spec.name} is not known: say transpose=1, 0, -1 ...")
        return octaves_for(heard_pitches(self.reader), *limits)

    def _blocks(self) -> Iterator[Tensor]:
        return (to_mono(block) if self.mid else block for block in self.reader.blocks())


def bridge_files(
    bridge: Bridge,
    jobs: Iterable[Job],
    tell: Tell,
    settings: Mapping[str, Any] | None = None,
    mid: bool = False,
    transpose: int | Literal["auto"] = 0,
    overwrite: bool = False,
    report: Report | None = None,
) -> None:
    """Make the jobs, all at the bridge's sigma; the windows of several short ones share a batch.

    Args:
        tell: hears of progress and results.
        settings: what the outputs depend on, for their records.
        mid, transpose: see `Recording`.
        overwrite: make also what is done already, by this run or another.
        report: called with each job that is done and its facts; gives more of them.
    """
    opened: set[Recording] = set()

    def close(recording: Recording, what: str, value: Any = None) -> None:
        opened.discard(recording)
        recording.open.close()
        tell(what, recording.job, value)

    @contextmanager
    def failing(recording: Recording) -> Iterator[None]:
        """A file that fails is told and closed; the others go on."""
        try:
            yield
        except (InputError, OSError) as error:
            close(recording, "failed", _reason(error, recording.job))

    def windows() -> Iterator[tuple[Recording, Window]]:
        for job in jobs:
            recording = Recording(job, bridge, mid, transpose)
            opened.add(recording)
            with failing(recording):
                # Another run has it, or made it since this one began.
                if not recording.claim() or (job.state(settings or {}) == "done" and not overwrite):
                    close(recording, "left")
                    continue
                for window in recording.windows():
                    if recording not in opened:
                        break
                    yield recording, window

    try:
        start = time.perf_counter()
        for batch in bridge.bridge_batches(windows()):
            for recording, *_ in batch:
                recording.seconds += (time.perf_counter() - start) / len(batch)
            for recording, window, latents in batch:
                if recording not in opened:
                    continue
                with failing(recording):
                    start = time.perf_counter()
                    complete = recording.take(window, latents)
                    tell("windows", recording.job, 1)
                    if complete:
                        recording.write(settings or {})
                    recording.seconds += time.perf_counter() - start
                    if complete:
                        facts = {**recording.facts(), **(settings or {})}
                        close(recording, "done", facts if report is None else report(recording.job, facts))
            start = time.perf_counter()
    finally:
        for recording in opened:
            recording.open.close()


def _reason(error: Exception, job: Job) -> str:
    """One line that names the file."""
    if isinstance(error, InputError):
        return str(error)
    reason = getattr(error, "strerror", None) or error
    return f"cannot write {job.output}: {reason}; choose another output or free space"
