"""Record the date, the version and the commit of results."""

import subprocess
from datetime import datetime
from typing import Any

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.command_line import NAME
from audio_diffusion_pytorch.paths import INSTALLED, ROOT


def made() -> dict[str, Any]:
    """Return date, version and commit; the commit is None outside a clone or without git."""
    return {
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "version": __version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the short name of the clone's commit, with "+" if files have changed since."""
    if INSTALLED or not (ROOT / ".git").exists():
        return None
    name = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return None if name is None else name + ("+" if changes else "")


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def line(made: dict[str, Any]) -> str:
    """Write the result of `made` as a line of text."""
    commit = f", commit {made['commit']}" if made["commit"] else ""
    return f"{made['date']}, {NAME} {made['version']}{commit}"
