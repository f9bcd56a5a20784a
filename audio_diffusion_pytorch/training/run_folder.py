"""The run's folder, what it can be resumed from, and what goes wrong in it."""

import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write, lock


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made; the system frees it when this process ends, however it ends.

    In the end it is removed where nothing has been written into it.

    Raises:
        InputError: another run is in there; the message names it.
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
        os.register_at_fork(
            after_in_child=file.close
        )  # a loader's process that outlives this one holds no lock
    with file:
        if not lock(file):
            file.seek(0)
            raise InputError(
                f"another run ({file.read().strip() or 'just started'}) is at work in {folder}: wait until it has "
                "ended, or choose another exp_tag"
            )
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                if list(folder.iterdir()) == [path]:
                    if os.name == "nt":  # where no open file can be removed
                        file.close()
                    path.unlink()
                    folder.rmdir()


def find_checkpoint(ckpt: str | None, ckpt_dir: Path) -> str | None:
    """The file to resume from: `ckpt` itself, or what last, best or auto mean in the run's folder.

    auto is last.ckpt, best.ckpt where an early kill left only that, and None (a new run) where there is neither.

    Raises:
        InputError: it is not there.
    """
    if ckpt == "auto":
        found = [
            ckpt_dir / name for name in ("last.ckpt", "best.ckpt") if (ckpt_dir / name).is_file()
        ]
        return str(found[0]) if found else None
    if ckpt is None:
        return None
    if ckpt not in ("last", "best"):
        if not Path(str(ckpt)).is_file():
            raise InputError(
                f"no such checkpoint: {ckpt}; give a file, or last, best or auto with exp_tag=NAME"
            )
        return str(ckpt)
    path = ckpt_dir / f"{ckpt}.ckpt"
    if not path.is_file():
        if (ckpt_dir / "last.ckpt").is_file():
            raise InputError(
                f"ckpt={ckpt}: {ckpt_dir.parent} has had no validation yet: use ckpt=last"
            )
        raise InputError(
            f"ckpt={ckpt}: there is no {path}; name the run to resume with exp_tag=NAME, or give a file"
        )
    return str(path)


def check_unused(ckpt_dir: Path) -> None:
    """Fail where a run from elsewhere would write over another one's checkpoints.

    Raises:
        InputError: there are some.
    """
    found = find_checkpoint("auto", ckpt_dir)
    if found is not None:
        raise InputError(
            f"another run's checkpoints are in {ckpt_dir}: resume it with ckpt=last, or choose another exp_tag"
        )


def resume_arguments(run_dir: Path, ckpt_dir: Path, logs_dir: Path) -> str:
    """What to add to a run's command, so that it goes on in the same folder: "exp_tag=NAME ckpt=last"."""
    run, logs = (Path(os.path.abspath(path)) for path in (run_dir, logs_dir))
    usual = logs in run.parents and Path(os.path.abspath(ckpt_dir)) == run / "checkpoints"
    if not usual:  # run_dir or ckpt_dir was given
        return shlex.quote(f"ckpt={ckpt_dir / 'last.ckpt'}")
    arguments = [f"exp_tag={run.relative_to(logs)}", "ckpt=last"]
    default = os.environ.get("DIR_LOGS", os.path.join(os.environ.get("PROJECT_ROOT", ""), "logs"))
    if logs != Path(os.path.abspath(default)):
        arguments.append(f"logs_dir={logs_dir}")
    return shlex.join(arguments)


def prepare_run_folder(run_dir: Path, ckpt_dir: Path, config: str) -> None:
    """Write the resolved configuration into the folder, and remove what a killed run left half-written."""
    with atomic_write(run_dir / "config.yaml") as temporary:
        temporary.write_text(config, encoding="utf-8")
    for folder in (run_dir, ckpt_dir):
        for temporary in folder.glob(".*.tmp.*"):
            temporary.unlink()
