"""Path arguments survive Hydra's parser whatever they are; errors and warnings are one line."""

import os
import subprocess
import sys

import pytest
from conftest import ODD_NAME, ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from audio_diffusion_pytorch.cli import one_line, quote_paths, run_command
from audio_diffusion_pytorch.errors import InputError

PARSER = OverridesParser.create()
NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30
)
SPECIAL = st.text("\\'\"${}=&()[] ,:;#!aé\n\t", min_size=1, max_size=12)


def parsed(argument: str, keys=("input", "exp_tag")) -> object:
    """The value that a configuration ends up with."""
    (quoted,) = quote_paths([argument], keys)
    override = PARSER.parse_override(quoted)
    return OmegaConf.create({"value": override.value()}).value


@given(NAMES | SPECIAL, st.sampled_from(["input=", "+input=", "++input="]))
@example("epoch=03.ckpt", "input=")
@example("a (1).wav", "+input=")
@example("it's.wav", "input=")
@example("C:\\", "input=")
@example("\\'", "input=")
@example("a${b}", "input=")
@example("~", "input=")
@example("{:#}", "input=")
@example("{a: b}", "input=")
@example(ODD_NAME, "input=")
def test_any_path_survives(path, key):
    assume(path not in ("null", "???") and not path.startswith(("[", "${", "~/")))
    assume(not (path[0] in "'\"" and path[-1] == path[0] and len(path) > 1))
    assert parsed(key + path) == path


@pytest.mark.parametrize("name", ["[a]", "${a}", "'quoted'", '"a"'])
def test_what_looks_like_hydra_is_a_path_if_it_exists(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert quote_paths([f"input={name}"], ["input"]) == [f"input={name}"]
    (tmp_path / name).touch()
    assert parsed(f"input={name}") == name


def test_a_list_of_what_exists_is_quoted_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a (1).wav", "it's.wav", "b=c"]
    argument = f"input=[{','.join(names)}]"
    assert quote_paths([argument], ["input"]) == [argument]
    for name in names:
        (tmp_path / name).touch()
    assert parsed(argument) == names


@pytest.mark.parametrize(
    "argument",
    ["input=", "input=null", "input=???", "other=a (1)", "input", "--cfg", "input='a b'"],
)
def test_everything_else_is_left_alone(argument):
    assert quote_paths([argument], ["input"]) == [argument]


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/né")
    assert parsed("input=~/a b.wav") == "/home/né/a b.wav"


def run_and_catch(function, *errors) -> object:
    with pytest.raises(SystemExit) as stop:
        run_command(function, errors)
    return stop.value.code


def failing(error: BaseException):
    def fail():
        raise error

    return fail


def test_errors_end_the_command_with_one_line():
    assert run_and_catch(failing(InputError("no such file: a\nb"))) == "error: no such file: a b"
    assert run_and_catch(failing(KeyboardInterrupt())) == 130
    with pytest.raises(KeyError):  # a defect is no usage error: its traceback is wanted
        run_command(failing(KeyError("a")))
    message = run_and_catch(failing(FileNotFoundError(2, "No such file", "né")), OSError)
    assert message.startswith("error: cannot use né: No such file")
    run_command(lambda: None)


def test_a_loader_workers_traceback_is_cut():
    text = (
        "Caught InputError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "a.py", line 1\n'
        "audio_diffusion_pytorch.errors.InputError: cannot read a.wav: empty\n"
    )
    assert one_line(InputError(text)) == "cannot read a.wav: empty"


def test_warnings_are_one_line_and_noise_is_none():
    code = (
        "import warnings\n"
        "from audio_diffusion_pytorch.cli import plain_warnings\n"
        "plain_warnings()\n"
        "warnings.warn('2 files skipped')\n"
        "warnings.warn('old', FutureWarning)\n"
        "warnings.warn('Found 99 module(s) in eval mode at the start of training.')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "warning: 2 files skipped\n")


@pytest.mark.parametrize(
    ("command", "overrides", "says"),
    [
        (
            "config",
            ["exp=flute_small", "batch_size=4"],
            "batch_size; did you mean datamodule.batch_size?",
        ),
        ("config", ["exp=flute_small", "trainr=cpu"], "trainr; did you mean trainer?"),
        (
            "config",
            ["exp=flute_small", "trainer.min_steps=1"],
            "(+trainer.min_steps=VALUE passes on what the",
        ),
        ("config", ["exp=flute_small", "nothing.alike=1"], "nothing.alike; see "),
        ("transfer", ["sorce=a"], "sorce; did you mean source?"),
        ("evaluate", ["codec.wights=a"], "codec.wights; did you mean codec.weights?"),
    ],
)
def test_a_setting_that_is_not_there(command, overrides, says, monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    with (
        initialize_config_dir(str(ROOT / "configs"), version_base="1.3"),
        pytest.raises(HydraException) as error,
    ):
        compose(command, overrides)
    message = one_line(error.value)
    assert message.startswith("no such setting: ") and says in message and "append" not in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("double_bass_small", "; another instrument: exp=flute_small instruments=[double bass]"),
        ("viola_latent", "; another instrument: exp=flute_latent instruments=[viola]"),
        ("flut_small", "; did you mean exp=flute_small?"),
        ("something", "violin_small"),
    ],
)
def test_an_experiment_that_is_not_there(name, says, monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", str(ROOT))
    with (
        initialize_config_dir(str(ROOT / "configs"), version_base="1.3"),
        pytest.raises(HydraException) as error,
    ):
        compose("config", [f"exp={name}"])
    assert one_line(error.value).endswith(says)


def test_a_mapping_of_paths_is_left_to_hydra():
    argument = "models={flute: flute, cello: logs/my_cello}"
    assert quote_paths([argument], ["models"]) == [argument]
