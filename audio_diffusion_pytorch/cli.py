"""What the commands share before any heavy import: quoting of path arguments, one-line errors."""

import os
import sys
from collections.abc import Callable, Sequence

from audio_diffusion_pytorch.errors import InputError


def quote_paths(argv: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Quote the values of path arguments, because Hydra's grammar refuses `a (1).wav`, `epoch=03.ckpt`, `café.wav`.

    Args:
        argv: arguments as typed.
        keys: names of the arguments that take a path; `+key=` and `++key=` count too.

    Values that are empty, already quoted, `null`, or a list or an interpolation that names no existing file are left alone.
    """
    return [_quote(argument, keys) for argument in argv]


def _quote(argument: str, keys: Sequence[str]) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in keys or value in ("", "null", "???"):
        return argument
    if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1 and not os.path.exists(value):
        return argument
    if value.startswith(("[", "${")) and not os.path.exists(value):
        return argument
    # In Hydra's quoted strings a backslash escapes only before a quote (and itself at the end), `$` begins `${`.
    value = value.replace("\\'", "\\\\'").replace("'", "\\'").replace("${", "\\${")
    if value.endswith("\\"):
        value += "\\"
    return f"{key}='{value}'"


def run_command(function: Callable[[], None]) -> None:
    """Call `function`; an `InputError` becomes one line on stderr and exit status 1, Ctrl-C exit status 130."""
    try:
        function()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
