"""Resolve a command line into transfer jobs; collect the files that are left out."""

import glob
import mimetypes
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.audio import EXTENSIONS, KEPT_EXTENSIONS, OUTPUT_EXTENSIONS
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.transfer.jobs import RECORDS, Job, check_output
from audio_diffusion_pytorch.utils.files import with_ending
from audio_diffusion_pytorch.utils.settings import check_choice

# Reasons for which an entry of a folder does not become a job.
NOT_AUDIO = "not audio"
HIDDEN = "hidden"
AGAIN = "a link to a folder that is searched under its own name"
FOLDER = "a folder, and the pattern lacks **"
_PLAYLISTS = (
    ".m3u",
    ".m3u8",
    ".pls",
    ".cue",
    ".asx",
    ".xspf",
    ".sdp",
)  # lists of files, without sound
_TYPES = mimetypes.MimeTypes()  # Python's own table, equal on every system


@dataclass
class Plan:
    """Jobs of a command line.

    Args:
        jobs: one for each recording and noise level.
        left_out: reason -> files and folders that do not become jobs.
        unread: a sentence for each folder that cannot be read, whose recordings are missing.
        failures: job -> reason for which its output cannot be written.
    """

    jobs: list[Job]
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    failures: dict[Job, str] = field(default_factory=dict)


def resolve_jobs(
    inputs: str | Iterable[str],
    output: str,
    sigmas: float | Iterable[float] | None,
    file_format: str | None = None,
) -> Plan:
    """Resolve the jobs of a command line.

    Args:
        inputs: a file, a folder (searched with its subfolders, linked ones included), a glob (`*`,
            `?`, `**`), or a list of these. Hidden files and the output folder are skipped. In
            folders, files with an ending of `audio.EXTENSIONS` are recordings, and files with an
            unknown or no ending if they hold audio.
        output: a file name for one file, else a folder that mirrors the tree of the inputs.
        sigmas: hand-off noise level, or several: each makes a file whose name ends in `_sigma4`.
        file_format: ending of the files in an output folder (`wav`, `flac` ...); None: the input's
            ending if it is wav, flac or ogg, else `flac`.

    Returns:
        The jobs, and the entries of folders that do not become jobs.

    Raises:
        InputError: an input does not exist, the output is unsuitable, or two recordings would
            become one file.
    """
    levels: list[tuple[float | None, str]]
    if sigmas is None or isinstance(sigmas, int | float):
        levels = [(sigmas, "")]
    else:
        levels = [(sigma, f"_sigma{sigma:g}") for sigma in sigmas]
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    is_folder = Path(output).is_dir() or output.endswith(("/", os.sep))
    if len(given) == 1 and _is_file(given[0]) and not is_folder:
        plan = _plan_file(Path(given[0]), Path(output), levels, file_format)
    else:
        plan = _plan_folder(given, output, levels, file_format)
    _check_distinct(plan.jobs)
    return plan


def _plan_file(
    source: Path,
    target: Path,
    levels: Sequence[tuple[float | None, str]],
    file_format: str | None,
) -> Plan:
    """Plan the jobs of one file; each level adds its ending to the name of the target."""
    _check_name(target, file_format)
    jobs = []
    for sigma, end in levels:
        name = with_ending(target.stem, end + target.suffix)
        jobs.append(Job(source, target.with_name(name), sigma))
    for job in jobs:
        check_output(job.output, job.input)
    return Plan(jobs)


def _plan_folder(
    given: Sequence[str],
    output: str,
    levels: Sequence[tuple[float | None, str]],
    file_format: str | None,
) -> Plan:
    """Plan the jobs of several inputs, whose outputs go to a folder."""
    target = Path(output)
    if target.suffix.lower() in (*EXTENSIONS, *OUTPUT_EXTENSIONS) and not target.is_dir():
        inputs = given[0] if len(given) == 1 else list(given)
        raise InputError(
            f"output={output} is one file, input={inputs} may be many: give a folder as output"
        )
    if file_format is not None:
        check_choice("format", file_format, [ending[1:] for ending in OUTPUT_EXTENSIONS])
    search = _Search(target)
    for entry in given:
        search.add(entry)
    jobs = list(_folder_jobs(list(search.found.values()), target, levels, file_format))
    plan = Plan(jobs, search.left_out, search.unread)
    for job in jobs:
        try:
            check_output(job.output, job.input)
        except (InputError, OSError) as error:
            plan.failures[job] = str(error)
    return plan


def _folder_jobs(
    found: Sequence[tuple[Path, Path]],
    target: Path,
    levels: Sequence[tuple[float | None, str]],
    file_format: str | None,
) -> Iterator[Job]:
    """Yield the jobs of found files, each with its place in the tree of the target folder."""

    def name(relative: Path) -> Path:
        ending = f".{file_format}" if file_format else relative.suffix.lower()
        if not file_format and ending not in KEPT_EXTENSIONS:
            ending = ".flac"
        return relative.with_name(with_ending(relative.stem, ending))

    taken = Counter(_folded(name(relative)) for _, relative in found)
    for path, relative in found:
        short = name(relative)
        if taken[_folded(short)] > 1:  # a.wav and a.mp3 keep their endings
            short = short.with_name(with_ending(relative.name, short.suffix))
        for sigma, end in levels:
            output = target / short.with_name(with_ending(short.stem, end + short.suffix))
            yield Job(path, output, sigma, target)


