"""Share code between commands, without heavy imports: quote paths, report errors in one line."""

import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.command_line import (
    AS_TYPED,
    NAME,
    check_arguments,
    hydra_parser,
    typed,
)
from audio_diffusion_pytorch.errors import InputError, Interrupted
from audio_diffusion_pytorch.utils.threads import let_threads_yield

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # as the user set it
_MAPPINGS = ("models",)  # path arguments that may map names to paths
# Warnings of libraries that a user cannot act on.
_NOISE = (
    r"Found \d+ module\(s\) in eval mode",  # the averaged weights
    ".*does not have many workers",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "Checkpoint directory .* exists and is not empty",
    # The datamodule skips seen samples.
    "You're resuming from a checkpoint that ended before the epoch ended",
    "The dirpath has changed from",
    "Experiment logs directory .* exists",
    "The pynvml package is deprecated",
    "Got pickle error when attempting to start a worker",  # the error has the same text
)


def quote_paths(argv: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Quote path arguments: Hydra's grammar refuses `a (1).wav`, `epoch=03.ckpt` and `café.wav`.

    The function keeps values that are empty, quoted or `null`, interpolations that are not the name
    of a file, `models={name: path}`, and lists with an element that does not exist.

    Args:
        argv: arguments as typed.
        keys: names of the arguments with a path, also as `+key=` and `++key=`.

    Returns:
        The arguments for Hydra.
    """
    return [_quote(argument, keys) for argument in argv]


def _quote(argument: str, keys: Sequence[str]) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in keys or value in ("", "null", "???"):
        return argument
    if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1 and not os.path.exists(value):
        return argument
    if value.startswith("[") and value.endswith("]") and not os.path.exists(value):
        parts = value[1:-1].split(",")
        listed = all(os.path.exists(part) for part in parts)
        return f"{key}=[{','.join(map(_quoted, parts))}]" if listed else argument
    # other settings are never mappings, and `{:#}` may be the name of a file
    mapping = (
        key.lstrip("+") in _MAPPINGS
        and value.startswith("{")
        and value.endswith("}")
        and ":" in value
    )
    if (value.startswith(("[", "${")) or mapping) and not os.path.exists(value):
        return argument
    # a shell expands ~ at the beginning of a word only
    if value.startswith("~/") and not os.path.exists(value):
        value = os.path.expanduser(value)
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    # OmegaConf reads `\${` as `${`, and Hydra's quoted strings read `\'` as `'`: double the
    # backslashes before both.
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    value = re.sub(r"(\\+)\Z", r"\1\1", value)
    return f"'{value}'"


def start(
    main: Callable[[], None], path_keys: Sequence[str], usage_errors: tuple[type[Exception], ...]
) -> None:
    """Run the Hydra entry point of a command on the command line as typed.

    Args:
        main: entry point in a module of `commands`.
        path_keys: names of the arguments with a path, see `quote_paths`.
        usage_errors: exceptions of a wrong command line or configuration, besides `InputError`.
    """
    verb = main.__module__.rpartition(".")[2]
    if {"--version", "-V"} & set(sys.argv[1:]):
        print(f"{NAME} {__version__}")
        return
    run_command(lambda: check_arguments(sys.argv[1:], verb, hydra_parser(verb)))
    hydra_main: Any = sys.modules["hydra.main"]
    hydra_main.get_args_parser = partial(hydra_parser, verb)
    os.environ[AS_TYPED] = typed(verb)
    let_threads_yield()
    sys.argv[1:] = quote_paths(sys.argv[1:], path_keys)
    plain_warnings()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may not be UTF-8
    threading.excepthook = _thread_error
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing several lines
    run_command(main, usage_errors)


def run_command(
    function: Callable[[], object], usage_errors: tuple[type[Exception], ...] = ()
) -> None:
    """Call a function, and turn its errors into one line on stderr and an exit status.

    Args:
        function: the function.
        usage_errors: exceptions to report like `InputError`.

    Raises:
        SystemExit: 1 after an `InputError`, 130 after Ctrl-C, 128 + N after another signal N that
            raised `Interrupted`.
    """
    try:
        function()
    except (InputError, *usage_errors) as error:  # type: ignore[misc]  # mypy rejects the star
        if TRACEBACKS:
            raise
        sys.exit(f"error: {one_line(error)}")
    except (KeyboardInterrupt, Interrupted) as interrupt:
        if str(interrupt):
            print(f"\ninterrupted: {interrupt}", file=sys.stderr)  # below the progress bar
        sys.exit(128 + getattr(interrupt, "signal", signal.SIGINT))


@contextmanager
def ending_on_terminate() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted` inside the block, so that `finally` runs.

    A second SIGTERM ends the process.
    """

    def stop(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number, "terminated")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _thread_error(arguments: threading.ExceptHookArgs) -> None:
    # TensorBoard's writer raises OSErrors again in the main thread
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)


def one_line(error: Exception) -> str:
    """Reduce an error to one line, without torch's traceback of a worker and Hydra's listings.

    Args:
        error: the error.

    Returns:
        The message.
    """
    if isinstance(error, OSError) and error.strerror and error.filename:
        remedy = "check the path, its permissions and the space left"
        return f"cannot use {error.filename}: {error.strerror}; {remedy}"
    text = str(error).rpartition("InputError: ")[2].partition("\nConfig search path")[0]
    text = _unknown_setting(text, error) or text.partition("\n    full_key:")[
        0
    ] + _other_experiment(text)
    if "Could not find 'hydra/launcher/" in text:
        text += (
            "; install the launchers with pip install hydra-joblib-launcher hydra-submitit-launcher"
        )
    return " ".join(text.split())


def _unknown_setting(text: str, error: Exception) -> str | None:
    """Suggest the nearest setting to an unknown one; None for another error."""
    found = re.match(r"Could not override '([^']+)'", text)
    parent = getattr(error.__cause__, "parent_node", None)
    if not found or parent is None:
        return None
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(parent._get_root())
    settings.pop("hydra", None)
    key = found[1]
    there = dict(_settings(settings))
    # `batch_size` may mean `datamodule.batch_size`
    same = [name for name, group in there.items() if not group and name.rpartition(".")[2] == key]
    close = same if len(same) == 1 else get_close_matches(key, there, 1, 0.75)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"see {os.environ.get(AS_TYPED, 'the command')} --help"
    )
    if "_target_" in parent:
        hint += f" (+{key}=VALUE passes on what the configuration does not list)"
    return f"no such setting: {key}; {hint}"


def _settings(node: Mapping, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the dotted name of each setting, and whether the setting is a group."""
    for key, value in node.items():
        yield f"{prefix}{key}", isinstance(value, Mapping)
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")


def _other_experiment(text: str) -> str:
    """Suggest an experiment beside Hydra's list of experiments."""
    found = re.search(r"Could not find 'exp/(\w+)'", text)
    if not found:
        return ""
    options = text.partition("Available options in 'exp':")[2]
    if close := get_close_matches(found[1], options.split(), 1, 0.9):
        return f"; did you mean exp={close[0]}?"
    instrument, _, size = found[1].rpartition("_")
    if not instrument or size not in ("small", "latent"):
        return ""
    return f"; another instrument: exp=flute_{size} instruments=[{instrument.replace('_', ' ')}]"


def plain_warnings() -> None:
    """Print warnings as one line on stderr; hide deprecations inside libraries and other noise."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        print(f"warning: {message}", file=file or sys.stderr, flush=True)

    warnings.showwarning = show
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hides the path of its font list
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
