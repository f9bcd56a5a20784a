"""What is to be done, what was done, what failed: the progress bar and the messages of `transfer.py`."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge import Bridge
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.jobs import Job
from audio_diffusion_pytorch.workers import Run

_NAMED = 3  # failures that the last line tells


class Tally:
    """Sorts jobs, then counts: a context manager that shows the progress, called as a `recordings.Tell`.

    Args:
        run, bridge: what the jobs are done with.
        jobs: one or more.

    Raises:
        InputError: a job's sigma does not suit the models.
    """

    def __init__(self, run: Run, bridge: Bridge, jobs: Sequence[Job]):
        self.jobs, self.counts = jobs, Counter()
        self.failures: dict[Job, str] = {}
        bridges = {job.sigma: bridge if job.sigma is None else bridge.at(job.sigma) for job in jobs}
        settings = {sigma: run.settings(one) for sigma, one in bridges.items()}
        states = {job: job.state(settings[job.sigma]) for job in jobs}
        if run.overwrite:
            states = dict.fromkeys(states, "outdated")
        self.counts["skipped"] = sum(state == "done" for state in states.values())
        for job in (job for job, state in states.items() if state == "foreign"):
            self.failures[job] = f"{job.output} is there, and not from this command: remove it, or use overwrite=true"
        self.todo = sorted(
            (job for job, state in states.items() if state in ("new", "outdated")), key=lambda job: job.sigma or 0
        )
        self.windows: dict[Job, int] = {}
        self.facts: dict[Job, dict[str, Any]] = {}  # of what was made
        seconds = 0.0
        for job in self.todo:
            try:
                info = audio.info(job.input)
            except InputError:  # told when its turn comes
                continue
            seconds += info.seconds
            self.windows[job] = bridge.num_windows(info.frames, info.sample_rate) * (1 if run.mid else info.channels)
        sigmas = ", ".join(f"{one.sigma:g}" for one in bridges.values())
        files = f"{_files(len(self.todo))}, " if len(jobs) > 1 else ""
        names = f"{bridge.source.spec.name} -> {bridge.target.spec.name}"
        self.plan = f"{names}, sigma {sigmas}, {files}{seconds:.1f} s on {bridge.device}"

    def __enter__(self) -> "Tally":
        self.bar = tqdm(desc=self.plan, unit="window", total=sum(self.windows.values()), disable=not self.todo)
        if len(self.jobs) > 1:
            for job in list(self.failures):
                self._warn(job)
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def __call__(self, what: str, job: Job, value: Any) -> None:
        if what == "windows":
            self.windows[job] = self.windows.get(job, 0) - value
            self.bar.update(value)
            return
        self.counts[what] += 1
        self.bar.total -= self.windows.pop(job, 0)  # what a file that failed or was left would have had
        self.bar.refresh()
        if what == "done":
            self.facts[job] = value
        if what == "failed":
            self.failures[job] = value
            if len(self.jobs) > 1:
                self._warn(job)

    def dry_run(self) -> str:
        """What would be done."""
        lines = [f"{self.plan}: {sum(self.windows.values())} windows; would write {self._where()}"]
        if self.counts["skipped"]:
            lines.append(f"{self.counts['skipped']} are done already")
        return "\n".join([*lines, *(f"failed: {reason}" for reason in self.failures.values())])

    def summary(self) -> str:
        """What was done."""
        if len(self.jobs) == 1 and self.counts["done"]:
            return f"wrote {self._where()}{_changes(self.facts[self.jobs[0]])}"
        rest = {"skipped": "done before", "left": "left to another run", "failed": "failed"}
        counts = {**self.counts, "failed": len(self.failures)}
        parts = [f"{counts[key]} {text}" for key, text in rest.items() if counts.get(key)]
        return ", ".join([f"wrote {_files(self.counts['done'])} to {self._where()}", *parts])

    def interrupted(self) -> str:
        """How to go on after a signal."""
        if len(self.jobs) == 1:
            return "nothing was written; the same command starts again"
        finished = self.counts["done"] + self.counts["skipped"]
        return f"{finished} of {len(self.jobs)} files are finished and stay; the same command goes on with the rest"

    def raise_failures(self) -> None:
        """
        Raises:
            InputError: some of the files failed; it says which and why.
        """
        if not self.failures:
            return
        reasons = list(self.failures.values())
        if len(self.jobs) == 1:
            raise InputError(reasons[0])
        named = "; ".join(reasons[:_NAMED]) + (" ..." if len(reasons) > _NAMED else "")
        raise InputError(f"{len(reasons)} of {len(self.jobs)} files failed: {named}")

    def _where(self) -> str:
        if len(self.jobs) == 1:
            return str(self.jobs[0].output)
        return "this folder" if self.jobs[0].folder == Path() else str(self.jobs[0].folder)

    def _warn(self, job: Job) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            print(f"warning: {self.failures[job]}", file=sys.stderr)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _changes(facts: dict[str, Any]) -> str:
    octaves, notes = facts["octaves"], []
    if octaves:
        count = f"{abs(octaves)} octave" + "s" * (abs(octaves) > 1)
        notes.append(f"moved {'up' if octaves > 0 else 'down'} {count}")
    if facts["softer_db"] >= 1:
        notes.append(f"{facts['softer_db']:.0f} dB softer than the input: its peaks would pass full scale")
    return f" ({'; '.join(notes)})" if notes else ""
