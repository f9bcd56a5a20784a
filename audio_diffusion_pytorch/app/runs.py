"""Trainings below a folder: state, loss curves and previews, read only."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

State = Literal["training", "finished", "stopped"]
LOSSES = ("train_loss", "valid_loss")
_DEPTH = 3  # folders below the given one
# Seconds since its last log within which a run counts as active if its process cannot be asked.
_RECENT = 600.0
_OWNER = re.compile(r"process (\d+) on (.+)")


@dataclass(frozen=True)
class Run:
    """Run folder of a training.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def has_weights(self) -> bool:
        """Whether the folder holds a model."""
        return bool(self._weights())

    @property
    def saved(self) -> float:
        """Time of the newest weights, in seconds since 1970; 0 without weights."""
        return max((path.stat().st_mtime for path in self._weights()), default=0.0)

    @property
    def is_training(self) -> bool:
        """Whether a process trains in the folder; the lock is not touched."""
        try:
            owner = _OWNER.fullmatch((self.path / ".lock").read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            return False
        if owner is None:
            return False
        # Windows ends a process that receives signal 0.
        if owner[2] != socket.gethostname() or os.name == "nt":
            return time.time() - self.logged < _RECENT
        return _is_alive(int(owner[1])) and not any(self.path.glob("*.safetensors"))

    @property
    def logged(self) -> float:
        """Time of the newest log, in seconds since 1970."""
        events = self.path.glob("tensorboard/**/events.*")
        return max((path.stat().st_mtime for path in events), default=0.0)

    @property
    def state(self) -> State:
        """State of the training."""
        if self.is_training:
            return "training"
        return "finished" if any(self.path.glob("*.safetensors")) else "stopped"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty if it cannot be read."""
        from omegaconf import OmegaConf

        try:
            values: Any = OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))
        except Exception:  # half-written or foreign
            return {}
        return values if isinstance(values, dict) else {}

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.config.get("exp_name") or "")

    @property
    def data(self) -> str:
        """Folders of the training data."""
        data = self.config.get("dataset_path") or ""
        return ", ".join(map(str, data)) if isinstance(data, list) else str(data)

    @property
    def total_steps(self) -> int | None:
        """Last step of the training; None if unknown."""
        steps = self.config.get("total_steps")
        return steps if isinstance(steps, int) else None

    def _weights(self) -> list[Path]:
        return [*self.path.glob("*.safetensors"), *self.path.glob("checkpoints/*.ckpt")]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def find_runs(folder: Path) -> list[Run]:
    """Find the run folders below a folder, the newest first.

    Args:
        folder: folder to search; may be missing.
    """
    found = {
        config.parent
        for depth in range(1, _DEPTH + 1)
        for config in folder.glob("*/" * depth + "config.yaml")
        if (config.parent / "checkpoints").is_dir() or (config.parent / "tensorboard").is_dir()
    }
    return [Run(path) for path in sorted(found, key=lambda p: -p.stat().st_mtime)]


@dataclass(frozen=True)
class Curves:
    """Numbers and sounds of a run's logs.

    Args:
        losses: name -> list of (step, value).
        sounds: tag -> (step, WAV or other encoded sound), the newest of each tag.
    """

    losses: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    sounds: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    @property
    def step(self) -> int | None:
        """Number of steps at the last log; Lightning counts from 0."""
        return max((points[-1][0] + 1 for points in self.losses.values() if points), default=None)


def read_curves(run: Run, sounds: bool = True) -> Curves:
    """Read the losses and the previews of a run from TensorBoard's files.

    Args:
        run: the run.
        sounds: whether to read the previews.
    """
    folder = run.path / "tensorboard"
    if not folder.is_dir():
        return Curves()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # of files that no longer grow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 5000, "audio": 1 if sounds else 0, "images": 0, "tensors": 1}
    try:
        events = EventAccumulator(str(folder), sizes)
        events.Reload()
        tags = events.Tags()
        losses = {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in LOSSES
            if name in tags["scalars"]
        }
        heard = {tag: events.Audio(tag)[-1] for tag in tags["audio"] if sounds}
    except Exception:  # a damaged log must not hide the other runs
        return Curves()
    return Curves(losses, {tag: (one.step, one.encoded_audio_string) for tag, one in heard.items()})


def rows(runs: list[Run]) -> Iterator[list[str]]:
    """Yield the cells of a table of runs: name, state, step, losses, time of the last log."""
    for run in runs:
        curves = read_curves(run, sounds=False)
        step = "" if curves.step is None else f"{curves.step:,}"
        of = f" of {run.total_steps:,}" if run.total_steps and step else ""
        valid = [value for _, value in curves.losses.get("valid_loss", [])]
        best = f"{min(valid):.3f}" if valid else ""
        last = f"{valid[-1]:.3f}" if valid else ""
        logged = time.strftime("%d %b %H:%M", time.localtime(run.logged)) if run.logged else ""
        yield [run.path.name, run.state, step + of, last, best, logged]
