"""File systems of any kind: names that fit, and locks and flushes that some of them refuse."""

import errno
import hashlib
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME_BYTES = 255  # the longest name on Linux, macOS and (in UTF-16 units, which are fewer) Windows
_DISK_ERRORS = (errno.EIO, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_LOCK_POSITION = 1 << 30  # Windows locks bytes, and what it locks nobody can read
_told_about_locks = False


def with_ending(name: str, ending: str, most: int = NAME_BYTES) -> str:
    """Return `name` + `ending`, in at most `most` bytes: a longer `name` is cut, and a digest keeps it apart.

    Args:
        ending: kept whole.
    """
    encoded, room = os.fsencode(name), most - len(os.fsencode(ending))
    if len(encoded) <= room:
        return name + ending
    digest = "~" + hashlib.blake2b(encoded, digest_size=6).hexdigest()
    # A character that is cut in two is left out.
    return encoded[: room - len(digest)].decode(errors="ignore") + digest + ending


def flush(path: str | Path) -> None:
    """Write a file's content, or a folder's list of names, to the disk itself where the file system can.

    Raises:
        OSError: the disk is full or broken. A file system that does not flush (some network disks, folders on
            Windows) is no error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise


def lock(file: IO, wait: bool = False) -> bool:
    """Lock an open file against other processes, until it is closed or this process ends.

    Args:
        file: open for writing.
        wait: wait for another process that holds it.

    Returns:
        False where another process holds it. True where this one does, and on a disk without locks, after one warning.
    """
    try:
        _lock(file, wait)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        _tell_about_locks(Path(file.name).parent, error)
    return True


def _lock(file: IO, wait: bool) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    import msvcrt

    while True:
        file.seek(_LOCK_POSITION)
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:  # LK_LOCK gives up after ten seconds
            if not wait:
                raise


def _tell_about_locks(folder: Path, error: OSError) -> None:
    global _told_about_locks
    if not _told_about_locks and multiprocessing.parent_process() is None:  # a command's workers say nothing
        reason = error.strerror or error
        warnings.warn(f"{folder} cannot be locked ({reason}): start no second run in it", stacklevel=4)
    _told_about_locks = True


@contextmanager
def holding(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file `path` inside the block; yields what `lock` returns. It is removed in the end.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "ab")  # noqa: SIM115
        held = lock(file, wait)
        # The process that held it may have removed it since it was opened here.
        if not held or (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            break
        file.close()
    try:
        yield held
    finally:
        if held:
            with suppress(OSError):  # on Windows no open file can be removed
                path.unlink()
        file.close()
        if held and os.name == "nt":
            with suppress(OSError):
                path.unlink()
