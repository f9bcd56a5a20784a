"""Files through a bridge: read twice (level, then windows), written when their last window is done.

The windows of all files and channels go through the networks together. A file that fails does not stop the others.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio_diffusion_pytorch.audio import AudioReader, LevelMeter, to_db, writing
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.recording_stats import RecordingStats, audible
from audio_diffusion_pytorch.bridge.windows import Track, Window, matching_gain
from audio_diffusion_pytorch.cli import TRACEBACKS
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import Octaves, octaves_for
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis, analyse
from audio_diffusion_pytorch.utils.iterables import batches

# tell(what, job, value): "warning" and a sentence, "windows" and how many are done, then one of "done" and facts,
# "failed" and why, "left" (to another run)
Tell = Callable[[str, Job, Any], None]
Report = Callable[[Job, dict[str, Any]], dict[str, Any]]
_MEMORY = (
    1 << 23
)  # bytes of a recording's sound that stay in memory before they go to a file without a name
_BLOCK = 1 << 18  # frames that are scaled and written at a time


class FileTransfer:
    """One file on its way through a bridge, in bounded memory.

    Args:
        job: what to make.
        bridge: at the job's sigma.
        mid: bridge the channels' average only, and write one channel.
        transpose: octaves by which the recording is moved before; "auto": as many as bring it into the target's range,
            none where that is not known.
        listen: analyse the source, for a warning.
        analysis: of the recording, where it was analysed already: to choose the bridge.
    """

    def __init__(
        self,
        job: Job,
        bridge: Bridge,
        mid: bool = False,
        transpose: Octaves = "auto",
        listen: bool = True,
        analysis: Analysis | None = None,
    ):
        self.job, self.bridge, self.mid, self.transpose = job, bridge, mid, transpose
        self.listen, self.analysis = listen, analysis
        self.chosen = analysis is not None and bool(
            analysis.instruments
        )  # the source, by the analysis
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
        self.survey = RecordingStats.of_audible(self._blocks(), self.info.sample_rate)
        moves = self.transpose == "auto" and pitch_range(self.bridge.target.spec) is not None
        if self.analysis is None and (self.listen or moves):
            self.analysis = analyse(self.reader, self.mid)
        self.octaves = octaves_of(self.analysis, self.transpose, self.bridge)
        self.track = Track(
            self.bridge, self.info.sample_rate, self.channels, self.survey, self.octaves
        )
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
                write_block(
                    torch.from_numpy(np.frombuffer(data, "f4").reshape(-1, self.channels).T * gain)
                )

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
            **(
                {"warning": self.warning, **self.analysis.facts()}
                if self.listen and self.analysis
                else {}
            ),
        }

    @property
    def softer_db(self) -> float:
        """By how much the output is softer than the input, so that its peaks stay within full scale."""
        return max(0.0, to_db(self.sound.peak * self.survey.level / max(self.sound.rms, 1e-8)))

    @property
    def warning(self) -> str | None:
        """What the analysis of the source says against the transfer, one sentence."""
        if not self.listen or self.analysis is None:
            return None
        return self.analysis.warning(None if self.chosen else self.bridge.source.spec.name)

    def _blocks(self) -> Iterator[Tensor]:
        blocks = self.reader.mono_blocks() if self.mid else self.reader.blocks()
        return audible(blocks, self.info.sample_rate)


def octaves_of(analysis: Analysis | None, transpose: Octaves, bridge: Bridge) -> int:
    """Octaves by which a recording is moved; "auto" moves nothing where the target's range is not known."""
    if transpose != "auto":
        return transpose
    limits = pitch_range(bridge.target.spec)
    return 0 if limits is None or analysis is None else octaves_for(analysis.pitches, *limits)


def analysis_of(job: Job, mid: bool) -> Analysis:
    """Analyse a job's input.

    Raises:
        InputError: it cannot be read.
    """
    with AudioReader(job.input) as file:
        return analyse(file, mid)


