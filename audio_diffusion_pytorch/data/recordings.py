"""Readable recordings of a data set: headers, contents, and warnings about defective files."""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.hashing import content_digest, content_sample

_MANY = 2000  # files whose headers take seconds to read
_MOST_LISTED = 10


@dataclass(frozen=True)
class Recordings:
    """Readable recordings in one or several folders; see `scan`.

    Args:
        headers: header of each recording, by path; the order is that of the data set.
        samples: hash of a part of the content of each recording, by path.
        left_out: audio files of other instruments.
        unreadable: error messages of files without a readable header.
        reported: 1 for each recording that `warn_once` reported, uint8 [number of recordings].
    """

    headers: dict[str, audio.AudioInfo]
    samples: dict[str, str]
    left_out: list[str]
    unreadable: list[str]
    reported: Tensor

    @classmethod
    def scan(
        cls,
        path: str | Path | Sequence[str | Path],
        instruments: Sequence[str] | None,
        recursive: bool = True,
    ) -> "Recordings":
        """Read the headers of all recordings; warn about unreadable ones.

        Args:
            path: folder or folders.
            instruments: names to find in the file names; None accepts every file.
            recursive: include subfolders.

        Raises:
            InputError: a folder is missing, contains no file of the instruments, or no readable
                one.
        """
        files = find_files(path, instruments, recursive)
        others = set(find_files(path, None, recursive)).difference(files)
        headers: dict[str, audio.AudioInfo] = {}
        samples: dict[str, str] = {}
        unreadable: list[str] = []
        progress = tqdm(files, desc="reading headers", unit="file", disable=len(files) < _MANY)
        for file in progress:
            try:
                header = audio.info(file)
                sample = content_sample(file)
            except InputError as error:
                unreadable.append(str(error))
                continue
            headers[str(file)] = header
            samples[str(file)] = sample
        if unreadable:
            warnings.warn(_listing(unreadable, len(files)), stacklevel=3)
        if not headers:
            raise InputError(
                f"none of the {len(files)} audio files in {path} can be read; "
                f"the first: {unreadable[0]}"
            )
        reported = torch.zeros(len(headers), dtype=torch.uint8)
        return cls(headers, samples, sorted(map(str, others)), unreadable, reported)

    def check_channels(self) -> None:
        """Check that all recordings have the same number of channels.

        Raises:
            InputError: the numbers differ.
        """
        counts = {header.channels: file for file, header in self.headers.items()}
        if len(counts) > 1:
            listing = ", ".join(f"{count} in {file}" for count, file in sorted(counts.items()))
            raise InputError(
                "channels=0 keeps the channels of the recordings, "
                f"but their numbers differ ({listing})"
            )

    def originals(self) -> dict[str, str]:
        """Map each recording to the first recording with the same content."""
        alike = defaultdict(list)
        for file in self.headers:
            alike[self.samples[file]].append(file)
        found = {}
        for files in alike.values():
            first: dict[str, str] = {}
            for file in files:
                digest = content_digest(file) if len(files) > 1 else ""
                found[file] = first.setdefault(digest, file)
        return found

    def seconds(self, files: Iterable[str]) -> float:
        """Sum the durations of recordings, in seconds."""
        return sum(self.headers[file].seconds for file in files)

    def fingerprint(self, files: Sequence[str]) -> str:
        """Describe names and contents of recordings, for example "12 files, 1f0c2a"."""
        listing = [
            f"{Path(file).name}/{self.headers[file].frames}/{self.samples[file]}" for file in files
        ]
        digest = hashlib.sha256("\0".join(listing).encode()).hexdigest()
        return f"{len(files)} files, {digest[:6]}"

    def share(self) -> None:
        """Share the list of reported recordings with processes that start later.

        Raises:
            RuntimeError: shared memory is unavailable.
        """
        self.reported.share_memory_()

    def warn_once(self, file: str, problem: str) -> None:
        """Warn that a recording is skipped, unless this or another process reported it before."""
        index = list(self.headers).index(file)
        if not self.reported[index]:
            self.reported[index] = 1
            warnings.warn(f"skipped: {problem}", stacklevel=3)


def _listing(unreadable: list[str], total: int) -> str:
    lines = unreadable[:_MOST_LISTED]
    if len(unreadable) > _MOST_LISTED:
        lines = [*lines, f"... and {len(unreadable) - _MOST_LISTED} more"]
    heading = f"{len(unreadable)} of {total} files cannot be read and are skipped:"
    return "\n  ".join([heading, *lines])
