"""`train.py`: the command line, and one line for each error."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import (
    ODD_NAME,
    RATE,
    ROOT,
    TINY_MODEL,
    TINY_SMALL,
    melody,
    run_process,
)
from omegaconf import OmegaConf
from runs import losses
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.utils.checkpoint_io import load_checkpoint


def test_the_line_that_users_of_the_original_type(recordings, tmp_path):
    """From another working directory, into a folder of logs with a difficult name."""
    logs = tmp_path / ODD_NAME
    result = run_process(
        "train.py",
        *(
            "exp=flute_latent",
            "trainer.gpus=0",
            "model.lr=1e-4",
            "trainer.precision=32",
            "trainer.max_epochs=1",
        ),
        *(
            "datamodule.batch_size=2",
            "datamodule.num_workers=0",
            f"+dataset_path={recordings}",
            "exp_tag=first=1 (é)",
        ),
        *(
            "codec.weights=random",
            *TINY_MODEL,
            "length=10240",
            "log_every_n_steps=8",
            "callbacks.samples.sampling_steps=[3]",
        ),
        cwd=tmp_path,
        logs=logs,
    )
    assert result.code == 0, result.err
    run = logs / "first=1 (é)"
    assert f"run folder: {run}" in result.out
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"config.yaml", "flute_latent.safetensors", "mean.pt", "std.pt"} <= names
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert not [name for name in names if ".tmp" in name]

    config = OmegaConf.load(run / "config.yaml")
    assert (config.model.lr, config.trainer.precision, config.datamodule.batch_size) == (
        1e-4,
        32,
        2,
    )
    assert config.dataset_path == str(recordings)
    assert set(losses(run)) == set(range(16))
    events = EventAccumulator(
        str(next((run / "tensorboard").glob("events*"))), size_guidance={"audio": 0}
    ).Reload()
    assert events.Tags()["audio"] == events.Tags()["images"] == ["samples/003_steps/0"]
    assert {"valid_loss", "lr-AdamW"} <= set(events.Tags()["scalars"])
    assert (
        load_instrument(run).spec.codec
        == load_instrument(run / "checkpoints" / "last.ckpt").spec.codec
        == "encodec"
    )
    assert not any(
        key.startswith(("codec", "_codec"))
        for key in load_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    )

    noise = (
        "weights_only",
        "WARNING",
        "Warning:",
        "warning:",
        "Traceback",
        "[INFO]",
        "TPU",
        "Tip",
        "site-packages",
        "v_num",
    )
    assert not [
        line
        for line in (result.out + result.err).splitlines()
        if any(word in line for word in noise)
    ]


def test_help_is_quick_and_needs_no_torch(tmp_path):
    for script in ("train.py", "transfer.py"):
        code = (
            "import runpy, sys\n"
            f"sys.argv = [{script!r}, '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
            "finally:\n"
            "    heavy = {'torch', 'pytorch_lightning', 'numpy', 'soundfile'}\n"
            "    assert not heavy & sys.modules.keys()\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0 and f"python {script} " in result.stdout, result.stderr
    assert not list(tmp_path.iterdir())


def test_cfg_shows_what_would_run(command, tmp_path):
    result = command(
        "train.py",
        "--cfg",
        "job",
        "exp=violin_small",
        "trainer=cpu",
        f"ckpt={ODD_NAME}/epoch=03.ckpt",
    )
    config = OmegaConf.create(result.out)
    assert result.code == 0
    assert config.ckpt == f"{ODD_NAME}/epoch=03.ckpt"
    assert (config.instruments, config.trainer.gpus) == (["violin"], 0)
    assert not (tmp_path / "logs").exists()


def test_the_repository_may_lie_under_any_path(tmp_path):
    clone = tmp_path / ODD_NAME
    for name in ("configs", "exp", "audio_diffusion_pytorch"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("assets"))
    shutil.copy(ROOT / "train.py", clone)
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PROJECT_ROOT", "DIR_LOGS")
    }
    result = subprocess.run(
        [
            sys.executable,
            str(clone / "train.py"),
            "--cfg",
            "job",
            "--resolve",
            "exp=flute_small",
            "dataset_path=x",
            "exp_tag=a",
        ],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert OmegaConf.create(result.stdout).run_dir == str(clone / "logs" / "a")


@pytest.mark.parametrize("plain", [False, True])
def test_the_small_codec_trains(command, recordings, tmp_path, plain):
    """With latents that the shipped model of thirteen instruments denoised, and without."""
    result = command(
        "train.py",
        *(
            "exp=codec_small",
            f"dataset_path={recordings}",
            "exp_tag=codec",
            "trainer=cpu",
            "trainer.max_steps=2",
        ),
        *(
            "+codec.dim=16",
            "+codec.intermediate_dim=16",
            "+codec.num_layers=1",
            "datamodule.num_workers=0",
        ),
        *("datamodule.batch_size=2", "log_every_n_steps=2", "length=5120"),
        *(("model.denoised=null", "labels=null", "instruments=null") if plain else ()),
    )
    assert result.code == 0, result.err
    assert (tmp_path / "logs/codec/codec_small.safetensors").is_file()
    assert "parameters are trained, of" in (tmp_path / "logs/codec/train.log").read_text()
    assert set(losses(tmp_path / "logs/codec")) == {0, 1}


# One line for whatever is wrong.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["exp=flut_small", "dataset_path=."],
            "Could not find 'exp/flut_small' Available options in 'exp': all_melody all_small",
        ),
        (["exp=flute_small", "model.learning_rate=1"], "no such setting: model.learning_rate;"),
        (["exp=flute_small", "exp_tga=a"], "no such setting: exp_tga; did you mean exp_tag?"),
        (["exp=oboe_small"], "another instrument: exp=flute_small instruments=[oboe]"),
        (
            ["exp=flute_small", "dataset_path=DATA", "trainer.max_steps=abc"],
            "trainer.max_steps=abc must be a whole",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "dry_run='yes please'"],
            "dry_run=yes please must be true or false",
        ),
        (["exp=flute_small", "dataset_path=DATA", "train=no"], "train=no must be true or false"),
        (
            ["exp=flute_small", "dataset_path=DATA", "ckpt_every_n_steps=0"],
            "ckpt_every_n_steps=0 must be a whole",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "sampling_rate=22050", "trainer.gpus=0"],
            "sampling_rate=22050: the codec works at 24000 Hz",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "ckpt=last", "init_from=flute"],
            "ckpt=last resumes a run and init_from=flute starts a new one: set only one",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "ckpt=lst"],
            "no such checkpoint: lst; give a file, or last, best",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "trainer.max_steps=10001"],
            "takes 10001 steps, but total_steps=10000 is the length of the learning rate's cycle: "
            "set total_steps=",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "trainer.max_steps=10001", "dry_run=true"],
            "takes 10001 steps, but total_steps=10000",
        ),
        (
            ["exp=flute_small", "+model.learning_rate=1", "dataset_path=DATA"],
            "unexpected keyword argument 'learning_rate'",
        ),
        (
            ["exp=flute_small", "trainer=tpu"],
            "Could not find 'trainer/tpu' Available options in 'trainer': cpu ddp ddp_cpu default",
        ),
        (["exp=flute_small", "model.lr=(1"], "Error parsing override 'model.lr=(1'"),
        (["exp=flute_small", "model.lr"], "model.lr"),
        (["exp=flute_small"], "add dataset_path=FOLDER"),
        (["dataset_path=DATA"], "add exp=NAME"),
        (
            ["exp=flute_small", "dataset_path=DATA", "trainer.gpus=99"],
            "trainer.gpus=99, but this machine has",
        ),
        (["exp=flute_small", "dataset_path=DATA", "trainer.precision=33"], "33"),
        (
            ["exp=flute_small", "dataset_path=DATA", "datamodule.batch_size=0"],
            "datamodule.batch_size=0",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "datamodule.valid_split=1.5"],
            "datamodule.valid_split",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "mean_path=nowhere.pt"],
            "both mean_path and std_path",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "mean_path=no.pt", "std_path=no.pt"],
            "no such file of statistics: no.pt",
        ),
        (
            ["exp=flute_small", "dataset_path=DATA", "ckpt=nowhere/epoch=3.ckpt"],
            "no such checkpoint: nowhere/epoch=3.ckpt",
        ),
    ],
)
def test_wrong_arguments(arguments, says, command, recordings):
    given = {argument.split("=")[0] for argument in arguments}
    tiny = (
        [a for a in TINY_SMALL if a.split("=")[0] not in given]
        if "exp=flute_small" in arguments
        else []
    )
    result = command("train.py", *tiny, *(a.replace("DATA", str(recordings)) for a in arguments))
    assert says in result.error()


def test_folders_without_data(train, folder, recordings, tmp_path):
    assert f"no such data set folder: {folder}/none" in train(f"dataset_path={folder}/none").error()
    assert f"in {folder}" in train(f"dataset_path={folder}").error()
    for name in ("trumpet (1).wav", "Trumpet_2.wav", "double-bass.wav", "notes.wav"):
        soundfile.write(folder / name, melody(), RATE)
    error = train(f"dataset_path={folder}").error()
    assert (
        "no file of flute" in error
        and "instruments=null" in error
        and "double bass (1), no known instrument (1), trumpet (2)" in error
    )
    (folder / "flute.wav").write_bytes(b"")
    error = train(f"dataset_path={folder}").error()
    assert (
        "none of the 1 audio files" in error and f"{folder}/flute.wav" in error and "empty" in error
    )
    assert not list((tmp_path / "logs").iterdir())  # a start that is refused leaves no folder


@pytest.mark.parametrize("workers", [0, 1])
def test_silence_is_an_error_and_never_a_hang(workers, train, folder):
    for index in range(5):
        soundfile.write(folder / f"flute_{index}.wav", np.zeros(RATE), RATE)
    result = train(
        f"dataset_path={folder}", f"datamodule.num_workers={workers}", "trainer.max_steps=1"
    )
    assert "no audible crop" in result.error() and str(folder) in result.error()


@pytest.mark.long  # its message: test_silence_is_an_error_and_never_a_hang
def test_an_error_in_the_statistics_ends_the_loaders_process(folder, tmp_path):
    """It ignores the one signal that Python's exit sends before it waits."""
    soundfile.write(folder / "flute.wav", np.zeros(2 * RATE), RATE)
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={folder}",
        "datamodule.num_workers=1",
    )
    result = run_process("train.py", *settings, cwd=tmp_path, logs=tmp_path / "logs", limit=120)
    assert "no audible crop" in result.error()


