"""Lock a run's folder, find the checkpoints in it, and write its configuration."""

import logging
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from omegaconf import DictConfig

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write, lock


@contextmanager
def hold_run_folder(cfg: DictConfig) -> Iterator[str | None]:
    """Lock the folders of a run and find its checkpoint; only the first of several processes locks.

    Args:
        cfg: adapted configuration.

    Yields:
        The path of the checkpoint to resume from; None: a new run.

    Raises:
        InputError: another run uses the folder or left its checkpoints there, or the checkpoint is
            missing.
    """
    from pytorch_lightning.utilities import rank_zero_only

    run_dir = Path(cfg.run_dir)
    ckpt_dir = Path(cfg.ckpt_dir)
    is_first = rank_zero_only.rank == 0
    folders = [run_dir] if run_dir in ckpt_dir.parents else [run_dir, ckpt_dir]
    with ExitStack() as stack:
        if is_first:
            for folder in folders:
                stack.enter_context(lock_folder(folder))
        # Within the lock: the previous run may be writing its last checkpoint until then.
        ckpt = find_checkpoint(cfg.ckpt, ckpt_dir)
        resumes_here = ckpt is not None and Path(ckpt).resolve().parent == ckpt_dir.resolve()
        if is_first and cfg.train and not cfg.dry_run and not resumes_here:
            check_unused(ckpt_dir)
        yield ckpt


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and exclude other runs from it; afterwards remove a folder without files.

    The system releases the lock when the process ends for any reason.

    Raises:
        InputError: another run holds the lock, or the folder is not writable.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another logs_dir or free space"
        ) from error
    if hasattr(os, "register_at_fork"):
        # A loader's process that outlives this process must not keep the lock.
        os.register_at_fork(after_in_child=file.close)
    with file:
        if not lock(file):
            file.seek(0)
            owner = file.read().strip() or "just started"
            raise InputError(
                f"another run ({owner}) uses {folder}: wait for its end, or choose another exp_tag"
            )
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            _remove_unused(folder, file)


def _remove_unused(folder: Path, file: TextIO) -> None:
    """Remove a folder that contains only the lock's file."""
    path = Path(file.name)
    with suppress(OSError):
        if list(folder.iterdir()) == [path]:
            if os.name == "nt":  # Windows does not remove open files
                file.close()
            path.unlink()
            folder.rmdir()


def find_checkpoint(ckpt: str | None, ckpt_dir: Path) -> str | None:
    """Find the checkpoint to resume from.

    Args:
        ckpt: a file; or last or best, in the folder; or auto: last.ckpt, else best.ckpt, else a new
            run.
        ckpt_dir: folder of the run's checkpoints.

    Returns:
        The path of the checkpoint; None: a new run.

    Raises:
        InputError: the checkpoint does not exist.
    """
    if ckpt is None:
        return None
    last = ckpt_dir / "last.ckpt"
    best = ckpt_dir / "best.ckpt"
    if ckpt == "auto":  # an early kill may leave only best.ckpt
        return next((str(path) for path in (last, best) if path.is_file()), None)
    if ckpt not in ("last", "best"):
        if not Path(str(ckpt)).is_file():
            raise InputError(
                f"no such checkpoint: {ckpt}; give a file, or last, best or auto with exp_tag=NAME"
            )
        return str(ckpt)
    path = ckpt_dir / f"{ckpt}.ckpt"
    if path.is_file():
        return str(path)
    if last.is_file():
        raise InputError(
            f"ckpt={ckpt}: {ckpt_dir.parent} has not run a validation yet: use ckpt=last"
        )
    raise InputError(
        f"ckpt={ckpt}: {path} does not exist; name the run to resume with exp_tag=NAME, or give a "
        "file"
    )


def check_unused(ckpt_dir: Path) -> None:
    """Check that a new run does not overwrite the checkpoints of another run.

    Raises:
        InputError: the folder contains checkpoints.
    """
    if find_checkpoint("auto", ckpt_dir) is not None:
        raise InputError(
            f"{ckpt_dir} already holds a run's checkpoints: resume that run with ckpt=last, or "
            "choose another exp_tag"
        )


def resume_arguments(run_dir: Path, ckpt_dir: Path, logs_dir: Path) -> str:
    """Return the arguments that resume a run in its folder: `exp_tag=NAME ckpt=last`."""
    run = Path(os.path.abspath(run_dir))
    logs = Path(os.path.abspath(logs_dir))
    usual = logs in run.parents and Path(os.path.abspath(ckpt_dir)) == run / "checkpoints"
    if not usual:  # the user set run_dir or ckpt_dir
        return shlex.quote(f"ckpt={ckpt_dir / 'last.ckpt'}")
    arguments = [f"exp_tag={run.relative_to(logs)}", "ckpt=last"]
    default = os.environ.get("DIR_LOGS", os.path.join(os.environ.get("PROJECT_ROOT", ""), "logs"))
    if logs != Path(os.path.abspath(default)):
        arguments.append(f"logs_dir={logs_dir}")
    return shlex.join(arguments)


def prepare_run_folder(run_dir: Path, ckpt_dir: Path, config: str) -> None:
    """Write the resolved configuration, and remove the temporary files of a killed run.

    Args:
        run_dir: folder of the run.
        ckpt_dir: folder of the checkpoints.
        config: resolved configuration in YAML.
    """
    with atomic_write(run_dir / "config.yaml") as temporary:
        temporary.write_text(config, encoding="utf-8")
    for folder in (run_dir, ckpt_dir):
        for temporary in folder.glob(".*.tmp.*"):
            temporary.unlink()


def remove_empty_folder(folder: Path) -> None:
    """Remove the folder that Hydra created if the run wrote no file into it.

    Args:
        folder: folder of the run.
    """
    with suppress(OSError):
        folder.rmdir()
        # Messages at exit would create the folder again.
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if isinstance(handler, logging.FileHandler):
                root.removeHandler(handler)
