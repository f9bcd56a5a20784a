"""Write checkpoints with a checksum, and load them safely: no code in a file is executed."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

# A file ends in this mark and the checksum of everything before its digits: the comment of the
# archive.
_MARK = b"crc32:"
_DIGITS = 8


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint with a checksum, for `load_checkpoint` and `torch.load`.

    The checksums inside the archive do not cover its directory, which stores the position of each
    tensor.

    Args:
        content: tensors and plain containers.
        path: the file.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = _MARK + b"0" * _DIGITS
        digits = f"{_checksum(temporary):0{_DIGITS}x}".encode()
        with open(temporary, "r+b") as file:
            file.seek(-_DIGITS, 2)
            file.write(digits)


def _checksum(path: Path) -> int:
    """Compute the CRC-32 of a file without the digits at its end."""
    left = path.stat().st_size - _DIGITS
    crc = 0
    with open(path, "rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 22))):
            crc = zlib.crc32(block, crc)
            left -= len(block)
    return crc


def _is_damaged(path: Path) -> str | None:
    """Describe the damage of a file; None if intact.

    Files without a checksum of their own are checked by the checksums of the archive.
    """
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _DIGITS - len(_MARK)))
        end = file.read()
    if end.startswith(_MARK):
        intact = end[len(_MARK) :] == f"{_checksum(path):0{_DIGITS}x}".encode()
        return None if intact else "its checksum is wrong"
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def load_checkpoint(
    path: str | Path, map_location: Any = "cpu", mmap: bool = False
) -> dict[str, Any]:
    """Load a checkpoint without executing code in it.

    Args:
        path: the file.
        map_location: device of the tensors, as in `torch.load`.
        mmap: whether to map the file: each tensor is read at its first use.

    Returns:
        The content of the checkpoint.

    Raises:
        InputError: the file is missing; is damaged (the message names the newest intact checkpoint
            in its folder); or holds other objects than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such checkpoint: {path}")
    try:
        return _read(path, map_location, mmap)
    except _DamagedError as error:
        good = newest_good(path)
        hint = (
            f"the newest good one beside it is {good}"
            if good
            else "use another one, none beside it is good"
        )
        raise InputError(
            f"checkpoint {path} is damaged or not a checkpoint ({error}): {hint}"
        ) from error


def newest_good(damaged: Path) -> Path | None:
    """Return the newest intact checkpoint in the folder of a damaged one; None if there is none."""
    others = [
        other for other in damaged.parent.glob("[!.]*.ckpt") if other != damaged and other.is_file()
    ]
    for other in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True):
        with suppress(InputError, _DamagedError):
            _read(other, "cpu", True)
            return other
    return None


class _DamagedError(Exception):
    pass


def _read(path: Path, map_location: Any, mmap: bool) -> dict[str, Any]:
    try:
        damaged = _is_damaged(path)
        if damaged is None:
            content = torch.load(path, map_location=map_location, mmap=mmap, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"checkpoint {path} holds Python objects, which are not loaded for safety"
        ) from error
    except Exception as error:  # torch's reader raises nearly anything at crafted or damaged files
        raise _DamagedError(_reason(error)) from error
    if damaged is not None:
        raise _DamagedError(damaged)
    if not isinstance(content, dict):
        raise InputError(
            f"checkpoint {path} holds a {type(content).__name__}, not a checkpoint's dictionary"
        )
    return content


def load_tensor(path: str | Path) -> Tensor:
    """Load a file that holds one tensor.

    Args:
        path: the file.

    Returns:
        The tensor, float32.

    Raises:
        InputError: the file is missing, is damaged, or holds another object.
    """
    if not Path(path).is_file():
        raise InputError(f"no such file of statistics: {path}")
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises nearly anything at crafted or damaged files
        raise InputError(f"cannot read {path} as a tensor: {_reason(error)}") from error
    if not isinstance(value, Tensor):
        raise InputError(f"{path} holds a {type(value).__name__}, not a tensor")
    return value.float()


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's message advises an unsafe load
        return "it holds Python objects, or is damaged"
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint with a mapped file; see `load_checkpoint`.

    Raises:
        InputError: the file is missing, is damaged, or holds other objects than tensors and plain
            containers.
    """
    return load_checkpoint(path, mmap=True)


def check_keys(
    found: Mapping[str, Tensor], shapes: Mapping[str, Any], where: str, finite: bool = True
) -> None:
    """Compare tensors with the expected shapes.

    Args:
        found: the tensors.
        shapes: expected shape of each key.
        where: beginning of the error message.
        finite: whether to check that all elements are finite.

    Raises:
        InputError: a key is missing or unexpected, or its tensor has another shape or is not
            finite; the message lists all such keys.
    """
    fitting = [
        key
        for key, shape in shapes.items()
        if key in found and found[key].shape == torch.Size(shape)
    ]
    problems = {
        "missing": [key for key in shapes if key not in found],
        "unexpected": [key for key in found if key not in shapes],
        "of another shape": [
            f"{key} {list(found[key].shape)} instead of {list(shape)}"
            for key, shape in shapes.items()
            if key in found and key not in fitting
        ],
        "not finite": [key for key in fitting if finite and not torch.isfinite(found[key]).all()],
    }
    if any(problems.values()):
        text = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys)
        raise InputError(f"{where} does not fit: {text}")
