"""Settings: every wrong value is refused with the same wording."""

import math
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils import settings


def refusal(check, *arguments, **limits) -> str:
    with pytest.raises(InputError) as caught:
        check(*arguments, **limits)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "limits", "expected"),
    [
        (0, dict(whole=True, least=1), "n=0 must be a whole number of at least 1"),
        (1.5, dict(whole=True, least=1), "n=1.5 must be a whole number of at least 1"),
        (True, dict(whole=True, least=1), "n=true must be a whole number of at least 1"),
        (0, dict(above=0), "n=0 must be a number above 0"),
        ("high", dict(above=0), "n=high must be a number above 0"),
        (math.inf, dict(above=0), "n=inf must be a number above 0"),
        (math.nan, {}, "n=nan must be a number"),
        (2, dict(least=0, most=1), "n=2 must be a number from 0 to 1"),
        (2, dict(above=0, most=1), "n=2 must be a number above 0 and at most 1"),
        (2, dict(most=1), "n=2 must be a number of at most 1"),
        ([], dict(above=0), "n=[] must be a number above 0"),
        (None, dict(above=0), "n=null must be a number above 0"),
        (
            True,
            dict(whole=True, least=-5, most=5, allowed=("auto", None)),
            "n=true must be a whole number from -5 to 5, or auto, or null",
        ),
    ],
)
def test_wrong_numbers(value, limits, expected):
    assert refusal(settings.check_number, "n", value, **limits) == expected


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (1, dict(whole=True, least=1)),
        (np.int64(3), dict(whole=True, most=3)),
        (np.float32(0.5), dict(above=0, most=1)),
        (3, dict(above=0)),
        ("auto", dict(whole=True, allowed=("auto",))),
        (None, dict(allowed=(None,))),
    ],
)
def test_right_numbers(value, limits):
    settings.check_number("n", value, **limits)


def test_switches():
    settings.check_switch("s", False)
    settings.check_switch("s", "auto", ("auto",))
    assert refusal(settings.check_switch, "s", "no") == "s=no must be true or false"
    assert refusal(settings.check_switch, "s", 1, ("auto",)) == "s=1 must be true or false, or auto"
    assert refusal(settings.check_switch, "s", None) == "s=null must be true or false"


def test_choices():
    names = ("heun", "euler")
    settings.check_choice("solver", "heun", names)
    settings.check_choice("solver", None, names, (None,))
    said = refusal(settings.check_choice, "solver", "huen", names, (None,))
    assert said == "solver=huen must be one of heun, euler, or null; did you mean heun?"
    said = refusal(settings.check_choice, "solver", ["heun"], names)
    assert said == "solver=[heun] must be one of heun, euler"


def test_texts_and_single_values():
    settings.check_text("t", "a")
    settings.check_text("t", None, (None,))
    settings.check_single("t", "a")
    for value, shown in (("", ""), (" ", " "), (7, "7"), ({"flute": None}, "{flute: null}")):
        said = refusal(settings.check_text, "t", value)
        assert said == f"t={shown} must be a text that is not empty"
    pair = OmegaConf.create(["a", 1])
    assert refusal(settings.check_single, "t", pair) == "t=[a, 1] must be a single value"
    assert refusal(settings.check_single, "t", {"a": True}) == "t={a: true} must be a single value"


def test_the_checks_import_no_torch():
    code = "import sys, audio_diffusion_pytorch.utils.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
