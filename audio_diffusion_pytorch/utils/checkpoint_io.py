"""Checkpoints with a checksum, and safe loads: no code in a file is run."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    pass


_MARK, _DIGITS = (
    b"crc32:",
    8,
)  # the end of a file: the archive's comment, over everything before the digits


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint that `load_checkpoint` and `torch.load` read; a checksum of the whole file ends it.

    The archive's own checksums leave out its directory, which tells where each tensor lies.

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
    """CRC-32 of a file but for its last digits."""
    left, crc = path.stat().st_size - _DIGITS, 0
    with open(path, "rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 22))):
            crc, left = zlib.crc32(block, crc), left - len(block)
    return crc


def _is_damaged(path: Path) -> str | None:
    """What is wrong with a file, by its checksum, or by the archive's own where it has none; None: nothing."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _DIGITS - len(_MARK)))
        end = file.read()
    if end.startswith(_MARK):
        return (
            None
            if end[len(_MARK) :] == f"{_checksum(path):0{_DIGITS}x}".encode()
            else "its checksum is wrong"
        )
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def load_checkpoint(
    path: str | Path, map_location: Any = "cpu", mmap: bool = False
) -> dict[str, Any]:
    """Read a checkpoint without running any code in it; with `mmap` a tensor is read from the file when it is used.

    Raises:
        InputError: it is missing, damaged (the message names the newest good one beside it), or holds anything but
            tensors and plain containers.
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
            f"checkpoint {path} is damaged or no checkpoint ({error}): {hint}"
        ) from error


def newest_good(damaged: Path) -> Path | None:
    """The checkpoint in the folder of `damaged` that was written last and can be read."""
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
    """Read a file that holds one tensor.

    Raises:
        InputError: it is missing, damaged, or holds something else.
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
    """`load_checkpoint`, memory-mapped: a tensor is read from the file when it is used.

    Raises:
        InputError: it is missing, damaged, or holds anything but tensors and plain containers.
    """
    return load_checkpoint(path, mmap=True)


def check_keys(
    found: Mapping[str, Tensor], shapes: Mapping[str, Any], where: str, finite: bool = True
) -> None:
    """Compare tensors with the shapes that a module wants.

    Raises:
        InputError: names every key that is missing, unexpected, of another shape, or (`finite`) not finite.
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
