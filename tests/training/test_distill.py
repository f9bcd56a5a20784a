"""The distillation of a model by its command, with small models."""

import subprocess

import pytest
import soundfile
from conftest import RATE, TINY_UNET, melody
from runs import losses
from safetensors import safe_open

from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS
from audio_diffusion_pytorch.models.students import load_student
from audio_diffusion_pytorch.pitch.melody_input import MELODY_CHANNELS
from audio_diffusion_pytorch.training.solution_datamodule import Examples


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Recordings of a flute and of a violin."""
    folder = tmp_path_factory.mktemp("sound")
    for seed in range(3):
        for name in ("flute", "violin"):
            soundfile.write(folder / f"{name}_{seed}.wav", melody(2.0, seed=seed), RATE)
    return folder


@pytest.fixture
def flute(tmp_path, make_instrument):
    path = tmp_path / "models" / "flute.safetensors"
    path.parent.mkdir()
    unet = {**TINY_UNET, "num_labels": 2}
    make_instrument(unet=unet, labels=RECORDING_CONDITIONS).save(path)
    return path


@pytest.fixture
def distil(command, flute, make_instrument, codec_file, sound):
    make_instrument("violin", 1).save(flute.with_name("violin.safetensors"))
    return lambda *arguments, codec=(f"codec.name={codec_file}",): command(
        "train.py",
        "exp=distill_small",
        f"teacher={flute}",
        *codec,
        f"dataset_path={sound}",
        f"datamodule.others=[{flute.with_name('violin.safetensors')}]",
        "datamodule.windows=2",
        "datamodule.batch_size=4",
        "datamodule.batches_per_epoch=8",
        "trainer.gpus=0",
        "exp_tag=taught",
        *arguments,
    )


def test_a_student_is_trained_resumed_and_used(distil, flute, transfer, tmp_path):
    result = distil("total_steps=16", "trainer.max_steps=12", "ckpt_every_n_steps=4")
    assert result.code == 0, result.err
    run = tmp_path / "logs" / "taught"
    solved = (run / "solutions.safetensors").stat().st_mtime_ns
    result = distil("total_steps=16", "ckpt=last")
    assert result.code == 0, result.err
    assert (run / "solutions.safetensors").stat().st_mtime_ns == solved
    curve = losses(run)
    assert sorted(curve) == list(range(16)) and all(len(found) == 1 for found in curve.values())
    student = load_student(run / "distill_small.safetensors")
    assert student.spec.steps == 16 and student.spec.name == "flute"
    assert student.spec.sigmas == pytest.approx((4 / 1.5, 6.0))
    # The advice of the command puts the student beside its model.
    advice = next(line for line in result.out.splitlines() if line.startswith("use it:"))
    subprocess.run(advice.removeprefix("use it:"), shell=True, check=True)
    soundfile.write(tmp_path / "in.wav", melody(0.5), RATE)
    violin = flute.with_name("violin.safetensors")
    files = f"input={tmp_path / 'in.wav'}", f"output={tmp_path / 'out.wav'}"
    ends = f"source={flute}", f"target={violin}"
    result = transfer(*ends, *files, "quality=instant", "num_steps=null")
    assert result.code == 0, result.err
    assert "no solver is fitted to violin for" in result.out  # not to the flute


def test_the_student_starts_as_the_teacher_and_learns(distil, flute, tmp_path):
    result = distil("total_steps=40", "model.lr=2e-3", "model.ema_beta=0.9", "seed=1")
    assert result.code == 0, result.err
    run = tmp_path / "logs" / "taught"
    curve = [values[0] for _, values in sorted(losses(run).items())]
    assert sum(curve[-8:]) < 0.8 * sum(curve[:8])
    with safe_open(run / "solutions.safetensors", "pt") as file:
        parts = {name: file.get_tensor(f"train.{name}") for name in Examples._fields}
    assert len({len(part) for part in parts.values()}) == 1 and parts["data"].shape[1:] == (128, 64)
    assert set(parts["direction"].tolist()) == {0, 1} and parts["melody"].shape[1] == 0
    assert 4 / 1.5 <= parts["sigma"].min() < parts["sigma"].max() <= 6


def test_the_student_learns_the_guidance_by_the_label(distil, flute, make_instrument, tmp_path):
    melody = {**TINY_UNET, "melody_channels": MELODY_CHANNELS}
    labels = {"unet": {**melody, "num_labels": 2}, "labels": RECORDING_CONDITIONS}
    make_instrument(label_guidance=2.5, **labels).save(flute)
    says = "flute has a melody input, but violin has none: name other models with"
    assert says in distil("total_steps=4").error()
    make_instrument("violin", 1, **labels).save(flute.with_name("violin.safetensors"))
    result = distil("total_steps=4")
    assert result.code != 0
    assert "includes its label: copy the model of several instruments beside" in result.err
    several = ("flute", "violin", *RECORDING_CONDITIONS)
    both = make_instrument("both", unet={**melody, "num_labels": 4}, labels=several)
    both.save(flute.with_name("all.safetensors"))
    assert distil("total_steps=4").code == 0
    run = tmp_path / "logs" / "taught"
    spec = load_student(run / "distill_small.safetensors").spec
    assert (spec.guidance, spec.label_guidance) == (3.0, 2.5)
    with safe_open(run / "solutions.safetensors", "pt") as file:
        assert weights_digest(flute.with_name("all.safetensors")) in file.metadata()["key"]


@pytest.mark.long
@pytest.mark.parametrize("loss", ["cycle", "splitting"])
def test_other_ways_are_further_losses(distil, tmp_path, loss):
    first = []
    for weight in (0, 1):
        assert distil("total_steps=4", f"model.{loss}={weight}", f"exp_tag=c{weight}").code == 0
        first.append(losses(tmp_path / "logs" / f"c{weight}")[0][0])
    assert first[1] > first[0]


def test_wrong_settings_give_one_line(distil, tmp_path):
    for arguments, says in [
        (["teacher=kazoo"], "unknown instrument 'kazoo'"),
        (["model.to_noise=[0.4,0.1]"], "to_noise"),
        (["model.to_data=[0.9,9.0]"], "to_data"),
        (["datamodule.windows=0"], "datamodule.windows=0"),
        ([f"dataset_path={tmp_path / 'none'}"], "none"),
        (["datamodule.seconds=0.01"], "too little sound"),
    ]:
        assert says in distil("total_steps=4", *arguments).error(), arguments
    other = "codec=small_untrained", "+codec.n_mels=64"
    assert "set codec= to that codec" in distil("total_steps=4", codec=other).error()


def test_a_dry_run_describes_the_run(distil, tmp_path):
    result = distil("dry_run=true")
    assert result.code == 0, result.err
    assert not (tmp_path / "logs" / "taught").exists()