def bridge_files(
    bridge: Bridge,
    jobs: Iterable[Job],
    tell: Tell,
    settings: Mapping[str, Any] | None = None,
    mid: bool = False,
    transpose: Octaves = "auto",
    overwrite: bool = False,
    report: Report | None = None,
    listen: bool = True,
    analyses: Mapping[Job, Analysis] | None = None,
) -> None:
    """Make the jobs, all at the bridge's sigma; the windows of several short ones share a batch.

    Whatever a file raises, MemoryError included, it fails alone.

    Args:
        tell: hears of progress and results.
        settings: what the outputs depend on, for their records.
        mid, transpose, listen: see `Recording`.
        overwrite: make also what is done already, by this run or another.
        report: called with each job that is done and its facts; gives more of them.
        analyses: of the jobs whose source was chosen by them.
    """
    opened: set[FileTransfer] = set()

    def close(recording: FileTransfer, what: str, value: Any = None) -> None:
        opened.discard(recording)
        recording.open.close()
        tell(what, recording.job, value)

    @contextmanager
    def failing(recording: FileTransfer) -> Iterator[None]:
        """A file that fails is told and closed; the others go on."""
        try:
            yield
        except Exception as error:
            if recording in opened:
                close(recording, "failed", reason_of(error, recording.job))

    def windows() -> Iterator[tuple[FileTransfer, Window]]:
        for job in jobs:
            recording = FileTransfer(job, bridge, mid, transpose, listen, (analyses or {}).get(job))
            opened.add(recording)
            with failing(recording):
                # Another run has it, or made it since this one began.
                if not recording.claim() or (job.state(settings or {}) == "done" and not overwrite):
                    close(recording, "left")
                    continue
                found = recording.windows()
                if warning := recording.warning:
                    tell("warning", job, warning)
                for window in found:
                    if recording not in opened:
                        break
                    yield recording, window

    def take(recording: FileTransfer, window: Window, latents: Tensor) -> None:
        start = time.perf_counter()
        complete = recording.take(window, latents)
        tell("windows", recording.job, 1)
        if complete:
            recording.write(settings or {})
        recording.seconds += time.perf_counter() - start
        if complete:
            facts = {**recording.facts(), **(settings or {}), **bridge.settings}
            if recording.chosen:
                facts |= {"source": bridge.source.spec.name, "chosen": True}
            close(recording, "done", facts if report is None else report(recording.job, facts))

    try:
        start = time.perf_counter()
        for batch in batches(windows(), bridge.batch_size):
            results = _through(bridge, batch)
            for recording, *_ in batch:
                recording.seconds += (time.perf_counter() - start) / len(batch)
            for recording, window, result in results:
                if recording not in opened:
                    continue
                with failing(recording):
                    if isinstance(result, Exception):
                        raise result
                    take(recording, window, result)
            start = time.perf_counter()
    finally:
        for recording in opened:
            recording.open.close()


def _through(
    bridge: Bridge, batch: Sequence[tuple[FileTransfer, Window]]
) -> list[tuple[FileTransfer, Window, Tensor | Exception]]:
    """The target's latents of some windows; where they fail together, each alone, so that one file's fault is its own.

    A batch that is too large for the memory goes through in parts, too.
    """
    try:
        return bridge.bridge_batch(batch)
    except Exception as error:
        if len(batch) == 1:
            return [(*batch[0], error)]
    return [result for one in batch for result in _through(bridge, [one])]


def reason_of(error: Exception, job: Job) -> str:
    """One line that names the file."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        reason = getattr(error, "strerror", None) or error
        return f"cannot write {job.output}: {reason}; choose another output or free space"
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return f"cannot transfer {job.input}: out of memory; use a smaller batch_size, or end other programs"
    if TRACEBACKS:
        traceback.print_exception(error)
    detail = " ".join(str(error).split()[:40])
    return f"cannot transfer {job.input}: {type(error).__name__}: {detail} (HYDRA_FULL_ERROR=1 shows where)"
