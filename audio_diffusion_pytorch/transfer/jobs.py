"""Transfer jobs: map inputs to outputs, skip finished work, lock jobs shared between runs.

An output folder keeps a record of each file under `.transfer/`: the settings and the input of the
output. A file with a matching record is finished. Runs that share the folder, on one machine or
several, lock their jobs.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write, holding, with_ending

if TYPE_CHECKING:
    from audio_diffusion_pytorch.transfer.parts import Split

RECORDS = ".transfer"
State = Literal["new", "done", "outdated", "foreign"]


@dataclass(frozen=True)
class Job:
    """One recording and its output.

    Args:
        input: audio file.
        output: audio file.
        sigma: hand-off noise level; None: the target model's default.
        root: output folder with records; None: a single file without a record, never finished.
        copies: further files to write of the same sound, for example in other formats.
        split: finished parts that the job joins; None: the job transfers the whole recording.
    """

    input: Path
    output: Path
    sigma: float | None
    root: Path | None = None
    copies: tuple[Path, ...] = ()
    split: "Split | None" = field(default=None, compare=False)

    def __str__(self) -> str:
        return str(self.input)

    @property
    def folder(self) -> Path:
        """Folder of files that belong to several outputs."""
        return self.output.parent if self.root is None else self.root

    @property
    def record(self) -> Path | None:
        """File that records the settings and the input of the output."""
        if self.root is None:
            return None
        place = self.root / RECORDS / self.output.relative_to(self.root)
        return place.with_name(with_ending(place.name, ".json"))

    def state(self, settings: Mapping[str, Any]) -> State:
        """Compare the output and its record with the settings.

        Args:
            settings: settings that the output depends on.

        Returns:
            "new" without an output, "done" if the record matches, "outdated" if settings, input or
            output have changed, "foreign" for a file without a record.
        """
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

    def remember(
        self, settings: Mapping[str, Any], written: Path, is_pending: bool = False
    ) -> None:
        """Record the settings and the input of the output.

        Args:
            settings: settings that the output depends on.
            written: complete file that becomes the output after this call.
            is_pending: the job is "outdated" until `complete`, because a report must follow.
        """
        if self.record is not None:
            record = self._record(settings, written)
            _write_json(self.record, {**record, "pending": True} if is_pending else record)

    def complete(self) -> None:
        """Finish a pending job."""
        if self.record is not None:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            record.pop("pending")
            _write_json(self.record, record)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Lock the job against other runs; yield False if another run holds it.

        The system releases the lock when a run dies.
        """
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


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def check_output(path: Path, source: Path, key: str = "output") -> None:
    """Check that an output can be written.

    Args:
        path: file to write.
        source: input file, which must not be overwritten.
        key: name of the argument that gives `path`.

    Raises:
        InputError: `path` is the input or a folder, or its folder is not writable.
    """
    if path.exists() and os.path.samefile(path, source):
        raise InputError(f"{key} and input are the same file, {path}: choose another {key}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(
            f"cannot write {path}: {folder} is not a writable folder; choose another {key}"
        )
