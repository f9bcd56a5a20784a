"""Fitted solvers: the file beside a model, the choice by hand-off level, unusable files."""

import json
import warnings
from dataclasses import asdict, replace

import pytest
from conftest import TINY_UNET

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import (
    FORMAT,
    FittedSchedule,
    FittedSchedules,
    schedules_file,
    weights_digest,
)
from audio_diffusion_pytorch.models.loading import load_instrument

UP = FittedSchedule(
    "flute", "to_noise", "unipc", 5.0, (5.0, 2.0, 0.6, 0.2, 0.1), 4, 0.08, 0.2, {"windows": 6}
)
DOWN = replace(UP, direction="to_data", sigmas=(5.0, 1.5, 0.5, 0.2, 0.05))
HIGH = replace(DOWN, sigma=9.0, sigmas=(9.0, 1.5, 0.5, 0.2, 0.05))


@pytest.fixture
def model_file(tmp_path, make_instrument):
    path = tmp_path / "flute.safetensors"
    make_instrument("flute").save(path)
    FittedSchedules(weights_digest(path), (UP, DOWN, HIGH)).save(schedules_file(path))
    return path


def warned_loading(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_instrument(path)
    return model, [str(one.message) for one in caught]


def test_schedules_lie_beside_the_model_and_load_with_it(model_file):
    assert schedules_file(model_file).name == "flute.schedules.json"
    model, warned = warned_loading(model_file)
    assert model.fitted.schedules == (UP, DOWN, HIGH) and model.file == model_file
    assert warned == []


def test_a_model_without_the_file_has_none(model_file):
    schedules_file(model_file).unlink()
    assert warned_loading(model_file)[0].fitted is None


def test_other_metadata_keep_the_schedules_and_other_weights_do_not(model_file, make_instrument):
    make_instrument("flute", handoff_sigma=3.0).save(model_file)  # the same weights
    assert load_instrument(model_file).fitted is not None
    make_instrument("flute", seed=1).save(model_file)
    model, warned = warned_loading(model_file)
    assert model.fitted is None
    assert len(warned) == 1 and "other weights" in warned[0] and "fit_schedule.py" in warned[0]


def test_one_instrument_of_several_keeps_the_schedules(tmp_path, make_instrument):
    path = tmp_path / "two.safetensors"
    several = make_instrument(
        "two", labels=("flute", "violin"), unet={**TINY_UNET, "num_labels": 2}
    )
    several.save(path)
    FittedSchedules(weights_digest(path), (UP,)).save(schedules_file(path))
    for name, expected in (("flute", UP), ("violin", None)):
        model = load_instrument(f"{path}:{name}")
        assert model.fitted.find(model.spec.name, "to_noise", "unipc", 5, 5.0) == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        json.dumps({"format": "another", "model": "", "schedules": []}),
        json.dumps({"format": FORMAT, "model": "", "schedules": [{"sigma": 1}]}),
        *(
            json.dumps(
                {"format": FORMAT, "model": "", "schedules": [{**asdict(UP), "sigmas": sigmas}]}
            )
            for sigmas in ([5.0], [1.0, 2.0], [5.0, -1.0], [5.0, 5.0], [4.0, 1.0], "abc", None)
        ),
        json.dumps(
            {"format": FORMAT, "model": "", "schedules": [{**asdict(UP), "direction": "up"}]}
        ),
    ],
)
def test_a_damaged_file_is_named_once_and_ignored(content, model_file):
    path = schedules_file(model_file)
    path.write_text(content)
    with pytest.raises(InputError, match="fit them again"):
        FittedSchedules.load(path)
    model, warned = warned_loading(model_file)
    assert model.fitted is None and len(warned) == 1 and str(path) in warned[0]


def test_the_nearest_hand_off_level_is_chosen_and_scaled():
    def find(sigma, direction="to_data", solver="unipc", num_steps=5, instrument="flute"):
        return FittedSchedules("", (UP, DOWN, HIGH)).find(
            instrument, direction, solver, num_steps, sigma
        )

    assert find(5.0) is DOWN and find(9.0) is HIGH and find(5.0, "to_noise") is UP
    scaled = find(6.0)
    assert scaled.sigmas[0] == scaled.sigma == 6.0 and scaled.sigmas[-1] == DOWN.sigmas[-1]
    assert all(new > old for new, old in zip(scaled.sigmas[:-1], DOWN.sigmas[:-1], strict=True))
    assert find(8.0).sigmas[1] < HIGH.sigmas[1]
    assert find(3.0) is None and find(14.0) is None  # too far from 5 and 9
    assert find(5.0, solver="heun") is None and find(5.0, num_steps=9) is None
    assert find(5.0, instrument="violin") is None


def test_a_schedule_replaces_the_one_with_its_key():
    better = replace(DOWN, error=0.01)
    assert FittedSchedules("", (UP, DOWN)).with_schedule(better).schedules == (better, UP)
