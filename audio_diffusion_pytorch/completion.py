"""Complete verbs, settings, values and paths of the installed command, without torch and Hydra."""

import argparse
import glob
import os
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module

from audio_diffusion_pytorch.command_line import CONFIG_OF, settings_of
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.paths import ASSETS, CONFIGS, EXPERIMENTS

# The useful flags of Hydra.
FLAGS = ("--help", "--version", "--cfg", "--multirun", "--config-dir", "--info")
VALUES = {
    "quality": ("instant", "draft", "normal", "high"),
    "solver": ("unipc", "dpmpp_3m", "dpmpp_2m", "heun", "euler"),
    "handoff": ("auto", "plain", "matched"),
    "melody": ("auto", "true", "false"),
    "channels": ("each", "mid"),
    "precision": ("auto", "32", "bf16", "16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "transpose": ("auto", "0", "1", "-1"),
    "ckpt": ("last", "best", "auto"),
}
MODELS = ("source", "target", "init_from")


def complete(verbs: Iterable[str]) -> None:
    """Answer the shell's request in the environment, and end the process."""
    import argcomplete

    parser = argparse.ArgumentParser()
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for verb in verbs:
        if verb in CONFIG_OF:
            command = commands.add_parser(verb)
            for flag in FLAGS[1:]:
                command.add_argument(flag)
            arguments = command.add_argument("arguments", nargs="*")
            completer = partial(_complete_argument, verb)
            arguments.completer = completer  # type: ignore[attr-defined]
        else:
            module = {"demo": "commands.demo", "render": "render.arguments"}[verb]
            made = import_module(f"audio_diffusion_pytorch.{module}").make_parser()
            commands.add_parser(verb, parents=[made], add_help=False)
    argcomplete.autocomplete(parser)


def _complete_argument(verb: str, prefix: str, **_: object) -> list[str]:
    return candidates(verb, prefix)


def candidates(verb: str, prefix: str) -> list[str]:
    """Complete a prefix: `so` -> `source=`, `source=fl` -> `source=flute`, `input=a` -> `input=a/`.

    Args:
        verb: verb of the command.
        prefix: beginning of an argument.

    Returns:
        The possible arguments.
    """
    key, equals, value = prefix.partition("=")
    settings = settings_of(verb)
    if not equals:
        names = [*settings, *(groups() if verb == "train" else ())]
        return [f"{name}=" for name in dict.fromkeys(names) if name.startswith(prefix)]
    plain = key.lstrip("+")
    values = list(values_of(verb, plain, settings))
    if not values or (value and plain in (*MODELS, "ckpt")):
        values += paths(value)
    return [f"{key}={one}" for one in values if one.startswith(value)]


def values_of(verb: str, key: str, settings: Mapping[str, str]) -> Iterable[str]:
    """Return the known values of a setting.

    Args:
        verb: verb of the command.
        key: name of the setting.
        settings: settings of the verb and their defaults.

    Returns:
        The values; empty if any value is possible.
    """
    if key in MODELS:
        shipped = sorted(
            path.stem
            for path in (ASSETS / "instruments").glob("*.safetensors")
            if path.stem != "all"
        )
        return [*shipped, *(f"all:{name.replace(' ', '_')}" for name in PITCH_RANGES)]
    if verb == "train" and (key == "exp" or key in groups()):
        folder = {"exp": EXPERIMENTS, "launcher": CONFIGS / key}.get(key, EXPERIMENTS / key)
        return sorted(path.stem for path in folder.glob("*.yaml"))
    if settings.get(key) in ("true", "false"):
        return ["true", "false"]
    return VALUES.get(key, ())


def groups() -> list[str]:
    """Return the names of the groups of experiments, and `exp` itself."""
    return [
        "exp",
        "launcher",
        *sorted(folder.name for folder in EXPERIMENTS.iterdir() if folder.is_dir()),
    ]


def paths(begin: str) -> list[str]:
    """Return the files and folders whose paths begin with a text; folders end in a slash."""
    found = glob.glob(glob.escape(os.path.expanduser(begin)) + "*")
    return [path + "/" * os.path.isdir(path) for path in sorted(found)]