class _Search:
    """Collect each file once, with its place in the tree, and the entries that are left out.

    Args:
        target: output folder, whose files are not inputs.
    """

    def __init__(self, target: Path):
        self.target = target
        self.resolved = target.resolve()
        # By the folder's real path and the file's name: links to files have places of their own.
        self.found: dict[Path, tuple[Path, Path]] = {}
        self.left_out: dict[str, list[Path]] = {}
        self.unread: list[str] = []
        self._seen: set[tuple[int, int]] = set()  # folders, by device and number

    def add(self, entry: str) -> None:
        """Collect the files of one entry of the inputs.

        Raises:
            InputError: the entry does not exist or holds no audio.
        """
        path = Path(entry)
        may_be_empty = False
        if path.is_dir():
            if path.resolve() == self.resolved:
                raise InputError(f"output={self.target} is the input folder: choose another output")
            may_be_empty = self._identity(path) in self._seen  # in the tree of another entry
            paths = list(self._walk(path))
            root = path
        elif path.exists():
            paths = [path]
            root = path.parent
        elif _is_glob(entry):
            root = Path(*_before_magic(path))
            paths = list(self._matches(entry, root))
        else:
            raise InputError(f"no such audio file or folder: {entry}")
        if not paths and not may_be_empty:
            raise InputError(
                self.unread[-1]
                if self.unread
                else f"no audio file (wav, flac, mp3, m4a ...) in {entry}"
            )
        for path in paths:
            self.found.setdefault(path.parent.resolve() / path.name, (path, path.relative_to(root)))

    def _walk(self, top: Path) -> Iterator[Path]:
        """Yield files below a folder, linked folders last so that real ones keep their names."""
        folders: list[Path] = [top]
        links: list[Path] = []
        while folders or links:
            linked = not folders
            folder = links.pop(0) if linked else folders.pop()
            try:
                identity = self._identity(folder)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self.unread.append(
                    f"cannot read the folder {folder}: {error.strerror or error}; "
                    "check its permissions"
                )
                continue
            if identity in self._seen:
                if linked:
                    self._leave_out(folder, AGAIN)
                continue
            if folder.resolve() == self.resolved:  # outputs are not inputs
                continue
            self._seen.add(identity)
            below: list[Path] = []
            for entry in entries:
                path = folder / entry.name
                if entry.is_dir():
                    if entry.name.startswith("."):
                        self._leave_out(path, HIDDEN, entry.name != RECORDS)
                    else:
                        (links if entry.is_symlink() else below).append(path)
                elif self._is_audio(path):
                    yield path
            folders += reversed(below)

    def _matches(self, entry: str, root: Path) -> Iterator[Path]:
        """Yield the files that a glob matches."""
        inside = root.resolve() in self.resolved.parents
        for match in sorted(glob.glob(entry.replace("[", "[[]"), recursive=True)):
            path = Path(match)
            if inside and (
                self.resolved == path.resolve() or self.resolved in path.resolve().parents
            ):
                continue
            if path.is_dir():
                self._leave_out(path, FOLDER, "**" not in entry)
            elif self._is_audio(path):
                yield path

    def _is_audio(self, path: Path) -> bool:
        """Return whether a file becomes a job; if not, record the reason."""
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            self._leave_out(path, HIDDEN, suffix in EXTENSIONS)
            return False
        if suffix in EXTENSIONS or _holds_audio(path):
            return True
        self._leave_out(path, NOT_AUDIO)
        return False

    def _leave_out(self, path: Path, reason: str, counts: bool = True) -> None:
        if counts:
            self.left_out.setdefault(reason, []).append(path)

    @staticmethod
    def _identity(folder: Path) -> tuple[int, int]:
        status = folder.stat()
        return status.st_dev, status.st_ino


def _holds_audio(path: Path) -> bool:
    """Return whether a file with an unknown ending holds audio; known other endings do not."""
    suffix = path.suffix.lower()
    kind = _TYPES.guess_type(f"x{suffix}")[0] or ""
    if (
        suffix in _PLAYLISTS
        or (kind and not kind.startswith(("audio/", "video/")))
        or not path.is_file()
    ):
        return False
    try:
        audio.info(path)
    except Exception:  # libraries raise many types for files without audio
        return False
    return True


def _before_magic(path: Path) -> list[str]:
    """Return the folders of a glob before its first wildcard."""
    parts = list(path.parts[:-1])
    return parts[: next((i for i, part in enumerate(parts) if _is_glob(part)), len(parts))]


def _is_glob(entry: str) -> bool:
    """Return whether an entry contains `*` or `?`; brackets are part of names."""
    return "*" in entry or "?" in entry


def _is_file(entry: str) -> bool:
    """Return whether an entry is a file, not a folder or a glob."""
    path = Path(entry)
    if not path.exists() and not _is_glob(entry):
        raise InputError(f"no such audio file or folder: {entry}")
    return path.exists() and not path.is_dir()


def _folded(path: Path) -> str:
    """Fold the case of a path, for disks that ignore case."""
    return str(path).casefold()


def _check_distinct(jobs: list[Job]) -> None:
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(_folded(job.output), job)
        if other is not job:
            pair = f"{other.input} and {job.input}"
            if other.input == job.input:
                pair = f"sigma={other.sigma} and sigma={job.sigma}"
            raise InputError(
                f"{pair} would both become {job.output}: give each its own run and output"
            )


def _check_name(output: Path, file_format: str | None) -> None:
    if output.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(
            f"output={output} must end in {', '.join(OUTPUT_EXTENSIONS)}, "
            "or be a folder: an existing one, or a name that ends in /"
        )
    if file_format is not None and output.suffix.lower() != f".{file_format}":
        raise InputError(
            f"format={file_format} is not the ending of output={output}: leave format out"
        )
