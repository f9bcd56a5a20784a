"""Transfer many files through one bridge.

Windows of several files and channels share the batches of the networks. A failing file does not
stop the others.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.windows import Window
from audio_diffusion_pytorch.cli import TRACEBACKS
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer.file_transfer import FileOptions, FileTransfer
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis
from audio_diffusion_pytorch.transfer.parts import (
    Part,
    PartTransfer,
    Split,
    join,
    split_recording,
)

# tell(event, job, value): "warning" and a sentence; "windows" and the number of finished windows;
# then one of "done" and facts, "failed" and a reason, "left" (to another run) and None, "split" and
# the parts with the job that joins them.
Tell = Callable[[str, Job, Any], None]
Report = Callable[[Job, dict[str, Any]], dict[str, Any]]


class TransferBatches:
    """Transfer jobs of one sigma; windows of several short files share a batch.

    Every exception of a file, MemoryError included, fails that file alone.

    Args:
        bridge: bridge at the jobs' sigma.
        jobs: inputs and outputs; each is requested when the batch has room for its windows.
        tell: callback for events, see `Tell`.
        settings: settings that the outputs depend on, for their records.
        options: options of the files.
        overwrite: repeat finished files.
        report: callback with a finished job and its facts; returns the facts with additions.
        analyses: analyses of the jobs whose source they chose.
        parts: folder for split recordings; None: every recording stays whole.
    """

    def __init__(
        self,
        bridge: Bridge,
        jobs: Iterable[Job],
        tell: Tell,
        settings: Mapping[str, Any] | None = None,
        options: FileOptions | None = None,
        overwrite: bool = False,
        report: Report | None = None,
        analyses: Mapping[Job, Analysis | None] | None = None,
        parts: Path | None = None,
    ):
        self.bridge = bridge
        self.jobs = jobs
        self.tell = tell
        self.settings = settings or {}
        self.options = options or FileOptions()
        self.overwrite = overwrite
        self.report = report
        self.analyses = analyses or {}
        self.parts = parts
        self._open: set[FileTransfer] = set()
        self._windows = self._all_windows()

    def run(self) -> None:
        """Transfer all jobs; `tell` receives the results and failures."""
        try:
            while self._run_batch():
                pass
        finally:
            for file in list(self._open):
                self._close(file)

    def _run_batch(self) -> bool:
        """Transfer the next batch of windows; return False after the last one."""
        start = time.perf_counter()
        batch = self.next_windows()
        if not batch:
            return False
        results = _bridged(self.bridge, batch)
        share = (time.perf_counter() - start) / len(batch)
        for file, _ in batch:
            file.seconds += share
        for (file, window), result in zip(batch, results, strict=True):
            if file.is_open:
                self._add(file, window, result)
        return True

    def next_windows(self) -> list[tuple[FileTransfer, Window]]:
        """Return the windows of the next batch with their files; empty after the last one."""
        return list(islice(self._windows, self.bridge.batch_size))

    def finish(self, file: FileTransfer) -> None:
        """Report a written file or part, and close it."""
        if isinstance(file, PartTransfer):
            self._close(file)
            self.tell("done", file.job, None)
            return
        facts = {**file.facts(), **self.settings, **self.bridge.settings}
        facts["schedule"] = self.bridge.schedules.path
        if file.source_is_chosen:
            facts |= {"source": self.bridge.source.spec.name, "chosen": True}
        if self.report is not None:
            facts = self.report(file.job, facts)
            file.job.complete()  # a run that is interrupted earlier repeats the report
        self._close(file)
        self.tell("done", file.job, facts)

    def fail(self, file: FileTransfer, error: Exception) -> None:
        """Close a failed file and tell the reason."""
        if file.is_open:
            self._close(file)
            self.tell("failed", file.job, reason_of(error, file.job))

    def _all_windows(self) -> Iterator[tuple[FileTransfer, Window]]:
        """Open one job after another and yield its windows; stop at the first error of a file."""
        for job in self.jobs:
            kind = PartTransfer if isinstance(job, Part) else FileTransfer
            file = kind(job, self.bridge, self.options, self.analyses.get(job))
            self._open.add(file)
            try:
                if not self._is_due(file):
                    self._close(file)
                    self.tell("left", job, None)
                    continue
                file.open()
                if job.split is None:
                    if warning := file.warning:
                        self.tell("warning", job, warning)
                    if self.parts and (split := split_recording(file, self.parts)):
                        self._close(file)
                        self.tell("split", job, split)
                        continue
                elif not isinstance(file, PartTransfer):
                    self._join(file, job.split)
                    continue
                for window in file.windows():
                    if not file.is_open:  # an earlier window failed
                        break
                    yield file, window
            except Exception as error:
                self.fail(file, error)

    def _join(self, file: FileTransfer, split: Split) -> None:
        """Join the parts of a recording, and write it."""
        with file.timed():
            join(file, split)
            file.write(self.settings, is_pending=self.report is not None)
        self.finish(file)
        split.remove()

    def _is_due(self, file: FileTransfer) -> bool:
        """Lock a job; return False if another run holds it or has finished it since the start.

        Parts are always due: the job that joins them is locked.
        """
        if isinstance(file, PartTransfer):
            return True
        if not file.claim():
            return False
        return self.overwrite or file.job.state(self.settings) != "done"

    def _add(self, file: FileTransfer, window: Window, result: Tensor | Exception) -> None:
        """Add the result of a window to its file, and write the file after its last window."""
        try:
            if isinstance(result, Exception):
                raise result
            with file.timed():
                complete = file.add(window, result)
                self.tell("windows", file.job, 1)
                if complete:
                    file.write(self.settings, is_pending=self.report is not None)
            if complete:
                self.finish(file)
        except Exception as error:
            self.fail(file, error)

    def _close(self, file: FileTransfer) -> None:
        self._open.discard(file)
        file.close()


def _bridged(
    bridge: Bridge, batch: Sequence[tuple[FileTransfer, Window]]
) -> list[Tensor | Exception]:
    """Bridge a batch of windows; return the target's latents or the error of each.

    After an error the windows are bridged one by one: only the file that causes the error fails,
    and a batch that exceeds the memory succeeds in parts.
    """
    try:
        return [latents for *_, latents in bridge.bridge_batch(batch)]
    except Exception as error:
        if len(batch) == 1:
            return [error]
    return [result for pair in batch for result in _bridged(bridge, [pair])]


def reason_of(error: Exception, job: Job) -> str:
    """Describe the error of a job in one line that names the file."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        reason = getattr(error, "strerror", None) or error
        return f"cannot write {job.output}: {reason}; choose another output or free space"
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return (
            f"cannot transfer {job.input}: out of memory; use a smaller batch_size, "
            "or end other programs"
        )
    if TRACEBACKS:
        traceback.print_exception(error)
    detail = " ".join(str(error).split()[:40])
    return (
        f"cannot transfer {job.input}: {type(error).__name__}: {detail} "
        "(HYDRA_FULL_ERROR=1 shows the traceback)"
    )
