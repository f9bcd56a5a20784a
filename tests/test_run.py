"""The run's folder, and checkpoints that do not fit the run."""

import pytest
import torch
from conftest import ODD_NAME
from torch import nn

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.run import check_fits, check_resumable, prepare_run_folder


class Module(nn.Linear):
    def __init__(self, codec: str = "small", width: int = 2):
        super().__init__(width, 1)
        self.codec = type("Codec", (), {"name": codec})


def save(path, **content):
    torch.save({"state_dict": Module().state_dict(), "optimizer_states": [], "loops": {}, **content}, path)
    return path


def test_the_configuration_is_written_and_leftovers_go(tmp_path):
    run = tmp_path / ODD_NAME
    prepare_run_folder(run, run / "checkpoints", "name: né\n")
    (run / "checkpoints").mkdir()
    for name in (".last.123.tmp.ckpt", "last.ckpt"):
        (run / "checkpoints" / name).touch()
    prepare_run_folder(run, run / "checkpoints", "name: new\n")
    assert (run / "config.yaml").read_text(encoding="utf-8") == "name: new\n"
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        prepare_run_folder(tmp_path / "file" / "run", tmp_path / "checkpoints", "")


def test_what_can_be_resumed_from(tmp_path):
    path = save(tmp_path / "a.ckpt", instrument={"codec": "small"})
    shapes, codec = saved = check_resumable(str(path))
    assert codec == "small" and shapes == {"weight": (1, 2), "bias": (1,)}
    check_fits(saved, Module(), str(path))
    check_fits(check_resumable(str(save(tmp_path / "b.ckpt"))), Module("encodec"), "b.ckpt")
    with pytest.raises(InputError, match="trained on the codec small, not on encodec"):
        check_fits(saved, Module("encodec"), str(path))
    with pytest.raises(InputError, match=r"1 tensors differ, for example weight, \[1, 2\] there, \[1, 3\] here"):
        check_fits(saved, Module(width=3), str(path))
    with pytest.raises(InputError, match=r"for example extra, \[1\] there, absent here"):
        check_fits(({**shapes, "extra": torch.Size([1])}, None), Module(), str(path))


def test_what_cannot_be_resumed_from(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        check_resumable(str(tmp_path / "none.ckpt"))
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="no optimiser state"):
        check_resumable(str(tmp_path / "a.ckpt"))
