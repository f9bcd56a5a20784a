# PYTHON_ARGCOMPLETE_OK
"""The installed command: `timbridge VERB ...` or `python -m audio_diffusion_pytorch VERB ...`."""

import os
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

from audio_diffusion_pytorch import __version__
from audio_diffusion_pytorch.command_line import INSTALLED_NAME, NAME

VERBS = {
    "transfer": "play a recording on another instrument",
    "train": "train a model on your own recordings",
    "evaluate": "score transfers",
    "live": "play from a microphone to a loudspeaker",
    "app": "open a page in the browser that does transfers",
    "demo": "transfer a shipped clip, then train for a few steps",
    "render": "render training data from scores",
}
HELP = f"""{NAME} {__version__}: play a recording on another instrument.

The melody stays, the timbre changes.

  {NAME} transfer source=flute target=violin input=FILE output=FILE
  {NAME} VERB --help     options of the verb

{chr(10).join(f"  {verb:12} {text}" for verb, text in VERBS.items())}

Tab-completion in bash and zsh: eval "$(register-python-argcomplete {NAME})"
"""


def main() -> None:
    """Run the verb of the command line."""
    if "_ARGCOMPLETE" in os.environ:
        from audio_diffusion_pytorch.completion import complete

        complete(VERBS)
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(HELP, end="")
    elif verb in ("--version", "-V"):
        print(f"{NAME} {__version__}")
    else:
        run(verb, arguments)


def run(verb: str, arguments: list[str]) -> None:
    """Run the module of a verb like `python -m`, so that processes of Lightning can repeat it.

    Args:
        verb: name of the verb, in any case.
        arguments: arguments of the verb.
    """
    name = verb.lower()
    if name not in VERBS:
        close = get_close_matches(name, VERBS, 1)
        meant = f"did you mean {NAME} {close[0]}?" if close else f"choose from {', '.join(VERBS)}"
        sys.exit(f"error: unknown verb {verb!r}: {meant}")
    os.environ[INSTALLED_NAME] = NAME
    if name == "train":
        os.environ["DIR_LOGS"] = os.environ.get("DIR_LOGS") or str(Path.cwd() / "logs")
    sys.argv[1:] = arguments
    runpy.run_module(
        f"audio_diffusion_pytorch.commands.{name}", run_name="__main__", alter_sys=True
    )


if __name__ == "__main__":
    main()
