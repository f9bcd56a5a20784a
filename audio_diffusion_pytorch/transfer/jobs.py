"""One recording that becomes one file: what was done before, and who does what.

A folder of outputs keeps a record of each file under `.transfer/`: the settings and the input that it was made from.
A file whose record fits is not made again. Runs that share the folder, on one machine or several, lock what they make.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write, holding, with_ending

RECORDS = ".transfer"
State = Literal["new", "done", "outdated", "foreign"]


@dataclass(frozen=True)
class Job:
    """One recording to be made.

    Args:
        input, output: files.
        sigma: hand-off noise level; None: the target model's default.
        root: output folder that keeps records; None: a single file, made every time.
    """

    input: Path
    output: Path
    sigma: float | None
    root: Path | None = None

    @property
    def folder(self) -> Path:
        """Where what belongs to several outputs is written."""
        return self.output.parent if self.root is None else self.root

    @property
    def record(self) -> Path | None:
        """The file that remembers how the output was made."""
        if self.root is None:
            return None
        place = self.root / RECORDS / self.output.relative_to(self.root)
        return place.with_name(with_ending(place.name, ".json"))

    def state(self, settings: Mapping[str, Any]) -> State:
        """`done` as wanted, `outdated` (other settings, a changed input or output), not ours (`foreign`), or `new`."""
        if not self.output.exists():
            return "new"
        if self.record is None:
            return "outdated"
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return "foreign"
        except (OSError, ValueError):
            return "outdated"
        return "done" if record == self._record(settings, self.output) else "outdated"

    def remember(self, settings: Mapping[str, Any], written: Path) -> None:
        """Record how the output is made; `written` is the complete file that is about to become the output."""
        if self.record is not None:
            with atomic_write(self.record) as temporary:
                temporary.write_text(json.dumps(self._record(settings, written)), encoding="utf-8")

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Hold the job against other runs; False where another one holds it. The system frees it when a run dies."""
        if self.record is None:
            yield True
            return
        with holding(self.record.with_name(with_ending(self.output.name, ".lock"))) as held:
            yield held

    def _record(self, settings: Mapping[str, Any], output: Path) -> dict[str, Any]:
        states = [[s.st_size, s.st_mtime_ns] for s in (self.input.stat(), output.stat())]
        return json.loads(
            json.dumps({"settings": settings, "input": states[0], "output": states[1]})
        )


def check_output(path: Path, source: Path, key: str = "output") -> None:
    """
    Args:
        key: name of the argument that says `path`.

    Raises:
        InputError: `path` is the input, a folder, or where nothing can be written.
    """
    if path.exists() and os.path.samefile(path, source):
        raise InputError(f"{key} and input are the same file, {path}: choose another {key}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(
            f"cannot write {path}: {folder} is no folder that can be written to; choose another {key}"
        )
