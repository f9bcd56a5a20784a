"""Digests of files' contents, by which caches know them whatever they are called."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write


def content_digest(path: str | Path) -> str:
    """BLAKE2 of a file's bytes, 32 hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as content:
            while part := content.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def content_sample(path: str | Path) -> str:
    """Digest of a file's size and of 4 KiB in its middle: tells most contents apart without reading them.

    Raises:
        InputError: it cannot be read.
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
    """`content_digest`, remembered in a JSON file for as long as a file's size and time of change stay the same.

    Several processes may use one; what one of them learns may get lost to another, and is then computed again.
    """

    def __init__(self, path: Path):
        self.path, self.new = path, {}
        self.known = self._load()

    def __call__(self, file: str) -> str:
        try:
            status = Path(file).stat()
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
        key, state = str(Path(file).resolve()), [status.st_size, status.st_mtime_ns]
        entry = self.known.get(key)
        if not (isinstance(entry, list) and entry[:2] == state):
            entry = self.known[key] = self.new[key] = [*state, content_digest(file)]
        return entry[2]

    def save(self) -> None:
        """Write what is new; where that fails it is only computed again the next time."""
        if self.new:
            with suppress(InputError), atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps({**self._load(), **self.new}), encoding="utf-8")
            self.new = {}

    def _load(self) -> dict[str, list]:
        with suppress(OSError, ValueError):
            known = json.loads(self.path.read_text(encoding="utf-8"))
            return known if isinstance(known, dict) else {}
        return {}


def _fingerprint(*parts: object) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Mapping):
            for key, value in part.items():
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(f"{part};".encode())
    return digest.hexdigest()


def digest(*parts: Any) -> str:
    """A short name for anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def digest_of(module: nn.Module, *about: Any) -> str:
    """A short name for a module's weights, and what else is told about it."""
    content = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        content.update(key.encode())
        content.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest(content.hexdigest(), *about)
