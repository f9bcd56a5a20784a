"""Students: written beside a model, read again, and ignored where they do not fit."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_UNET, damage

from audio_diffusion_pytorch.models.fitted_schedules import weights_digest
from audio_diffusion_pytorch.models.labels import RECORDING_CONDITIONS
from audio_diffusion_pytorch.models.loading import load_instrument, shipped_instruments
from audio_diffusion_pytorch.models.students import (
    StudentSpec,
    load_student,
    save_student,
    student_file,
    student_of,
)
from audio_diffusion_pytorch.models.unet import UNet1d


@pytest.fixture
def saved(tmp_path, make_instrument):
    """A model with a student: the model's path, network and metadata of the student."""
    path = tmp_path / "flute.safetensors"
    unet = {**TINY_UNET, "num_labels": 2}
    make_instrument(unet=unet, labels=RECORDING_CONDITIONS).save(path)
    torch.manual_seed(3)
    net = UNet1d(**unet, end_level=True)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(value.half() + 0.01)  # the zeros too
            value.copy_(value.half())
    spec = StudentSpec(
        name="flute",
        teacher=weights_digest(path),
        network="unet",
        unet=net.config,
        sigma_data=1.0,
        levels={"to_noise": (0.4, 0.1), "to_data": (0.9, 0.2)},
        sigmas=(2.0, 9.0),
        labels=RECORDING_CONDITIONS,
        steps=7,
    )
    save_student(student_file(path), spec, net.state_dict())
    return path, net, spec


def test_a_student_is_read_as_it_was_written(saved):
    path, net, spec = saved
    student = student_of(load_instrument(path))
    assert student.spec == spec
    assert student.digest == load_student(student_file(path)).digest
    assert student.spec.schedule("to_noise", 5.0).tolist() == [5.0, 0.4, 0.1]
    assert [spec.covers(sigma) for sigma in (1.9, 2.0, 9.0, 9.1)] == [False, True, True, False]
    x, levels = torch.randn(2, 128, 8), (torch.zeros(2), torch.full((2,), 0.1))
    for direction, label in (("to_noise", 1), ("to_data", 0)):  # varied, plain
        expected = net(x, levels[0], c_end=levels[1], label=torch.full((2,), label))
        found = student.denoisers[direction].net(x, levels[0], c_end=levels[1])
        assert torch.allclose(found, expected, atol=1e-4)


def test_a_model_without_a_student(tmp_path, make_instrument):
    assert student_of(make_instrument()) is None
    make_instrument().save(tmp_path / "flute.safetensors")
    assert student_of(load_instrument(tmp_path / "flute.safetensors")) is None


def test_a_student_of_other_weights_is_not_used(saved, make_instrument):
    path, _, spec = saved
    make_instrument(seed=5).save(path)
    with pytest.warns(UserWarning, match=r"student of other weights than those of flute.safetens"):
        assert student_of(load_instrument(path)) is None
    save_student(student_file(path), replace(spec, teacher=weights_digest(path)), {})
    with pytest.warns(UserWarning, match="the student is not used"):
        assert student_of(load_instrument(path)) is None


def test_a_damaged_student_is_not_used(saved):
    path, *_ = saved
    damage(student_file(path))
    student_file(path).write_bytes(student_file(path).read_bytes()[:100])
    with pytest.warns(UserWarning, match="the student is not used"):
        assert student_of(load_instrument(path)) is None


def test_a_student_is_no_model_of_its_own(saved):
    path, *_ = saved
    assert load_instrument(path.parent).file == path  # its folder: the model, not the student
    assert "students" not in shipped_instruments()
