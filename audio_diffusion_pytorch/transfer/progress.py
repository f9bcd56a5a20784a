"""Progress bar and messages of `transfer.py`: planned, finished, skipped and failed files."""

import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.cli import ending_on_terminate, one_line
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.transfer.batch import reason_of
from audio_diffusion_pytorch.transfer.jobs import RECORDS, Job
from audio_diffusion_pytorch.transfer.parts import num_parts
from audio_diffusion_pytorch.transfer.resolve import Plan
from audio_diffusion_pytorch.transfer.run import AUTO, TransferRun

_NAMED = 3  # failures that the last line names


class TransferProgress:
    """Sort jobs into finished and remaining ones, show the progress and count the results.

    The object is a context manager that shows the progress bar, and a `Tell` callback.

    Args:
        run: settings of the jobs.
        bridge: bridge of the run.
        plan: plan with at least one job.

    Raises:
        InputError: a job's sigma does not suit the models.
    """

    def __init__(self, run: TransferRun, bridge: Bridge, plan: Plan):
        self.run = run
        self.bridge = bridge
        self.plan = plan
        self.jobs = plan.jobs
        self.counts: Counter[str] = Counter()
        self.failures: dict[Job, str] = dict(plan.failures)
        self.facts: dict[Job, dict[str, Any]] = {}  # of finished files
        self.unusable: dict[Job, str] = {}  # inputs whose error the transfer reports
        self.todo: list[Job] = []
        self.windows: dict[Job, int] = {}  # remaining windows
        self.parts: dict[Job, int] = {}  # parts, if the engine splits recordings
        self.seconds = 0.0  # of sound
        self.bridges = {
            job.sigma: bridge if job.sigma is None else bridge.with_sigma(job.sigma)
            for job in self.jobs
        }
        settings = {sigma: run.settings(one, sigma) for sigma, one in self.bridges.items()}
        for job in self.jobs:
            if job not in self.failures:
                self._sort(job, settings[job.sigma])
        for job in self.todo[:]:
            self._measure(job)
        self.todo.sort(key=lambda job: job.sigma or 0)

    def _sort(self, job: Job, settings: dict[str, Any]) -> None:
        """Add a job to the remaining, finished or failed ones."""
        try:
            state = job.state(settings)
        except OSError as error:
            self.failures[job] = one_line(error)
            return
        if self.run.overwrite or state in ("new", "outdated"):
            self.todo.append(job)
        elif state == "done":
            self.counts["skipped"] += 1
        else:
            self.failures[job] = (
                f"{job.output} exists and was not written by this command: delete it, or pass "
                "overwrite=true"
            )

    def _measure(self, job: Job) -> None:
        """Count a job's windows, and check that its output format can hold the recording."""
        try:
            info = audio.info(job.input)
        except Exception as error:
            self.unusable[job] = reason_of(error, job)
            return
        channels = 1 if self.run.mid else info.channels
        try:
            audio.check_format(job.output.suffix, info.sample_rate, channels)
        except InputError as error:
            self.failures[job] = f"cannot write {job.output}: {error}"
            self.todo.remove(job)
            return
        self.seconds += info.seconds
        windows = self.bridge.num_windows(info.frames, info.sample_rate)
        self.windows[job] = windows * channels
        self.parts[job] = num_parts(windows, self.bridge.batch_size)

    def run_jobs(self, engine: Engine) -> None:
        """Transfer the remaining jobs, and show the progress.

        Args:
            engine: executor of the jobs.

        Raises:
            InputError: see `Engine.run`.
            Interrupted: Ctrl-C or SIGTERM; finished files stay.
        """
        try:
            with ending_on_terminate(), self:
                if self.todo:
                    self._run_jobs(engine)
        except (KeyboardInterrupt, Interrupted) as stop:
            number = getattr(stop, "signal", signal.SIGINT)
            raise Interrupted(number, self.interrupted()) from None

    def _run_jobs(self, engine: Engine) -> None:
        first = self.todo[0]
        if engine.options is None and engine.workers > 1:
            self._warn_about_locks()
        folder = first.folder if first.record is None else first.folder / RECORDS
        jobs = self.todo, self, folder, [first.input]
        parts = sum(self.parts.get(job, 1) for job in self.todo)
        if engine.splits and parts > len(self.todo):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(
                prefix=".parts-", dir=folder, ignore_cleanup_errors=True
            ) as place:
                engine.run(replace(self.run, parts=Path(place)), self.bridge, *jobs, parts)
        else:
            engine.run(self.run, self.bridge, *jobs)

    def _warn_about_locks(self) -> None:
        """Cause the warning of a folder without locks here once, instead of once per worker."""
        with suppress(OSError), self.todo[0].claimed():
            pass

    @property
    def notices(self) -> list[str]:
        """One line for each hand-off level whose quality asks for fitted solvers in vain."""
        if self.run.source == AUTO:
            return []
        notices = [bridge.schedules.notice for bridge in self.bridges.values()]
        return [notice for notice in notices if notice is not None]

    @property
    def title(self) -> str:
        """Instruments, sigmas, files, seconds and device in one line."""
        source = AUTO
        sigmas = [sigma for sigma in self.bridges if sigma]
        if self.run.source != AUTO:
            source = self.bridge.source.spec.name
            sigmas = [bridge.sigma for bridge in self.bridges.values()]
        parts = [f"{source} -> {self.bridge.target.spec.name}"]
        if sigmas:
            parts.append("sigma " + ", ".join(f"{sigma:g}" for sigma in sigmas))
        if len(self.jobs) > 1:
            parts.append(_files(len(self.todo)))
        return f"{', '.join(parts)}, {self.seconds:.1f} s on {self.bridge.device}"

    def __enter__(self) -> "TransferProgress":
        self._show_warning = warnings.showwarning
        # Warnings appear above the bar instead of inside it.
        warnings.showwarning = lambda message, *_, **__: self._warn(message)
        total = sum(self.windows.values())
        self.bar = tqdm(desc=self.title, unit="window", total=total, disable=not self.todo)
        self.bar.set_postfix_str("analysing the first recording")
        if len(self.jobs) > 1:
            for reason in self.failures.values():
                self._warn(reason)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        warnings.showwarning = self._show_warning

    def __call__(self, event: str, job: Job, value: Any) -> None:
        """Count an event of a job, see `Tell`."""
        if event == "windows":
            self.windows[job] = self.windows.get(job, 0) - value
            if self.bar.n == 0:  # the time left follows from windows alone
                self.bar.start_t = self.bar.last_print_t = time.time()
                self.bar.set_postfix_str("", refresh=False)
            self.bar.update(value)
            return
        if event == "warning":
            self._warn(f"{job.input}: {value}")
            return
        self.counts[event] += 1
        remaining = self.windows.pop(job, 0)  # of a file that failed or was left
        if self.bar.total is not None:
            self.bar.total -= remaining
        self.bar.refresh()
        if event == "done":
            self.facts[job] = value
        if event == "failed":
            self.failures[job] = value
            if len(self.jobs) > 1:
                self._warn(value)

    def dry_run(self) -> str:
        """Analyse every recording as the run does, and describe the work.

        Files that cannot be read or written become failures.
        """
        self.failures |= self.unusable
        windows = sum(self.windows.values())
        lines = [f"{self.title}: {windows} windows; would write {self._where()}"]
        if self._analyses():
            silent = len(self.windows) < 2
            for job in tqdm(self.windows, desc="listening", unit="file", disable=silent):
                self._examine(job)
        if self.counts["skipped"]:
            lines.append(f"{self.counts['skipped']} already finished")
        if len(self.jobs) == 1:
            lines += _changes(*self.facts.values()) if self.facts else []
        else:
            lines += _totals(self.facts.values())
        return "\n".join([*lines, *self._left_out()])

    def _analyses(self) -> bool:
        """Whether the run analyses its recordings."""
        moves = self.run.transpose == "auto" and pitch_range(self.bridge.target.spec) is not None
        return self.run.source == AUTO or self.run.listen or moves

    def _examine(self, job: Job) -> None:
        try:
            facts = self.run.examine(self.bridge, job)
        except Exception as error:
            self.failures[job] = reason_of(error, job)
            return
        self.facts[job] = facts
        if warning := facts.get("warning"):
            self._warn(f"{job.input}: {warning}")

    def summary(self) -> str:
        """Describe the results."""
        if len(self.jobs) == 1 and self.counts["done"]:
            changes = "; ".join(_changes(self.facts[self.jobs[0]]))
            first = f"wrote {self._where()}{f' ({changes})' if changes else ''}"
            return "\n".join([first, *self._left_out()])
        rest = {"skipped": "already finished", "left": "left to another run", "failed": "failed"}
        counts = {**self.counts, "failed": len(self.failures)}
        parts = [f"{counts[key]} {text}" for key, text in rest.items() if counts.get(key)]
        first = ", ".join([f"wrote {_files(self.counts['done'])} to {self._where()}", *parts])
        return "\n".join([first, *_totals(self.facts.values()), *self._left_out()])

    def _left_out(self) -> list[str]:
        """Return a line for each reason for which files in the folders do not become jobs."""
        lines = []
        for reason, paths in self.plan.left_out.items():
            named = ", ".join(map(str, paths[:_NAMED])) + (" ..." if len(paths) > _NAMED else "")
            lines.append(f"left out {len(paths)} ({reason}): {named}")
        return lines

    def interrupted(self) -> str:
        """Describe the state after a signal, and how to continue."""
        if len(self.jobs) == 1:
            return "no file was written; the same command starts again"
        finished = self.counts["done"] + self.counts["skipped"]
        return (
            f"{finished} of {len(self.jobs)} files are finished; the same command continues with "
            "the rest"
        )

    def raise_failures(self) -> None:
        """Raise one error that names the failures.

        Raises:
            InputError: some files failed, or a folder could not be read.
        """
        reasons = list(self.failures.values())
        if len(self.jobs) == 1 and reasons and not self.plan.unread:
            raise InputError(reasons[0])
        named = "; ".join(reasons[:_NAMED]) + (" ..." if len(reasons) > _NAMED else "")
        failed = [f"{len(reasons)} of {len(self.jobs)} files failed: {named}"] if reasons else []
        if failed or self.plan.unread:
            raise InputError("; ".join([*failed, *self.plan.unread[:_NAMED]]))

    def _where(self) -> str:
        if len(self.jobs) == 1:
            return str(self.jobs[0].output)
        folder = self.jobs[0].folder
        return "this folder" if folder == Path() else str(folder)

    def _warn(self, text: str | Warning) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"warning: {text}", file=sys.stderr)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _moved(octaves: int) -> str:
    count = f"{abs(octaves)} octave" + "s" * (abs(octaves) > 1)
    return f"moved {'up' if octaves > 0 else 'down'} {count}"


