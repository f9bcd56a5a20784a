"""Write atomically, lock, flush and shorten names, on file systems with and without support."""

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
_LOCK_POSITION = 1 << 30  # Windows locks bytes, and locked bytes cannot be read
_warned_about_locks = False


def with_ending(name: str, ending: str, most: int = NAME_BYTES) -> str:
    """Join a name and an ending; cut a long name and add its digest, so that it stays unique.

    Args:
        name: beginning of the result.
        ending: end of the result, which is never cut.
        most: most bytes of the result.

    Returns:
        The joined name.
    """
    encoded = os.fsencode(name)
    room = most - len(os.fsencode(ending))
    if len(encoded) <= room:
        return name + ending
    digest = "~" + hashlib.blake2b(encoded, digest_size=6).hexdigest()
    # errors="ignore" drops a character that was cut in two
    return encoded[: room - len(digest)].decode(errors="ignore") + digest + ending


def flush(path: str | Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk.

    Args:
        path: the file or folder. A file system that cannot flush it (some network disks, folders on
            Windows) is ignored.

    Raises:
        OSError: the disk is full or broken.
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
        file: file, open for writing.
        wait: whether to wait for another process that holds the lock.

    Returns:
        Whether this process holds the lock; also true on a disk without locks, after one warning.
    """
    try:
        _lock(file, wait)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        _warn_about_locks(Path(file.name).parent, error)
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


def _warn_about_locks(folder: Path, error: OSError) -> None:
    global _warned_about_locks
    # the workers of a command leave the warning to its main process
    if not _warned_about_locks and multiprocessing.parent_process() is None:
        reason = error.strerror or error
        warnings.warn(
            f"{folder} cannot be locked ({reason}): start no second run in it", stacklevel=4
        )
    _warned_about_locks = True


@contextmanager
def holding(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a lock file during a block, and remove the file afterwards.

    Args:
        path: the lock file.
        wait: whether to wait for another process that holds the lock.

    Yields:
        Whether this process holds the lock; see `lock`.

    Raises:
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = open(path, "ab")  # noqa: SIM115
        held = lock(file, wait)
        # its former holder may have removed the file since it was opened here
        if not held or (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            break
        file.close()
    try:
        yield held
    finally:
        if held:
            with suppress(OSError):  # Windows does not remove open files
                path.unlink()
        file.close()
        if held and os.name == "nt":
            with suppress(OSError):
                path.unlink()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file completely or not at all, even after a kill or a loss of power.

    Args:
        path: the file.

    Yields:
        A temporary path in the same folder. After the block it is flushed to disk and renamed to
        `path`; after an exception it is removed and `path` remains as it was.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    # libraries choose the format by the suffix
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 16 else ""
    # random digits, because containers that share a disk have equal process numbers
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
        with suppress(OSError):  # exFAT, NTFS and network disks do not support these rights
            temporary.chmod(0o644)  # safetensors restricts its files to their owner
        os.replace(temporary, path)
        flush(path.parent)  # the new name
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
    """Find why a file cannot grow; libraries that write tensors do not report the reason."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None
