"""The error that a user can act on, and how a command ends with it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audio_diffusion_pytorch.files import flush, with_ending

_TEMPORARY_BYTES = 120  # of a temporary name, so that it fits on every disk


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class Interrupted(BaseException):
    """A signal ended the run after its state was saved; the command's exit status is 128 + `signal`."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = int(signal)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and rename it to `path` (flushed to disk) when the block succeeds.

    Whatever happens inside, also a kill or a loss of power, `path` is either what it was before or complete.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 16 else ""  # libraries choose the format by it
    # Containers that share a disk have the same few process numbers.
    ending = f".{os.getpid()}-{secrets.token_hex(3)}.tmp{suffix}"
    temporary = path.with_name(with_ending(f".{path.name.removesuffix(suffix)}", ending, _TEMPORARY_BYTES))
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
