"""Files of the page's visitors: one folder a visitor, deleted after use."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.utils.files import lock, with_ending

if TYPE_CHECKING:
    from audio_diffusion_pytorch.app.transfers import Recording
    from audio_diffusion_pytorch.app.worker import Ticket

PREFIX = "timbridge-app-"
LOCK = ".lock"
UPLOADS = "uploads"  # written by Gradio
VISITORS = "visitors"
UPLOAD_MINUTES = 10  # age until an upload that Gradio keeps is deleted
_INTERVAL = 30.0  # seconds between two searches for old files
_NAME_BYTES = 80  # of a file's stem


@dataclass
class Visitor:
    """One open page, or one client of the API.

    Attributes:
        folder: files of the visitor, under a name that nobody can guess.
        token: name of the visitor for live sound, which nobody can guess either.
        recording: the recording that the visitor works on.
        opening: number of recordings that are being opened.
        ticket: the running work.
        history: finished results, the newest last.
        used: time of the last use.
        is_gone: whether the visitor left.
    """

    folder: Path
    recording: Recording | None = None
    opening: int = 0
    ticket: Ticket | None = None
    history: list[Any] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)
    is_gone: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    def new_folder(self) -> Path:
        """Create a folder for the files of one recording or one result."""
        folder = self.folder / secrets.token_urlsafe(9)
        folder.mkdir(parents=True)
        return folder

    def cancel(self) -> None:
        """Cancel the running work."""
        if self.ticket is not None:
            self.ticket.cancel()


class Storage:
    """Folders of all visitors, in one temporary folder of the server.

    Folders that a killed server left are deleted first.

    Args:
        keep_minutes: time after the last use until the files of a visitor are deleted.
        parent: folder for the server's folder; None: the system's folder for temporary files.
    """

    def __init__(self, keep_minutes: float = 120, parent: Path | None = None):
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        delete_abandoned(parent)
        self.keep_seconds = keep_minutes * 60
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock_file = open(self.root / LOCK, "ab")  # noqa: SIM115
        lock(self._lock_file)
        self.uploads = self.root / UPLOADS
        self.visitors_folder = self.root / VISITORS
        for folder in (self.uploads, self.visitors_folder):
            folder.mkdir()
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._clean, daemon=True).start()

    def visitor(self, session: str) -> Visitor:
        """Return the visitor of a session, a new one at the first call.

        Args:
            session: name of Gradio's session.
        """
        with self._lock:
            visitor = self._visitors.get(session)
            if visitor is None:
                folder = self.visitors_folder / secrets.token_urlsafe(18)
                folder.mkdir()
                visitor = self._visitors[session] = Visitor(folder)
            visitor.used = time.monotonic()
            return visitor

    def session_of(self, token: str) -> str | None:
        """Return the session of the visitor with a token; None: there is none."""
        with self._lock:
            found = (name for name, visitor in self._visitors.items() if visitor.token == token)
            return next(found, None)

    def forget(self, session: str) -> None:
        """Cancel the work of a visitor and delete the files."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
        if visitor is not None:
            visitor.is_gone = True
            visitor.cancel()
            shutil.rmtree(visitor.folder, ignore_errors=True)

    def delete_old(self, now: float | None = None) -> None:
        """Delete uploads that were copied, and the files of visitors who left.

        Args:
            now: present time of `time.monotonic`; None: measured.
        """
        now = time.monotonic() if now is None else now
        with self._lock:
            old = [
                session
                for session, visitor in self._visitors.items()
                if now - visitor.used > self.keep_seconds
                and not (visitor.ticket is not None and visitor.ticket.is_open)
            ]
        for session in old:
            self.forget(session)
        for path in _files(self.uploads):
            with suppress(OSError):
                # not of the modification, which a hard link or a copy may keep
                if time.time() - path.stat().st_ctime > UPLOAD_MINUTES * 60:
                    path.unlink()

    def close(self) -> None:
        """Cancel all work and delete all files."""
        self._closed.set()
        with self._lock:
            visitors = list(self._visitors.values())
        for visitor in visitors:
            visitor.cancel()
        shutil.rmtree(self.root, ignore_errors=True)
        self._lock_file.close()

    def _clean(self) -> None:
        while not self._closed.wait(_INTERVAL):
            self.delete_old()


def delete_abandoned(parent: Path) -> None:
    """Delete the folders of servers that were killed; those of running servers are locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), open(folder / LOCK, "ab") as file:
            if lock(file):
                shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def shown_name(path: str | os.PathLike[str]) -> str:
    """Return the name of a file for display: without folders and control characters.

    Args:
        path: path or name as a browser sends it; not trusted.
    """
    name = re.split(r"[/\\]", os.fspath(path))[-1]
    name = "".join(character for character in name if character.isprintable()).strip()
    return name or "recording"


def safe_stem(name: str) -> str:
    """Return the stem of a file name with letters, digits, spaces and `-_.()` only.

    Args:
        name: name of a file; not trusted.
    """
    stem = Path(shown_name(name)).stem
    stem = re.sub(r"[^\w\-. ()]", "_", stem).strip(". ")
    return with_ending(stem or "recording", "", _NAME_BYTES)


def take_upload(source: Path, folder: Path) -> Path:
    """Keep an upload under a name that does not depend on the visitor.

    Args:
        source: file that Gradio wrote.
        folder: folder of the visitor.

    Returns:
        The kept file: a hard link if possible, otherwise a copy.
    """
    target = folder / "input"
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