@pytest.mark.parametrize("workers", [0, 1])
def test_some_bad_files(workers, train, folder, tmp_path):
    """Training goes on with the good ones and names every bad one, once."""
    for index in range(5):
        soundfile.write(folder / f"flute_{index}.wav", melody(seed=index), RATE)
    (folder / "flute_empty.wav").write_bytes(b"")
    (folder / "flute_text.wav").write_text("no sound")
    whole = (folder / "flute_0.wav").read_bytes()
    (folder / "flute_short.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(
        folder / "flute_nan.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT"
    )
    settings = (
        f"dataset_path={folder}",
        f"datamodule.num_workers={workers}",
        "trainer.max_steps=20",
        "exp_tag=a",
    )
    result = train(*settings, "log_every_n_steps=10")
    assert result.code == 0 and "Traceback" not in result.err, result.err
    assert "warning: 2 of 9 files cannot be read and are skipped:" in result.err
    for name in ("empty", "text", "short"):
        assert result.err.count(f"{folder}/flute_{name}.wav") == 1
    assert (
        result.err.count("warning: skipped: ")
        == result.err.count(f"cannot use {folder}/flute_nan.wav")
        == 1
    )
    assert len(losses(tmp_path / "logs/a")) == 20


def test_logs_that_cannot_be_written(train, recordings, tmp_path):
    (tmp_path / "file").write_text("")  # root may write anywhere, but not below a file
    error = train(f"dataset_path={recordings}", f"logs_dir={tmp_path}/file/logs").error()
    assert f"{tmp_path}/file/logs" in error


def test_encodec_without_weights(command, recordings, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    settings = (
        "exp=flute_latent",
        f"dataset_path={recordings}",
        "trainer.gpus=0",
        "datamodule.batch_size=2",
        "length=9600",
    )
    error = command("train.py", *settings).error()
    assert (
        "encodec_24khz-d7cc33bc.th" in error
        and f"{tmp_path}/hub/checkpoints" in error
        and "_small" in error
    )
    (tmp_path / ODD_NAME).mkdir()
    error = command("train.py", *settings, f"codec.repository={tmp_path}/{ODD_NAME}").error()
    assert (
        f"EnCodec's weights not found in {tmp_path}/{ODD_NAME}" in error
        and "encodec_24khz-d7cc33bc.th" in error
    )


def test_without_a_tag_the_run_has_one_folder(command, recordings, tmp_path):
    """The default tag holds the second of the start, though the run looks at it again later."""
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=2",
    )
    result = command("train.py", *settings, "trainer.max_steps=1")
    assert result.code == 0, result.err
    (run,) = (tmp_path / "logs").iterdir()
    assert run.name.startswith("flute_small-20")
    assert {"config.yaml", "flute_small.safetensors"} <= {path.name for path in run.iterdir()}
