"""Command lines as typed: the name of the command, wrong flags, and the settings of each verb."""

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import CONFIGS, EXPERIMENTS

NAME = "timbridge"
INSTALLED_NAME = "TIMBRIDGE_COMMAND"  # environment variable, set by the installed command
# Environment variable with `typed` of the verb, for the help texts in configs/.
AS_TYPED = "COMMAND_AS_TYPED"
CONFIG_OF = {
    "train": "config",
    "transfer": "transfer",
    "evaluate": "evaluate",
    "live": "live",
    "app": "app",
}
SCRIPTS = {
    "demo": "scripts/demo.py",
    "render": "scripts/render_dataset.py",
}  # of a clone; the others: VERB.py
EXAMPLES = {
    "train": "exp=flute_small dataset_path=FOLDER",
    "transfer": "source=flute target=violin input=FILE output=FILE",
    "evaluate": "pairs=[flute-violin] data=FOLDER",
    "live": "source=flute target=violin",
    "app": "port=8000",
}


def typed(verb: str) -> str:
    """Return the command line of a verb: `timbridge train`, or `python train.py` in a clone."""
    installed = os.environ.get(INSTALLED_NAME)
    return f"{installed} {verb}" if installed else f"python {SCRIPTS.get(verb, f'{verb}.py')}"


def settings_of(verb: str) -> dict[str, str]:
    """Return the top-level settings of a verb's configuration and their default values."""
    text = (CONFIGS / f"{CONFIG_OF[verb]}.yaml").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\w+): *([^\n#]*?) *(?:#.*)?$", text, re.MULTILINE))
    return {key: value for key, value in found.items() if key not in ("defaults", "hydra")}


def check_arguments(argv: Sequence[str], verb: str, parser: argparse.ArgumentParser) -> None:
    """Refuse flags and words, because settings have the form key=value.

    Args:
        argv: arguments as typed.
        verb: verb of the command.
        parser: parser of Hydra's own flags.

    Raises:
        InputError: an argument is a flag or a word; the message shows the right form of the first.
    """
    flags = parser._option_string_actions
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        flag, equals, value = argument.partition("=")
        if flag in flags:
            if not equals and flags[flag].nargs is None and arguments:
                arguments.pop(0)  # the flag's value
        elif flag.startswith("-") and not any(known.startswith(flag) for known in flags):
            if not equals and arguments and not arguments[0].startswith("-"):
                value = arguments[0]
            raise InputError(
                f"arguments have the form key=value: {_as_setting(flag, value, verb)}, not {flag}"
            )
        elif not equals and not flag.startswith(("-", "~")):
            raise InputError(
                f"{argument!r}: arguments have the form key=value: "
                f"{typed(verb)} {EXAMPLES[verb]}; see --help"
            )


def fold_experiments(argv: Sequence[str]) -> list[str]:
    """Write the names of shipped experiments in lower case: `exp=Flute_Small` -> `exp=flute_small`.

    Args:
        argv: arguments as typed.

    Returns:
        The arguments; names of other experiments remain.
    """
    shipped = {path.stem for path in EXPERIMENTS.glob("*.yaml")}

    def folded(argument: str) -> str:
        key, _, value = argument.partition("=")
        names = value.split(",")
        known = (
            key == "exp"
            and not shipped.issuperset(names)
            and shipped.issuperset(map(str.lower, names))
        )
        return argument.lower() if known else argument

    return [folded(argument) for argument in argv]


def _as_setting(flag: str, value: str, verb: str) -> str:
    """Write a flag as a setting: `--Source Flute` -> `source=Flute`."""
    settings = settings_of(verb)
    key = flag.lstrip("-").replace("-", "_").lower()
    if key not in settings and "." not in key:
        beginning = [name for name in settings if name.startswith(key)]
        key = (beginning or get_close_matches(key, settings, 1) or [key])[0]
    if not value:
        value = "true" if settings.get(key) in ("true", "false") else "VALUE"
    return shlex.quote(f"{key}={value}")


def hydra_parser(verb: str) -> argparse.ArgumentParser:
    """Make Hydra's parser of its own flags, with the command's name.

    Python 3.14 checks help texts when they are added. Hydra 1.3 fails this check, because one of
    its help texts is an object that is converted later, so the check is switched off meanwhile.

    Args:
        verb: verb of the command.

    Returns:
        The parser.
    """
    from hydra._internal.utils import get_args_parser

    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is not None:
        argparse.ArgumentParser._check_help = lambda *_: None  # type: ignore[attr-defined]
    try:
        parser = get_args_parser()
    finally:
        if check is not None:
            argparse.ArgumentParser._check_help = check  # type: ignore[attr-defined]
    parser.prog = typed(verb)
    return parser
