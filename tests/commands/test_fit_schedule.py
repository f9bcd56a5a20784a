"""scripts/fit_schedule.py: fits, continues, repeats, and refuses, with small models."""

import pytest
import soundfile
from conftest import RATE, melody

from audio_diffusion_pytorch.models.fitted_schedules import schedules_file
from audio_diffusion_pytorch.models.loading import load_instrument

SCRIPT = "scripts/fit_schedule.py"


@pytest.fixture
def flute(tmp_path, make_instrument):
    path = tmp_path / "flute.safetensors"
    make_instrument("flute").save(path)
    return path


@pytest.fixture
def fit(command, flute, instruments, tmp_path):
    """The command for a flute and a violin, one evaluation, and short recordings."""
    data = tmp_path / "data"
    data.mkdir()
    for seed in range(2):
        for name in ("flute", "violin"):
            soundfile.write(data / f"{name}_{seed}.wav", melody(1.0, seed=seed), RATE)

    def run(*arguments: str, model=flute):
        given = "--others", str(instruments[1]), "--data", str(data), "--windows", "1"
        counts = "--evaluations", "1", "--device", "cpu"
        return command(SCRIPT, *((str(model),) if model else ()), *given, *counts, *arguments)

    return run


def test_the_command_fits_both_directions_and_continues(fit, flute, transfer, tmp_path):
    result = fit("--dry-run")
    assert result.code == 0 and "2 of 2 fits" in result.out
    assert "flute to_noise, sigma 4, 1 evaluations" in result.out
    assert not schedules_file(flute).exists()

    result = fit()
    assert result.code == 0 and result.out.count(": error ") == 2, result.err
    first = load_instrument(flute).fitted
    assert [one.direction for one in first.schedules] == ["to_data", "to_noise"]
    assert first.schedules[0].fitted_on["others"] == ["violin"]

    assert "0 of 2 fits" in fit().out  # nothing is repeated
    assert "1 of 1 fits" not in fit("--sigmas", "4", "--dry-run").out
    result = fit("--sigmas", "4", "5", "--dry-run")
    assert "2 of 4 fits" in result.out and "sigma 5" in result.out  # only the new level
    assert load_instrument(flute).fitted == first

    # A transfer uses the levels and says so; the violin has none.
    soundfile.write(tmp_path / "in.wav", melody(0.5), RATE)
    files = f"input={tmp_path / 'in.wav'}", f"output={tmp_path / 'out.wav'}"
    given = f"source={flute}", *files, "quality=instant", "num_steps=2"
    result = transfer(*given, "sigma=4")
    assert result.code == 0, result.err
    assert "no solver is fitted to violin for" in result.out
    result = transfer(*given, "sigma=9", "overwrite=true")  # too far from 4
    assert "no solver is fitted to flute and violin for" in result.out


def test_wrong_arguments_give_one_line(fit, tmp_path, flute):
    for arguments, says in [
        (("--evaluations", "0"), "--evaluations=0 must be"),
        (("--sigmas", "-1"), "--sigmas=-1"),
        (("--sigmas", "40"), "sigma=40 lies outside"),
        (("--windows", "0"), "--windows=0"),
        (("--device", "toaster"), "device=toaster"),
        (("--others", "kazoo"), "unknown instrument 'kazoo'"),
        (("--data", str(tmp_path / "missing")), "--data"),
    ]:
        assert says in fit(*arguments).error()
    assert not schedules_file(flute).exists()


def test_a_checkpoint_is_not_a_model_to_fit(command, tmp_path, monkeypatch, make_instrument):
    from audio_diffusion_pytorch.models import loading

    monkeypatch.setattr(loading, "load_instrument", lambda *_: make_instrument("flute"))
    assert "export it first" in command(SCRIPT, "flute", "--device", "cpu").error()


def test_an_export_fits_the_written_model(command, flute, tmp_path, monkeypatch):
    from audio_diffusion_pytorch.commands import fit_schedule

    asked = []
    monkeypatch.setattr(fit_schedule, "fit_models", asked.append)
    output, folder = tmp_path / "out.safetensors", tmp_path / "data"
    export = "scripts/export_model.py", flute, output
    assert command(*export).code == 0 and not asked
    assert command(*export, "--fit-schedules").code == 0
    assert command(*export, "--fit-schedules", folder).code == 0
    assert [(one.models, one.data) for one in asked] == [
        ([str(output)], []),
        ([str(output)], [folder]),
    ]
