"""Checkpoints: no code in a file is ever run, and a damaged one says that it is."""

import os
import pickle
import zipfile

import pytest
import torch
from conftest import ODD_NAME, examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.trainer import AtomicCheckpointIO
from audio_diffusion_pytorch.utils.checkpoint_io import (
    load_checkpoint,
    load_tensor,
    save_checkpoint,
)

CONTENT = {
    "state_dict": {"weight": torch.arange(2000.0)},
    "loops": {"step": 3, "names": ["a", None, 1.5]},
}


class Malice:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / ODD_NAME
    folder.mkdir()
    return folder / "epoch=03.ckpt"


def test_plain_containers_and_tensors(path):
    torch.save(CONTENT, path)
    content = load_checkpoint(path)
    assert (
        torch.equal(content["state_dict"]["weight"], torch.arange(2000.0))
        and content["loops"] == CONTENT["loops"]
    )


@pytest.mark.parametrize("load", [load_checkpoint, load_tensor])
def test_code_is_not_run(load, path, tmp_path):
    for legacy in (False, True):
        torch.save(
            {"state_dict": Malice(tmp_path / "harm")},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(
            InputError, match=r"Python objects|not a checkpoint|as a tensor"
        ) as caught:
            load(path)
        assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    path.write_bytes(pickle.dumps(Malice(tmp_path / "harm")))
    with pytest.raises(InputError):
        load(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("load", [load_checkpoint, load_tensor])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + b"\0" * 100])
def test_files_that_are_something_else(load, content, path):
    with pytest.raises(InputError, match="no such"):
        load(path)
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_any_cut_is_noticed(path):
    torch.save(CONTENT, path)
    good = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(good[: int(len(good) * share)])
        with pytest.raises(InputError, match="is damaged"):
            load_checkpoint(path)


def test_the_newest_good_one_is_named(path):
    for age, name in enumerate(["newest", "old", "oldest"]):
        torch.save(CONTENT, path.with_name(f"{name}.ckpt"))
        os.utime(path.with_name(f"{name}.ckpt"), (1e9 - age, 1e9 - age))
    path.with_name("newest.ckpt").write_bytes(b"damaged, too")
    path.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"is damaged.*: the newest good one beside it is .*old\.ckpt"
    ) as caught:
        load_checkpoint(path)
    assert "oldest" not in str(caught.value)
    for name in ("old", "oldest"):
        path.with_name(f"{name}.ckpt").unlink()
    with pytest.raises(InputError, match=r"is damaged.*use another one, none beside it is good"):
        load_checkpoint(path)


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=8))
def test_damage_is_noticed(position, value, path):
    save_checkpoint(CONTENT, path)
    good = path.read_bytes()
    start = int(position * (len(good) - 8))
    damaged = good[:start] + value + good[start + len(value) :]
    path.write_bytes(damaged)
    try:
        content = load_checkpoint(path)
    except InputError:
        assert damaged != good
        return
    assert damaged == good or start + len(value) > len(good) - 14  # the checksum's mark itself
    assert torch.equal(content["state_dict"]["weight"], torch.arange(2000.0))


def test_damage_of_the_directory_is_noticed(path):
    save_checkpoint(CONTENT, path)
    good = path.read_bytes()
    for start in range(good.rindex(b"PK\x01\x02"), len(good)):
        path.write_bytes(good[:start] + bytes([good[start] ^ 1]) + good[start + 1 :])
        if start < len(good) - 14 or start >= len(good) - 8:
            with pytest.raises(InputError, match="is damaged"):
                load_checkpoint(path)


def test_torch_reads_what_training_writes(path):
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    assert path.read_bytes()[-14:].startswith(b"crc32:")
    for mmap in (False, True):
        content = torch.load(path, mmap=mmap, weights_only=True)
        assert torch.equal(content["state_dict"]["weight"], CONTENT["state_dict"]["weight"])
        assert torch.equal(
            load_checkpoint(path, mmap=mmap)["state_dict"]["weight"],
            CONTENT["state_dict"]["weight"],
        )


def test_a_checksum_that_does_not_match(path):
    torch.save(CONTENT, path)
    with zipfile.ZipFile(path) as archive:
        entry = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged .*\(.*data/0\)"):
        load_checkpoint(path)


def test_other_contents(path):
    torch.save(torch.zeros(3), path)
    assert load_tensor(path).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="holds a Tensor"):
        load_checkpoint(path)
    torch.save({"a": 1}, path)
    with pytest.raises(InputError, match="holds a dict, not a tensor"):
        load_tensor(path)
    torch.save(torch.zeros(3, 1, dtype=torch.float64), path)
    assert load_tensor(path).dtype == torch.float32
