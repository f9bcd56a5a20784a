"""Find the recordings of a command line and the file that each becomes; count and name what is left out."""

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

# Why something in a folder does not become a job.
NOT_AUDIO = "not audio"
HIDDEN = "hidden"
AGAIN = "a link to a folder that is done under its own name"
FOLDER = "a folder, and the pattern has no **"
_PLAYLISTS = (
    ".m3u",
    ".m3u8",
    ".pls",
    ".cue",
    ".asx",
    ".xspf",
    ".sdp",
)  # they name sound, and hold none
_TYPES = mimetypes.MimeTypes()  # Python's own table, the same on every system


@dataclass
class Plan:
    """The work of a command line.

    Args:
        jobs: one for each recording and noise level.
        left_out: reason -> files and folders that become no job.
        unread: a sentence for each folder that cannot be read: recordings may be missing.
        failures: job -> why its output cannot be written.
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
    """The jobs of a command line.

    Args:
        inputs: a file, a folder (with those below it, linked ones too), a glob (`*`, `?`, `**`), or a list of these.
            Hidden files do not count, nor does the output folder where it lies inside. In folders, files with an ending
            of `audio.EXTENSIONS` count, and those with an unknown one or none that hold audio.
        output: for one file a file name, else a folder, in which the tree of the inputs is mirrored.
        sigmas: hand-off noise level, or a list of them: each makes a file, its name ends in `_sigma4`.
        file_format: ending of files in an output folder (`wav`, `flac` ...); None: the input's where it is wav, flac
            or ogg, else `flac`.

    Raises:
        InputError: nothing there, an output that does not suit, or one for two of the recordings.
    """
    several = not (sigmas is None or isinstance(sigmas, int | float))
    levels = [(s, f"_sigma{s:g}" if several else "") for s in (sigmas if several else [sigmas])]
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    target = Path(output)
    if (
        len(given) == 1
        and _is_file(given[0])
        and not (target.is_dir() or output.endswith(("/", os.sep)))
    ):
        _check_name(target, file_format)
        plan = Plan(
            [
                Job(
                    Path(given[0]),
                    target.with_name(with_ending(target.stem, end + target.suffix)),
                    s,
                )
                for s, end in levels
            ]
        )
        for job in plan.jobs:
            check_output(job.output, job.input)
    else:
        if target.suffix.lower() in (*EXTENSIONS, *OUTPUT_EXTENSIONS) and not target.is_dir():
            raise InputError(
                f"output={output} is one file, input={inputs} may be many: give a folder as output"
            )
        if file_format is not None and f".{file_format}" not in OUTPUT_EXTENSIONS:
            raise InputError(
                f"format={file_format} is none of {', '.join(e[1:] for e in OUTPUT_EXTENSIONS)}"
            )
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
    _check_distinct(plan.jobs)
    return plan


def _folder_jobs(
    found: Sequence[tuple[Path, Path]],
    target: Path,
    levels: Sequence[tuple[float | None, str]],
    file_format: str | None,
) -> Iterator[Job]:
    def name(relative: Path) -> Path:
        ending = f".{file_format}" if file_format else relative.suffix.lower()
        return relative.with_name(
            with_ending(
                relative.stem, ending if file_format or ending in KEPT_EXTENSIONS else ".flac"
            )
        )

    taken = Counter(_folded(name(relative)) for _, relative in found)
    for path, relative in found:
        short = name(relative)
        if taken[_folded(short)] > 1:  # a.wav and a.mp3: keep the whole name
            short = short.with_name(with_ending(relative.name, short.suffix))
        for sigma, end in levels:
            yield Job(
                path,
                target / short.with_name(with_ending(short.stem, end + short.suffix)),
                sigma,
                target,
            )


class _Search:
    """Collects files, each with its place in the tree, every file once; and what is left out.

    Args:
        target: output folder; what lies in it is not input.
    """

    def __init__(self, target: Path):
        self.target, self.resolved = target, target.resolve()
        self.found: dict[
            Path, tuple[Path, Path]
        ] = {}  # by the folder's own name: links to files have their own places
        self.left_out: dict[str, list[Path]] = {}
        self.unread: list[str] = []
        self._seen: set[tuple[int, int]] = set()  # folders, by device and number

    def add(self, entry: str) -> None:
        """Collect what one entry of the inputs names.

        Raises:
            InputError: nothing is there, or it holds no audio.
        """
        path, may_be_empty = Path(entry), False
        if path.is_dir():
            if path.resolve() == self.resolved:
                raise InputError(f"output={self.target} is the input folder: choose another output")
            may_be_empty = self._identity(path) in self._seen  # it is in the tree of another entry
            paths, root = list(self._walk(path)), path
        elif path.exists():
            paths, root = [path], path.parent
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
        """Files of a folder and of those below it; linked ones come last, so that the real ones keep their names."""
        folders = [top]
        links: list[Path] = []
        while folders or links:
            linked = not folders
            folder = links.pop(0) if linked else folders.pop()
            try:
                identity, entries = (
                    self._identity(folder),
                    sorted(os.scandir(folder), key=lambda entry: entry.name),
                )
            except OSError as error:
                self.unread.append(
                    f"cannot read the folder {folder}: {error.strerror or error}; check its permissions"
                )
                continue
            if identity in self._seen:
                if linked:
                    self._leave_out(folder, AGAIN)
                continue
            if folder.resolve() == self.resolved:  # outputs are not input
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
        """Files that a glob matches."""
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
        """Whether a file is to become a job; else it is counted."""
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
    """Whether a file without an ending of audio holds audio; endings that are known for something else are believed."""
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
    except Exception:  # whatever a library says of a file that is not audio
        return False
    return True


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
    return path.exists() and not path.is_dir()


def _folded(path: Path) -> str:
    """What two paths share where the disk does not tell capitals."""
    return str(path).casefold()


def _check_distinct(jobs: list[Job]) -> None:
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(_folded(job.output), job)
        if other is not job:
            one, two = str(other.input), str(job.input)
            if one == two:
                one, two = f"sigma={other.sigma}", f"sigma={job.sigma}"
            raise InputError(
                f"{one} and {two} would both become {job.output}: give each its own run and output"
            )


def _check_name(output: Path, file_format: str | None) -> None:
    if output.suffix.lower() not in OUTPUT_EXTENSIONS:
        raise InputError(
            f"output={output} must end in {', '.join(OUTPUT_EXTENSIONS)}, or be a folder: one that is there, or ending "
            "in /"
        )
    if file_format is not None and output.suffix.lower() != f".{file_format}":
        raise InputError(
            f"format={file_format} is not the ending of output={output}: leave format out"
        )
