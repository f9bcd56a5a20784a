"""Model files: tensors as .safetensors, with a description in the metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> None:
    """Write tensors, from any device, and metadata.

    Args:
        path: file to write.
        tensors: tensors by name.
        header: metadata.

    Raises:
        InputError: the file cannot be written.
    """
    from safetensors.torch import save_file

    on_cpu = {key: value.contiguous().cpu() for key, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(on_cpu, temporary, dict(header))


@contextmanager
def open_safetensors(
    path: Path, kind: str, format_name: str | None = None
) -> Iterator[tuple[dict[str, str], dict[str, Tensor]]]:
    """Read metadata and tensors; translate errors of the block that builds the model from them.

    Args:
        path: an existing file.
        kind: kind of the model with its article, for messages: "a mel codec".
        format_name: required value of `format` in the metadata; None: any.

    Yields:
        The metadata, and the tensors by name.

    Raises:
        InputError: the file is damaged, of another format, or does not fit the model.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if format_name is not None and header.get("format") != format_name:
                raise InputError(f"{path} is not {kind}: its metadata lacks format={format_name}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        yield header, tensors
    except InputError:
        raise
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot read {path} as {kind}: {error}") from error
