"""Compute digests of files, texts, JSON values and weights, the keys of caches."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write


def content_digest(path: str | Path) -> str:
    """Hash the content of a file.

    Args:
        path: the file.

    Returns:
        BLAKE2 of the bytes, 32 hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    content = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                content.update(part)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return content.hexdigest()


def content_sample(path: str | Path) -> str:
    """Hash the size of a file and the 4 KiB in its middle, which distinguish most files.

    Args:
        path: the file.

    Returns:
        16 hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(size // 2)
            part = content.read(4096)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return hashlib.blake2b(part, digest_size=8, key=str(size).encode()).hexdigest()


class DigestMemory:
    """Remember `content_digest` of files in a JSON file, by size and time of change.

    Processes may share the JSON file. A digest that another process overwrites is computed again
    later.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.new: dict[str, list] = {}
        self.known = self._load()

    def __call__(self, file: str | Path) -> str:
        """Return the digest of a file.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            status = Path(file).stat()
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
        key = str(Path(file).resolve())
        state = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(key)
        if not (isinstance(entry, list) and entry[:2] == state):
            entry = [*state, content_digest(file)]
            self.known[key] = entry
            self.new[key] = entry
        return entry[2]

    def save(self) -> None:
        """Add new digests to the JSON file; ignore a failure: digests can be computed again."""
        if self.new:
            with suppress(InputError), atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps({**self._load(), **self.new}), encoding="utf-8")
            self.new = {}

    def _load(self) -> dict[str, list]:
        with suppress(OSError, ValueError):
            known = json.loads(self.path.read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
        return {}


def text_digest(text: str, digits: int) -> str:
    """Hash a text, which may contain bytes that are not UTF-8.

    Args:
        text: the text.
        digits: length of the result.

    Returns:
        The first hexadecimal digits of SHA-256.
    """
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]


def digest(*parts: Any) -> str:
    """Hash values that JSON can hold.

    Args:
        parts: the values; the order of keys in a mapping does not matter.

    Returns:
        24 hexadecimal digits of SHA-256.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def digest_of(module: nn.Module, *about: Any) -> str:
    """Hash the weights of a module, sorted by key.

    Args:
        module: the module.
        about: further values that JSON can hold.

    Returns:
        24 hexadecimal digits of SHA-256.
    """
    content = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        content.update(key.encode())
        content.update(tensor_bytes(value))
    return digest(content.hexdigest(), *about)


def fingerprint(*parts: object) -> str:
    """Hash texts, numbers and state dicts; latent caches contain this digest of their codec.

    Args:
        parts: values; tensors of a mapping are hashed in its order.

    Returns:
        16 hexadecimal digits of BLAKE2.
    """
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Mapping):
            for key, value in part.items():
                content.update(key.encode())
                content.update(tensor_bytes(value))
        else:
            content.update(f"{part};".encode())
    return content.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the elements of a tensor as bytes, in row-major order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
