"""File systems of any kind: names that fit, and locks and flushes that some of them refuse."""

import errno
import hashlib
import multiprocessing
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from audio_diffusion_pytorch.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME_BYTES = 255  # the longest name on Linux, macOS and (in UTF-16 units, which are fewer) Windows
_DISK_ERRORS = (errno.EIO, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_TEMPORARY_BYTES = 120  # of a temporary name, so that it fits on every disk
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
    if (
        not _told_about_locks and multiprocessing.parent_process() is None
    ):  # a command's workers say nothing
        reason = error.strerror or error
        warnings.warn(
            f"{folder} cannot be locked ({reason}): start no second run in it", stacklevel=4
        )
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


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` (flushed to disk) when the block succeeds.

    Whatever happens inside, also a kill or a loss of power, `path` is either what it was before or complete.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    suffix = (
        path.suffix if len(os.fsencode(path.suffix)) <= 16 else ""
    )  # libraries choose the format by it
    # Containers that share a disk have the same few process numbers.
    ending = f".{os.getpid()}-{secrets.token_hex(3)}.tmp{suffix}"
    temporary = path.with_name(
        with_ending(f".{path.name.removesuffix(suffix)}", ending, _TEMPORARY_BYTES)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; give a file name")
        yield temporary
        flush(temporary)
        with suppress(OSError):  # exFAT, NTFS and network disks have no such rights
            temporary.chmod(0o644)  # safetensors makes its files readable by their owner only
        os.replace(temporary, path)
        flush(path.parent)  # the new name, too
    except InputError:
        raise
    except Exception as error:
        reason = error if isinstance(error, OSError) else _refusal(temporary)
        if reason is None:
            raise
        raise InputError(
            f"cannot write {path}: {reason.strerror or reason}; choose another output or free space"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _refusal(path: Path) -> OSError | None:
    """Why no more can be written to a file: the libraries that write tensors do not say."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None
