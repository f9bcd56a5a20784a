"""Files of version 0.1.0: today's commands resume, load, skip and reuse them.

`tests/golden/before_rooms` was written by the commands of that version, with tiny models on a tiny
codec.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import DATA
from safetensors.torch import load_file

from audio_diffusion_pytorch import load_instrument
from audio_diffusion_pytorch.evaluation import tasks
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint

CLASSIFIER = "0df1a12b6f3317b49454ad07"  # digest of that version's

SETTINGS = [  # as that version trained
    *("exp=flute_small", "octaves=null", "codec.name=codec.safetensors", "length=4800"),
    *("model.model.in_channels=16", "model.model.channels=2", "model.model.multipliers=[1,1]"),
    *("model.model.factors=[2]", "model.model.num_blocks=[1]", "model.model.attentions=[0,0]"),
    *("model.model.resnet_groups=2", "trainer.gpus=0", "datamodule.num_workers=0"),
    *("callbacks.samples=null", "callbacks.preview=null", "datamodule.batch_size=2"),
    *("datamodule.cache=true", "log_every_n_steps=1", "ckpt_every_n_steps=1", "exp_tag=run"),
]


@pytest.fixture
def old(tmp_path) -> Path:
    """A copy of the files, with the times that the records of transfers hold."""
    folder = tmp_path / "old"
    shutil.copytree(DATA / "before_rooms", folder)
    for record in (folder / "out" / ".transfer").glob("*.json"):
        content = json.loads(record.read_text())
        for place, key in (("data", "input"), ("out", "output")):
            file = folder / place / record.name.removesuffix(".json")
            assert file.stat().st_size == content[key][0]
            os.utime(file, ns=(content[key][1], content[key][1]))
    return folder


@pytest.fixture
def here(old, command, monkeypatch):
    """Runs a command in the folder of the old files."""
    monkeypatch.chdir(old)
    monkeypatch.setenv("DIR_LOGS", str(old))
    return command


def test_an_export_and_a_checkpoint_load(old, monkeypatch):
    monkeypatch.chdir(old)
    with pytest.warns(UserWarning, match="only 2 steps"):
        exported = load_instrument("models/flute.safetensors")
        saved = load_instrument("run/checkpoints/last.ckpt")
    assert exported.spec == saved.spec and exported.spec.network == "unet"
    weights = saved.denoiser.state_dict()
    for key, value in exported.denoiser.state_dict().items():
        assert torch.equal(value, weights[key].half().float()), key


def test_training_resumes_and_reads_the_old_cache(here, old):
    cached = {file: file.stat().st_mtime_ns for file in (old / "cache").rglob("*.safetensors")}
    result = here("train.py", *SETTINGS, "dataset_path=data", "ckpt=last", "trainer.max_steps=4")
    assert result.code == 0, result.err
    assert "other settings" not in result.err
    resumed = load_file(old / "run" / "flute_small.safetensors")
    expected = load_file(old / "models" / "flute_4_steps.safetensors")  # resumed by that version
    torch.testing.assert_close(
        resumed, expected, rtol=1e-3, atol=1e-4
    )  # other processors round otherwise
    after = {file: file.stat().st_mtime_ns for file in (old / "cache").rglob("*.safetensors")}
    assert cached and after == cached


def test_finished_transfers_are_skipped(here, old):
    outputs = {file: file.read_bytes() for file in (old / "out").glob("*.flac")}
    result = here(
        "transfer.py",
        *("source=models/flute.safetensors", "target=models/violin.safetensors"),
        *("input=data/flute_*.flac", "output=out", "num_steps=2", "device=cpu"),
        *("listen=false", "transpose=0"),
    )
    assert result.code == 0, result.err
    assert "3 already finished" in result.out
    assert {file: file.read_bytes() for file in (old / "out").glob("*.flac")} == outputs


def test_stored_scores_are_reused(here, old, monkeypatch):
    monkeypatch.setattr(tasks, "SCORES_VERSION", 3)  # a later version has a further score
    monkeypatch.setattr(tasks, "SYSTEMS_VERSION", 5)  # later, moved outputs have other levels
    digest_of = tasks.digest_of
    monkeypatch.setattr(  # a later version has another classifier
        tasks,
        "digest_of",
        lambda model: CLASSIFIER if isinstance(model, InstrumentClassifier) else digest_of(model),
    )
    result = here(
        "evaluate.py",
        *("pairs=[flute-violin]", "data=data", "models=models", "output=results"),
        *("embedder=codec.safetensors", "seconds=0.5", "num_steps=2", "solver=euler", "sigma=4"),
        *("cycle_clips=0", "report_clips=0", "clips=1", "references=[identity]", "transpose=0"),
        "device=cpu",
    )
    assert result.code == 0, result.err
    assert "2 of 2 scores found" in result.out


def test_old_targets_in_a_users_configuration_train(here, old, first_import):
    result = here(
        "train.py",
        *SETTINGS,
        *("dataset_path=data", "ckpt=last", "trainer.max_steps=3"),
        "model._target_=audio_diffusion_pytorch.module.InstrumentModule",
        "model.model._target_=audio_diffusion_pytorch.unet.UNet1d",
        "datamodule.dataset._target_=audio_diffusion_pytorch.dataset.InstrumentDataset",
    )
    assert result.code == 0, result.err
    assert load_checkpoint(old / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
    for name in ("module", "unet", "dataset"):
        told = f"audio_diffusion_pytorch.{name} moved to"
        assert result.err.count(told) + result.out.count(told) <= 1
    assert "audio_diffusion_pytorch.training.instrument_module" in result.err
