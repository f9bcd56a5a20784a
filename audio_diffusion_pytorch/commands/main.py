# PYTHON_ARGCOMPLETE_OK
"""The installed command: `timbridge VERB ...`, also `python -m audio_diffusion_pytorch VERB ...`."""

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
    "demo": "hear it on a clip that ships, then train a little",
    "render": "make training data from scores",
}
HELP = f"""{NAME} {__version__}: play a recording on another instrument: the melody stays, the timbre changes.

  {NAME} transfer source=flute target=violin input=FILE output=FILE
  {NAME} VERB --help     what the verb takes

{chr(10).join(f"  {verb:12} {text}" for verb, text in VERBS.items())}

Tab-completion in bash and zsh: eval "$(register-python-argcomplete {NAME})"
"""


def main() -> None:
    """Run the verb on the command line."""
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
    """Run a verb's module as `python -m` does, so that processes which Lightning starts can do the same."""
    name = verb.lower()
    if name not in VERBS:
        close = get_close_matches(name, VERBS, 1)
        meant = f"did you mean {NAME} {close[0]}?" if close else f"there are {', '.join(VERBS)}"
        sys.exit(f"error: {NAME} has no verb {verb!r}: {meant}")
    os.environ[INSTALLED_NAME] = NAME
    if name == "train":
        os.environ["DIR_LOGS"] = os.environ.get("DIR_LOGS") or str(Path.cwd() / "logs")
    sys.argv[1:] = arguments
    runpy.run_module(
        f"audio_diffusion_pytorch.commands.{name}", run_name="__main__", alter_sys=True
    )


if __name__ == "__main__":
    main()
