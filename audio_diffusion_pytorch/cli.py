"""What the commands share before any heavy import: quoting of path arguments, one-line errors and warnings."""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from audio_diffusion_pytorch.errors import InputError, Interrupted

_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # as the user set it
# What libraries say that a user can do nothing about.
_NOISE = (
    r"Found \d+ module\(s\) in eval mode",  # the averaged weights
    ".*does not have many workers",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    "Checkpoint directory .* exists and is not empty",
    "You're resuming from a checkpoint that ended before the epoch ended",  # the datamodule skips what was seen
    "The dirpath has changed from",
    "Experiment logs directory .* exists",
    "The pynvml package is deprecated",
)


def quote_paths(argv: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Quote the values of path arguments, because Hydra's grammar refuses `a (1).wav`, `epoch=03.ckpt`, `café.wav`.

    Args:
        argv: arguments as typed.
        keys: names of the arguments that take a path; `+key=` and `++key=` count too.

    Values that are empty, already quoted or `null`, and interpolations and mappings that name no file, are left alone;
    so are lists unless all their elements are there.
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
    mapping = value.startswith("{") and value.endswith("}") and ":" in value
    if (value.startswith(("[", "${")) or mapping) and not os.path.exists(value):
        return argument
    if value.startswith("~/") and not os.path.exists(value):  # a shell expands it at the beginning of a word only
        value = os.path.expanduser(value)
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    # OmegaConf reads `\${` as `${`, Hydra's quoted strings `\'` as `'`; backslashes before them and at the end double.
    value = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    value = re.sub(r"(\\*)'", r"\1\1\\'", value)
    value = re.sub(r"(\\+)\Z", r"\1\1", value)
    return f"'{value}'"


def start(main: Callable[[], None], path_keys: Sequence[str], usage_errors: tuple[type[Exception], ...]) -> None:
    """Run a command's Hydra entry point `main` on the command line as typed.

    Args:
        path_keys: see `quote_paths`.
        usage_errors: what a wrong command line or configuration raises, besides `InputError`.
    """
    sys.argv[1:] = quote_paths(sys.argv[1:], path_keys)
    plain_warnings()
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: file names need not be UTF-8
    threading.excepthook = _thread_error
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, instead of several lines of its own
    run_command(main, usage_errors)


def run_command(function: Callable[[], None], usage_errors: tuple[type[Exception], ...] = ()) -> None:
    """Call `function`; an `InputError` becomes one line on stderr and exit status 1, Ctrl-C exit status 130.

    Other signals that raise `Interrupted` end it with 128 + their number.
    """
    try:
        function()
    except (InputError, *usage_errors) as error:
        if _TRACEBACKS:
            raise
        sys.exit(f"error: {one_line(error)}")
    except (KeyboardInterrupt, Interrupted) as interrupt:
        if str(interrupt):
            print(f"\ninterrupted: {interrupt}", file=sys.stderr)  # below the progress bar
        sys.exit(128 + getattr(interrupt, "signal", signal.SIGINT))


@contextmanager
def ending_on_terminate() -> Iterator[None]:
    """Inside, SIGTERM raises `Interrupted`, which leaves by the way of `finally`; a second one ends the process."""

    def stop(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number, "terminated")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _thread_error(arguments: threading.ExceptHookArgs) -> None:
    if not issubclass(arguments.exc_type, OSError):  # TensorBoard's writer hands those on to the main thread
        threading.__excepthook__(arguments)


def choose_device(name: str):
    """`auto` (the GPU where there is one), `cpu`, `cuda`, `cuda:1` ... -> torch.device.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.empty(0, device=str(name))
        probe.cpu()  # the device named meta holds nothing
        return probe.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name} cannot be used ({reason}): use cpu, cuda, cuda:1 ... or auto") from error


def one_line(error: Exception) -> str:
    """An error's message without the worker's traceback that torch puts before it, or the listings that Hydra adds."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"cannot use {error.filename}: {error.strerror}; check the path, its permissions and the space left"
    text = str(error).rpartition("InputError: ")[2].partition("\nConfig search path")[0]
    text = text.partition("\n    full_key:")[0]
    if "Could not find 'hydra/launcher/" in text:
        text += '; install the launchers with pip install -e ".[cluster]"'
    return " ".join(text.split())


def plain_warnings() -> None:
    """Warnings as one line on stderr; deprecations inside libraries and other noise not at all."""

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        print(f"warning: {message}", file=file or sys.stderr, flush=True)

    warnings.showwarning = show
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
