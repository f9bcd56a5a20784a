"""The installed command: verbs, the right form of arguments, names without case, tab-completion."""

import getpass
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from audio_diffusion_pytorch import __version__, _name_user
from audio_diffusion_pytorch.command_line import (
    check_arguments,
    fold_experiments,
    hydra_parser,
    settings_of,
    typed,
)
from audio_diffusion_pytorch.commands.main import VERBS
from audio_diffusion_pytorch.completion import candidates
from audio_diffusion_pytorch.errors import InputError

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "basic-pitch-torch")]),
}


def timbridge(*arguments: str, cwd=None, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "audio_diffusion_pytorch", *arguments]
    return subprocess.run(
        command, env={**ENVIRONMENT, **environment}, cwd=cwd, capture_output=True, text=True
    )


def test_version_and_help():
    assert timbridge("--version").stdout == f"timbridge {__version__}\n"
    text = timbridge().stdout
    assert text == timbridge("--help").stdout and all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize(
    ("verb", "says"), [("trasnfer", "did you mean timbridge transfer?"), ("x", "choose from tra")]
)
def test_a_verb_that_is_not_there(verb, says):
    result = timbridge(verb)
    assert result.returncode == 1 and says in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_command_as_it_was_typed_and_imports_no_torch(verb):
    code = (
        "import sys; from audio_diffusion_pytorch.commands.main import main\n"
        f"sys.argv = ['timbridge', '{verb}', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert f"timbridge {verb} " in result.stdout and "python " not in result.stdout


@pytest.mark.parametrize("script", ["train", "transfer", "evaluate"])
def test_scripts_name_themselves(script, command):
    out = command(f"{script}.py", "--help").out
    assert f"  python {script}.py " in out and "timbridge" not in out
    assert command(f"{script}.py", "--version").out == f"timbridge {__version__}\n"


@pytest.mark.parametrize(
    ("verb", "arguments", "says"),
    [
        ("transfer", ["--source", "flute", "target=violin"], "source=flute, not --source"),
        ("transfer", ["--Source=Flute"], "source=Flute, not --Source"),
        ("transfer", ["target=violin", "-o", "a b.wav"], "'output=a b.wav', not -o"),
        ("transfer", ["--dry-run"], "dry_run=true, not --dry-run"),
        ("transfer", ["--targt", "violin"], "target=violin"),
        ("train", ["--datamodule.batch_size", "8"], "datamodule.batch_size=8"),
        ("train", ["--dataset-path"], "dataset_path=VALUE"),
        (
            "transfer",
            ["my.wav"],
            "'my.wav': arguments have the form key=value: python transfer.py source=flute",
        ),
    ],
)
def test_flags_and_words_get_the_right_form(verb, arguments, says):
    with pytest.raises(InputError) as error:
        check_arguments(arguments, verb, hydra_parser(verb))
    assert says in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["source=flute", "+a.b=c", "~codec"],
        ["--cfg", "job", "-m", "exp=a,b"],
        ["-cd", "folder", "--multirun", "--info", "--cfg=job"],
        ["--mult", "input=-o.wav"],
    ],
)
def test_what_hydra_takes_is_left_to_it(arguments):
    check_arguments(arguments, "train", hydra_parser("train"))


def test_a_flag_ends_the_command_with_one_line(command):
    assert (
        command("transfer.py", "--source", "flute").error().endswith("source=flute, not --source")
    )


def test_experiments_match_without_case():
    given = ["exp=Flute_Small,cello_small", "exp=Unknown", "exp_tag=Exp", "-m", "exp=flute_small"]
    assert fold_experiments(given) == ["exp=flute_small,cello_small", *given[1:]]


def test_hydras_parser_names_the_command(monkeypatch):
    """And is made at all, which Python 3.14 refuses without `hydra_parser`."""
    parser = hydra_parser("train")
    assert parser.prog == typed("train") == "python train.py"
    monkeypatch.setenv("TIMBRIDGE_COMMAND", "timbridge")
    assert typed("train") == "timbridge train"


def test_logs_of_the_installed_command(tmp_path):
    arguments = (
        "train",
        "--cfg",
        "job",
        "--resolve",
        "exp=flute_small",
        "dataset_path=x",
        "exp_tag=a",
    )
    environment = {
        key: value for key, value in ENVIRONMENT.items() if key not in ("DIR_LOGS", "PROJECT_ROOT")
    }

    def logs(command: list[str], **more: str) -> str:
        out = subprocess.run(
            command, env={**environment, **more}, cwd=tmp_path, capture_output=True, text=True
        ).stdout
        (line,) = (line for line in out.splitlines() if line.startswith("logs_dir: "))
        (cache,) = (line for line in out.splitlines() if line.startswith("  cache_dir: "))
        folder = line.partition(": ")[2]
        assert cache.partition(": ")[2] == f"{folder}/cache/latents"
        return folder

    installed = [sys.executable, "-m", "audio_diffusion_pytorch", *arguments]
    assert logs(installed, PROJECT_ROOT="/of another project") == f"{tmp_path}/logs"
    assert logs([sys.executable, str(ROOT / "train.py"), *arguments[1:]]) == f"{ROOT}/logs"
    assert logs(installed, DIR_LOGS="/some/logs") == "/some/logs"


@pytest.mark.parametrize(
    ("verb", "prefix", "expected"),
    [
        ("transfer", "so", ["source=", "solver="]),
        ("transfer", "source=fl", ["source=flute"]),
        ("transfer", "target=all:do", ["target=all:double_bass"]),
        ("transfer", "overwrite=", ["overwrite=true", "overwrite=false"]),
        ("evaluate", "quality=d", ["quality=draft"]),
        ("train", "exp=cello_s", ["exp=cello_small"]),
        ("train", "trai", ["train=", "trainer="]),
        ("train", "loggers=t", ["loggers=tensorboard"]),
        ("train", "launcher=s", ["launcher=slurm", "launcher=submitit_local"]),
    ],
)
def test_completion(verb, prefix, expected):
    assert candidates(verb, prefix) == expected


def test_paths_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flute takes").mkdir()
    (tmp_path / "flat[1].wav").touch()
    assert candidates("transfer", "input=fl") == ["input=flat[1].wav", "input=flute takes/"]
    assert candidates("transfer", "input=flat[") == ["input=flat[1].wav"]
    assert candidates("transfer", "source=fl") == [
        "source=flute",
        "source=flat[1].wav",
        "source=flute takes/",
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("timbridge tr", {"transfer", "train"}),
        (
            "timbridge transfer source=fl",
            {"flute "},
        ),  # bash takes what follows the = for a word of its own
        ("timbridge demo --p", {"--play "}),
        ("timbridge render --out", {"--output "}),
    ],
)
def test_the_shell_asks_and_gets_an_answer(line, expected, tmp_path):
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    timbridge(cwd=tmp_path, **asked)
    assert set((tmp_path / "answer").read_text().split("\n")) == expected


def test_settings_are_those_of_the_configuration():
    assert {"source", "target", "sigma", "codec"} <= settings_of("transfer").keys()
    assert settings_of("transfer")["overwrite"] == "false" and "hydra" not in settings_of("train")


def test_a_user_without_an_entry_gets_a_name(monkeypatch):
    import pwd

    def no_entry(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "")  # so that the name is removed again after this test
    _name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"
