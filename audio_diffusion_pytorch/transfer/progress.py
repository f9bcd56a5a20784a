"""What is to be done, what was done, what failed: the progress bar and the messages of `transfer.py`."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.cli import one_line
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.transfer.batch import reason_of
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.resolve import Plan
from audio_diffusion_pytorch.transfer.workers import AUTO, TransferRun

_NAMED = 3  # failures that the last line tells


class TransferProgress:
    """Sorts jobs, then counts: a context manager that shows the progress, called as a `recordings.Tell`.

    Args:
        run, bridge: what the jobs are done with.
        plan: with one job or more.

    Raises:
        InputError: a job's sigma does not suit the models.
    """

    def __init__(self, run: TransferRun, bridge: Bridge, plan: Plan):
        self.run, self.bridge, self.plan, self.jobs, self.counts = (
            run,
            bridge,
            plan,
            plan.jobs,
            Counter(),
        )
        self.failures: dict[Job, str] = dict(plan.failures)
        self.sigmas = {
            job.sigma: bridge if job.sigma is None else bridge.with_sigma(job.sigma)
            for job in self.jobs
        }
        settings = {sigma: run.settings(one, sigma) for sigma, one in self.sigmas.items()}
        self.todo: list[Job] = []
        for job in self.jobs:
            if job not in self.failures:
                self._sort(job, settings[job.sigma])
        self.windows: dict[Job, int] = {}
        self.facts: dict[Job, dict[str, Any]] = {}  # of what was made
        self.unusable: dict[Job, str] = {}  # found in planning, told when their turn comes
        self.seconds = 0.0
        for job in self.todo[:]:
            self._measure(job)
        self.todo.sort(key=lambda job: job.sigma or 0)

    def _sort(self, job: Job, settings: dict[str, Any]) -> None:
        """Whether a job is to be done."""
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
                f"{job.output} is there, and not from this command: remove it, or use overwrite=true"
            )

    def _measure(self, job: Job) -> None:
        """How much work a job is, and whether its output can hold the recording."""
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
        self.windows[job] = self.bridge.num_windows(info.frames, info.sample_rate) * channels

    @property
    def title(self) -> str:
        """What is to be done, in short."""
        files = f"{_files(len(self.todo))}, " if len(self.jobs) > 1 else ""
        source, device = self.bridge.source.spec.name, self.bridge.device
        if self.run.source == AUTO:
            names, sigmas = (
                f"{AUTO} -> {self.bridge.target.spec.name}",
                ", ".join(f"{s:g}" for s in self.sigmas if s),
            )
        else:
            names = f"{source} -> {self.bridge.target.spec.name}"
            sigmas = ", ".join(f"{one.sigma:g}" for one in self.sigmas.values())
        return f"{names}, {f'sigma {sigmas}, ' if sigmas else ''}{files}{self.seconds:.1f} s on {device}"

    def __enter__(self) -> "TransferProgress":
        self._shown = warnings.showwarning
        warnings.showwarning = lambda message, *_, **__: self._warn(
            message
        )  # beside the bar, not in it
        self.bar = tqdm(
            desc=self.title, unit="window", total=sum(self.windows.values()), disable=not self.todo
        )
        if len(self.jobs) > 1:
            for job in list(self.failures):
                self._warn(self.failures[job])
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        warnings.showwarning = self._shown

    def __call__(self, what: str, job: Job, value: Any) -> None:
        if what == "windows":
            self.windows[job] = self.windows.get(job, 0) - value
            self.bar.update(value)
            return
        if what == "warning":
            self._warn(f"{job.input}: {value}")
            return
        self.counts[what] += 1
        if self.bar.total is not None:
            self.bar.total -= self.windows.pop(
                job, 0
            )  # what a file that failed or was left would have had
        self.bar.refresh()
        if what == "done":
            self.facts[job] = value
        if what == "failed":
            self.failures[job] = value
            if len(self.jobs) > 1:
                self._warn(value)

    def dry_run(self) -> str:
        """Analyse every recording as the run does, and say what would be done.

        Files that cannot be read or written become failures.
        """
        self.failures |= self.unusable
        lines = [f"{self.title}: {sum(self.windows.values())} windows; would write {self._where()}"]
        known = pitch_range(self.bridge.target.spec)
        if self.run.source == AUTO or self.run.listen or (self.run.transpose == "auto" and known):
            for job in tqdm(
                self.windows, desc="listening", unit="file", disable=len(self.windows) < 2
            ):
                try:
                    self.facts[job] = self.run.examine(self.bridge, job)
                except Exception as error:
                    self.failures[job] = reason_of(error, job)
        for job, facts in self.facts.items():
            if warning := facts.get("warning"):
                self._warn(f"{job.input}: {warning}")
        if self.counts["skipped"]:
            lines.append(f"{self.counts['skipped']} are done already")
        changes = (
            _changes(*self.facts.values()) if len(self.jobs) == 1 else _sums(self.facts.values())
        )
        return "\n".join([*lines, *changes, *self._left_out()])

    def summary(self) -> str:
        """What was done."""
        if len(self.jobs) == 1 and self.counts["done"]:
            changes = "; ".join(_changes(self.facts[self.jobs[0]]))
            return "\n".join(
                [f"wrote {self._where()}{f' ({changes})' if changes else ''}", *self._left_out()]
            )
        rest = {"skipped": "done before", "left": "left to another run", "failed": "failed"}
        counts = {**self.counts, "failed": len(self.failures)}
        parts = [f"{counts[key]} {text}" for key, text in rest.items() if counts.get(key)]
        first = ", ".join([f"wrote {_files(self.counts['done'])} to {self._where()}", *parts])
        return "\n".join([first, *_sums(self.facts.values()), *self._left_out()])

    def _left_out(self) -> list[str]:
        """A line for each reason why something in the folders did not become a job."""
        lines = []
        for reason, paths in self.plan.left_out.items():
            named = ", ".join(map(str, paths[:_NAMED])) + (" ..." if len(paths) > _NAMED else "")
            lines.append(f"left out {len(paths)} ({reason}): {named}")
        return lines

    def interrupted(self) -> str:
        """How to go on after a signal."""
        if len(self.jobs) == 1:
            return "nothing was written; the same command starts again"
        finished = self.counts["done"] + self.counts["skipped"]
        return f"{finished} of {len(self.jobs)} files are finished and stay; the same command goes on with the rest"

    def raise_failures(self) -> None:
        """
        Raises:
            InputError: some of the files failed, or a folder could not be read; it says which and why.
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
        return "this folder" if self.jobs[0].folder == Path() else str(self.jobs[0].folder)

    def _warn(self, text: str | Warning) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"warning: {text}", file=sys.stderr)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _moved(octaves: int) -> str:
    count = f"{abs(octaves)} octave" + "s" * (abs(octaves) > 1)
    return f"moved {'up' if octaves > 0 else 'down'} {count}"


def _changes(facts: dict[str, Any]) -> list[str]:
    """What a user should know of one file."""
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


def _sums(facts: Iterable[dict[str, Any]]) -> list[str]:
    """The same of several files, a line for each kind of change."""
    facts, lines = list(facts), []
    sources = Counter(one["source"] for one in facts if one.get("chosen"))
    if sources:
        lines.append(
            "sources: " + ", ".join(f"{name} {count}" for name, count in sources.most_common())
        )
    octaves = Counter(one["octaves"] for one in facts if one["octaves"])
    if octaves:
        counts = ", ".join(
            f"{_files(octaves[number])} {_moved(number)}" for number in sorted(octaves)
        )
        lines.append(f"into the target's range: {counts}")
    softer = sum(one.get("softer_db", 0) >= 1 for one in facts)
    if softer:
        lines.append(
            f"softer than the input, as their peaks would pass full scale: {_files(softer)}"
        )
    warned = sum(bool(one.get("warning")) for one in facts)
    if warned:
        lines.append(f"with a warning about the source: {_files(warned)}")
    return lines
