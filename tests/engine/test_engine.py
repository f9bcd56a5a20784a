"""Arguments of the engines, and results of jobs without models."""

import pytest

from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.engine.options import RayOptions, SlurmOptions
from audio_diffusion_pytorch.engine.task import Calls
from audio_diffusion_pytorch.errors import InputError


@pytest.mark.parametrize(
    ("values", "engine"),
    [
        ({}, Engine()),
        ({"workers": 3}, Engine(3)),
        ({"engine": "ray", "ray": {"actors": 2}}, Engine(1, RayOptions(actors=2))),
        ({"engine": "slurm", "ray": {"actors": 2}}, Engine(1, SlurmOptions())),
    ],
)
def test_arguments_that_are_missing_have_defaults(values, engine):
    assert Engine.from_arguments(values) == engine
    assert engine.is_this_process == (engine == Engine())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engine": "rey"}, "engine=rey must be one of local, ray, slurm; did you mean ray?"),
        ({"workers": 0}, "workers=0 must be a whole number"),
        ({"engine": "ray", "workers": 2}, "workers is for engine=local: use ray.actors"),
        ({"ray": 2}, "ray=2 must be given as ray.NAME=VALUE"),
        ({"ray": {"addr": "auto"}}, "option of ray=addr must be one of address"),
        ({"ray": {"cpus": 0}}, "ray.cpus=0 must be"),
        ({"slurm": {"shards": 0}}, "slurm.shards=0 must be"),
        ({"slurm": {"cluster": "pbs"}}, "slurm.cluster=pbs must be one of slurm, local"),
        ({"slurm": {"parameters": 1}}, "slurm.parameters=1 must be given as +slurm.parameters"),
    ],
)
def test_wrong_arguments(values, says):
    with pytest.raises(InputError) as error:
        Engine.from_arguments(values)
    assert str(error.value).startswith(says)


def inverse(number: float) -> float:
    if number == 0:
        raise InputError("no inverse of 0")
    return 1 / number


def test_results_of_jobs(tmp_path):
    task = Calls(inverse, {"a": 1, "b": 2})
    assert Engine().results(task, ["a", "b"], "inverting", "number", tmp_path) == {"a": 1, "b": 0.5}
    assert Engine().results(task, [], "inverting", "number", tmp_path) == {}


def test_failed_jobs_are_named_after_the_others(tmp_path):
    numbers = iter([0, 4, 0])
    task = Calls(lambda _: inverse(next(numbers)), dict.fromkeys("abc"))
    with pytest.raises(InputError, match=r"^2 of 3 numbers failed: no inverse of 0; no inverse"):
        Engine().results(task, [*"abc"], "inverting", "number", tmp_path)
    assert next(numbers, None) is None
