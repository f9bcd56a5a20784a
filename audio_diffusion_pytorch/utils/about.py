"""When, with which version and from which commit something was made."""

import subprocess
from datetime import datetime
from typing import Any

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.command_line import NAME
from audio_diffusion_pytorch.paths import INSTALLED, ROOT


def made() -> dict[str, Any]:
    """Date, version, and commit of the clone that this runs in (None: it is none, or git is not there)."""
    return {
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "version": __version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """The short name of the clone's commit, with "+" where files have changed since."""
    if INSTALLED or not (ROOT / ".git").exists():
        return None
    name, changes = (
        _git("rev-parse", "--short", "HEAD"),
        _git("status", "--porcelain", "--untracked-files=no"),
    )
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
    """What `made` gave, for people."""
    return f"{made['date']}, {NAME} {made['version']}" + (
        f", commit {made['commit']}" if made["commit"] else ""
    )