def _changes(facts: dict[str, Any]) -> list[str]:
    """Describe the chosen source, the octaves and the level of one file."""
    notes = []
    if facts.get("chosen"):
        notes.append(f"source {facts['source']}, {facts['sounds_like_probability']:.0%} sure")
    if facts["octaves"]:
        notes.append(_moved(facts["octaves"]))
    if facts.get("softer_db", 0) >= 1:
        notes.append(
            f"{facts['softer_db']:.0f} dB softer than the input: its peaks would pass full scale"
        )
    return notes


def _totals(facts: Iterable[dict[str, Any]]) -> list[str]:
    """Count the changes of several files, with a line for each kind of change."""
    rows = list(facts)
    lines = []
    sources = Counter(row["source"] for row in rows if row.get("chosen"))
    if sources:
        counts = ", ".join(f"{name} {count}" for name, count in sources.most_common())
        lines.append(f"sources: {counts}")
    octaves = Counter(row["octaves"] for row in rows if row["octaves"])
    if octaves:
        moves = ", ".join(
            f"{_files(octaves[number])} {_moved(number)}" for number in sorted(octaves)
        )
        lines.append(f"into the target's range: {moves}")
    softer = sum(row.get("softer_db", 0) >= 1 for row in rows)
    if softer:
        lines.append(
            f"softer than the input, as their peaks would pass full scale: {_files(softer)}"
        )
    warned = sum(bool(row.get("warning")) for row in rows)
    if warned:
        lines.append(f"with a warning about the source: {_files(warned)}")
    return lines
