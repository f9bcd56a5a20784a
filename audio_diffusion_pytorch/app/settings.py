"""Settings of the page, checked before torch and Gradio are imported."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_number, check_switch, check_text, wrong

FIRST_PORT = 7860
PORTS = 100  # ports that are tried
NUMBERS = ("max_minutes", "max_megabytes", "max_waiting", "keep_minutes", "live_minutes")


@dataclass(frozen=True)
class AppSettings:
    """Settings of the page, see `configs/app.yaml`.

    Args:
        port: port of the page; None: the first free one.
        host: address that the page listens on.
        browser: open the page in the browser.
        root_path: path below which a reverse proxy serves the page; empty: none.
        users: name and password of each user; empty: no login.
        share: open a public link through Gradio's servers.
        models: folder of run folders and exported models.
        logs: folder of trainings.
        devices: devices; each transfers one recording at a time.
        max_minutes: longest recording.
        max_megabytes: largest upload.
        max_waiting: transfers that wait for a device.
        keep_minutes: time after the last use until the files of a visitor are deleted.
        live_minutes: length of a live session after which it ends if another visitor waits.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    browser: bool = True
    root_path: str = ""
    users: tuple[tuple[str, str], ...] = ()
    share: bool = False
    models: Path = Path("logs")
    logs: Path = Path("logs")
    devices: tuple[str, ...] = ("auto",)
    max_minutes: float = 60
    max_megabytes: float = 500
    max_waiting: int = 20
    keep_minutes: float = 120
    live_minutes: float = 10

    @classmethod
    def from_arguments(cls, values: Mapping[str, Any]) -> AppSettings:
        """Check the arguments of `app.py`.

        Args:
            values: argument -> value, as in `configs/app.yaml`.

        Raises:
            InputError: an argument is wrong, or the file of users cannot be read.
        """
        check_number("port", values["port"], whole=True, least=1, most=65535, allowed=(None,))
        for key in ("browser", "share"):
            check_switch(key, values[key])
        for key in ("host", "models", "logs"):
            check_text(key, values[key])
        for key in ("root_path", "auth"):
            check_text(key, values[key], allowed=(None,))
        for key in NUMBERS:
            check_number(key, values[key], whole=key == "max_waiting", above=0)
        return cls(
            port=values["port"],
            host=values["host"],
            browser=values["browser"],
            root_path=_root_path(values["root_path"]),
            users=() if values["auth"] is None else read_users(Path(values["auth"])),
            share=values["share"],
            models=Path(values["models"]),
            logs=Path(values["logs"]),
            devices=_devices(values["device"]),
            **{key: values[key] for key in NUMBERS},
        )


def _root_path(value: str | None) -> str:
    """Return `/a/b` for `a/b/`."""
    parts = (value or "").strip("/")
    return f"/{parts}" if parts else ""


def _devices(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or isinstance(value, Mapping):
        raise wrong("device", value, "a device or a list of devices")
    for name in names:
        check_text("device", name)
    return tuple(names)


def read_users(path: Path) -> tuple[tuple[str, str], ...]:
    """Read the users of the page.

    Args:
        path: text file with a line NAME:PASSWORD for each user; empty lines and lines that begin
            with # are ignored.

    Raises:
        InputError: the file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read auth={path}: give a text file with a line NAME:PASSWORD for each user"
        ) from error
    users = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise InputError(f"auth={path}: line {number} must have the form NAME:PASSWORD")
        users.append((name, password))
    if not users:
        raise InputError(f"auth={path} names no user: add a line NAME:PASSWORD for each user")
    return tuple(users)


def choose_port(host: str, port: int | None) -> int:
    """Return the requested port, or the first free one from 7860.

    Args:
        host: address that the page listens on.
        port: requested port; None: any.

    Raises:
        InputError: the requested port, or every tried port, is in use; or the address is wrong.
    """
    if port is not None:
        if not _is_free(host, port):
            raise InputError(
                f"port={port} is in use: choose another one, or leave port out for a free one"
            )
        return port
    for candidate in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(host, candidate):
            return candidate
    raise InputError(
        f"ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are in use: choose one with port=NUMBER"
    )


def _is_free(host: str, port: int) -> bool:
    """Return whether a server can listen on a port."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(
            f"host={host} is not an address of this machine: use 127.0.0.1 or 0.0.0.0"
        ) from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError as error:
            raise InputError(
                f"port={port} needs administrator's rights: use one from 1024"
            ) from error
        except OSError:
            return False
    return True


def check_gradio() -> None:
    """Check that Gradio and websockets are installed.

    Raises:
        InputError: one of them is missing; the message has the command that installs it.
    """
    missing = [name for name in ("gradio", "websockets") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the page needs {' and '.join(missing)}: pip install 'timbridge[app]', in a clone "
            "'.[app]'"
        )
