"""Register parts by name, also from a user's package: solvers, networks, codecs, metrics."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.settings import check_choice, check_text, wrong

Part = TypeVar("Part")


class Registry(dict[str, Part]):
    """Parts by name; a plain assignment `REGISTRY[name] = part` also registers a part.

    Args:
        kind: singular noun for messages, for example `"solver"`.
        parts: parts of this package.
    """

    def __init__(self, kind: str, parts: Mapping[str, Part] | None = None):
        super().__init__(parts or {})
        self.kind = kind

    def register(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that registers a function or class under a name."""

        def decorator(part: Part) -> Part:
            self[name] = part
            return part

        return decorator

    def find(self, name: Any) -> Part:
        """Return the part of a name.

        Args:
            name: a registered name.

        Raises:
            InputError: no part has this name; the message lists the names, the nearest one at the
                end.
        """
        check_choice(self.kind, name, self)
        return self[name]


def import_plugins(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Import a user's modules, which register their parts when imported.

    Args:
        names: dotted names of modules, or one name.

    Returns:
        The names.

    Raises:
        InputError: a name is not a text, or its module cannot be imported.
    """
    if names is not None and not isinstance(names, Sequence):
        raise wrong("plugins", names, "a list of modules")
    modules = (names,) if isinstance(names, str) else tuple(names or ())
    for name in modules:
        check_text("plugins", name)
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InputError(_import_failure(name, error)) from error
    return modules


def _import_failure(name: str, error: Exception) -> str:
    reason = f"plugins: cannot import {name}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and name.split(".")[0] == error.name:
        reason += "; install the package, or add its parent folder to PYTHONPATH"
    return reason
