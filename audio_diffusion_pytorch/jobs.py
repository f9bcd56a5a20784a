"""Which recordings become which files: inputs, outputs, what was done before, and who does what.

A folder of outputs keeps a record of each file under `.transfer/`: the settings and the input that it was made from.
A file whose record fits is not made again. Runs that share the folder, on one machine or several, lock what they make.
"""

import glob
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audio_diffusion_pytorch.audio import EXTENSIONS, KEPT_EXTENSIONS, OUTPUT_EXTENSIONS
from audio_diffusion_pytorch.errors import InputError, replacing
from audio_diffusion_pytorch.files import holding, with_ending

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
            record = json.loads(self.record.read_text())
        except FileNotFoundError:
            return "foreign"
        except (OSError, ValueError):
            return "outdated"
        return "done" if record == self._record(settings, self.output) else "outdated"

    def remember(self, settings: Mapping[str, Any], written: Path) -> None:
        """Record how the output is made; `written` is the complete file that is about to become the output."""
        if self.record is not None:
            with replacing(self.record) as temporary:
                temporary.write_text(json.dumps(self._record(settings, written)))

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
        return json.loads(json.dumps({"settings": settings, "input": states[0], "output": states[1]}))


def plan(
    inputs: str | Iterable[str], output: str, sigmas: float | Iterable[float] | None, file_format: str | None = None
) -> list[Job]:
    """The jobs of a command line.

    Args:
        inputs: a file, a folder (with those below it), a glob (`*`, `?`, `**`), or a list of these. Hidden files do not
            count, nor does the output folder where it lies inside.
        output: for one file a file name, else a folder, in which the tree of the inputs is mirrored.
        sigmas: hand-off noise level, or a list of them: each makes a file, its name ends in `_sigma4`.
        file_format: `wav`, `flac`, `ogg`: ending of files in an output folder; None: the input's, `flac` for others.

    Raises:
        InputError: nothing there, an output that does not suit, or one for two of the recordings.
    """
    several = not (sigmas is None or isinstance(sigmas, int | float))
    levels = [(s, f"_sigma{s:g}" if several else "") for s in (sigmas if several else [sigmas])]
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    target = Path(output)
    if len(given) == 1 and _is_file(given[0]) and not (target.is_dir() or output.endswith(("/", os.sep))):
        _check_name(target, file_format)
        jobs = [
            Job(Path(given[0]), target.with_name(with_ending(target.stem, end + target.suffix)), s) for s, end in levels
        ]
    else:
        if target.suffix.lower() in (*EXTENSIONS, *OUTPUT_EXTENSIONS) and not target.is_dir():
            raise InputError(f"output={output} is one file, input={inputs} may be many: give a folder as output")
        if file_format is not None and f".{file_format}" not in OUTPUT_EXTENSIONS:
            raise InputError(f"format={file_format} is none of {', '.join(e[1:] for e in OUTPUT_EXTENSIONS)}")
        jobs = list(_folder_jobs(_find(given, target), target, levels, file_format))
    _check_distinct(jobs)
    for job in jobs:
        check_output(job.output, job.input)
    return jobs


def _folder_jobs(found: list[tuple[Path, Path]], target: Path, levels, file_format: str | None) -> Iterator[Job]:
    def name(relative: Path) -> Path:
        ending = f".{file_format}" if file_format else relative.suffix.lower()
        kept = file_format or ending in KEPT_EXTENSIONS
        return relative.with_name(with_ending(relative.stem, ending if kept else ".flac"))

    taken = Counter(_folded(name(relative)) for _, relative in found)
    for path, relative in found:
        short = name(relative)
        if taken[_folded(short)] > 1:  # a.wav and a.mp3: keep the whole name
            short = short.with_name(with_ending(relative.name, short.suffix))
        for sigma, end in levels:
            yield Job(path, target / short.with_name(with_ending(short.stem, end + short.suffix)), sigma, target)


def _find(given: list[str], target: Path) -> list[tuple[Path, Path]]:
    """Files, each with its place in the tree; every file once."""
    found: dict[Path, tuple[Path, Path]] = {}  # by the folder's own name: links to files have places of their own
    for entry in given:
        path = Path(entry)
        if path.is_dir():
            paths, root = _walk(path), path
        elif path.is_file():
            paths, root = [path], path.parent
        elif _is_glob(entry):
            matches = [Path(match) for match in sorted(glob.glob(entry.replace("[", "[[]"), recursive=True))]
            paths = [m for m in matches if m.is_file() and m.suffix.lower() in EXTENSIONS]
            root = Path(*_before_magic(path))
        else:
            raise InputError(f"no such audio file or folder: {entry}")
        resolved, inside = target.resolve(), root.resolve() in target.resolve().parents
        if path.is_dir() and resolved == path.resolve():
            raise InputError(f"output={target} is the input folder: choose another output")
        paths = [p for p in paths if not (inside and resolved in p.resolve().parents)]
        if not paths:
            raise InputError(f"no audio file ({', '.join(EXTENSIONS)}) in {entry}")
        for p in paths:
            found.setdefault(p.parent.resolve() / p.name, (p, p.relative_to(root)))
    return list(found.values())


def _walk(folder: Path) -> list[Path]:
    paths = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (n for n in sorted(files) if not n.startswith(".") and n.lower().endswith(EXTENSIONS))
        paths += [Path(parent, name) for name in names]
    return paths


def _before_magic(path: Path) -> list[str]:
    """The folders of a glob before its first wildcard."""
    parts = list(path.parts[:-1])
    return parts[: next((i for i, part in enumerate(parts) if _is_glob(part)), len(parts))]


def _is_glob(entry: str) -> bool:
    """`*`, `?` and `**` are wildcards; brackets are not, names have them."""
    return "*" in entry or "?" in entry


def _is_file(entry: str) -> bool:
    """One file, or meant as one: neither a folder nor a glob."""
    path = Path(entry)
    if not path.exists() and not _is_glob(entry):
        raise InputError(f"no such audio file or folder: {entry}")
    return path.is_file()


def _folded(path: Path) -> str:
    """What two paths share where the disk does not tell capitals."""
    return str(path).casefold()


def _check_distinct(jobs: list[Job]) -> None:
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(_folded(job.output), job)
        if other is not job:
            one, two = other.input, job.input
            if one == two:
                one, two = f"sigma={other.sigma}", f"sigma={job.sigma}"
            raise InputError(f"{one} and {two} would both become {job.output}: give each its own run and output")


def _check_name(output: Path, file_format: str | None) -> None:
    if output.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(
            f"output={output} must end in {', '.join(OUTPUT_EXTENSIONS)}, or be a folder: one that is there, or ending "
            "in /"
        )
    if file_format is not None and output.suffix.lower() != f".{file_format}":
        raise InputError(f"format={file_format} is not the ending of output={output}: leave format out")


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
        raise InputError(f"cannot write {path}: {folder} is no folder that can be written to; choose another {key}")
