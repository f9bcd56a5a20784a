"""Check that a machine has the folders and the versions of the command."""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from audio_diffusion_pytorch.errors import InputError


@dataclass(frozen=True)
class NodeCheck:
    """Folders and versions that every node must have.

    Args:
        versions: name -> version or digest, on the machine of the command.
        inputs: files that exist.
        marker: folder that the command keeps in the output folder.
        cwd: working folder of the command, which resolves relative paths.
    """

    versions: Mapping[str, str]
    inputs: Sequence[Path]
    marker: Path
    cwd: Path = field(default_factory=Path.cwd)

    @classmethod
    @contextmanager
    def marked(
        cls, versions: Mapping[str, str], inputs: Sequence[Path], folder: Path
    ) -> Iterator["NodeCheck"]:
        """Keep a marker in an output folder during a block.

        Args:
            versions: see `NodeCheck`.
            inputs: see `NodeCheck`.
            folder: folder of the outputs.

        Raises:
            InputError: the folder cannot be written.
        """
        marker = folder / f".engine-{secrets.token_hex(6)}"
        with _writing(folder, "this machine"):
            marker.mkdir(parents=True)
            _write_file(marker)
        try:
            yield cls(versions, inputs, marker)
        finally:
            # A worker that still starts finds no folder under the old name, and writes nothing.
            with suppress(OSError):
                rmtree(marker.rename(marker.with_name(f"{marker.name}-old")))

    def see_folders(self, node: str) -> None:
        """Enter the working folder on a node, and check the folders.

        Args:
            node: name of the node.

        Raises:
            InputError: the node does not see an input, or cannot write to the output folder.
        """
        with suppress(OSError):  # paths may be absolute
            os.chdir(self.cwd)
        missing = [path for path in (self.marker.parent, *self.inputs) if not path.exists()]
        if missing or not self.marker.exists():
            raise InputError(
                f"node {node} does not see {(missing or [self.marker.parent])[0]} of this command: "
                "inputs and outputs must lie in folders that all nodes share"
            )
        with _writing(self.marker.parent, f"node {node}"):
            _write_file(self.marker)

    def compare(self, node: str, versions: Mapping[str, str]) -> None:
        """Compare the versions of a node with those of the command.

        Args:
            node: name of the node.
            versions: see `NodeCheck`, on the node.

        Raises:
            InputError: a version differs.
        """
        for name, ours in self.versions.items():
            if versions.get(name) != ours:
                raise InputError(
                    f"node {node} has {name} {versions.get(name)}, and the machine of the command "
                    f"has {ours}: install the same versions and models on all nodes"
                )


@contextmanager
def _writing(folder: Path, where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{where} cannot write to {folder}: {error.strerror}; choose another output or free "
            "space"
        ) from error


def _write_file(folder: Path) -> None:
    with open(folder / secrets.token_hex(6), "wb") as file:
        file.write(b"shared")
        os.fsync(file.fileno())
