"""Paths of the shipped files: beside the package in a clone, inside it in an installation."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "configs").is_dir()  # setup.py maps configs/ and exp/ into the package
ROOT = PACKAGE if INSTALLED else PACKAGE.parent  # folder of configs/ and exp/
CONFIGS = ROOT / "configs"
EXPERIMENTS = ROOT / "exp"
ASSETS = PACKAGE / "assets"
CLIPS = ASSETS / "clips"


def shipped_clips() -> Path:
    """Return the folder of the shipped clips."""
    return CLIPS
