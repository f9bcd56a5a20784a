"""From a folder of own recordings to a transfer, as in the README, and the dry run before."""

import importlib.util
import re
import shlex

import numpy as np
import pytest
import soundfile
from conftest import ODD_NAME, TINY_SMALL, damage, melody
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audio_diffusion_pytorch import audio


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Mixed formats, rates and channels; one file is damaged, one silent."""
    folder = tmp_path_factory.mktemp("own") / ODD_NAME
    (folder / "more").mkdir(parents=True)
    soundfile.write(folder / "My Flute 1.wav", np.stack([melody(2, 44100)] * 2, 1), 44100)
    soundfile.write(folder / "flute_2.FLAC", melody(3, 48000, seed=1), 48000, format="FLAC")
    soundfile.write(folder / "more" / "flute-3.ogg", melody(2, 22050, seed=2), 22050)
    soundfile.write(folder / "more" / "flute 4.mp3", melody(2, 44100, seed=3), 44100)
    soundfile.write(folder / "flute_silent.wav", np.zeros(48000), 24000)
    (folder / "flute_broken.flac").write_bytes(b"no sound")
    soundfile.write(folder / "violin.wav", melody(2, 24000), 24000)
    return folder


def test_a_dry_run_tells_what_there_is_and_leaves_nothing(command, own, tmp_path):
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={own}",
        "datamodule.batch_size=4",
        "dry_run=true",
    )
    result = command(
        "train.py",
        *settings,
        "trainer.accumulate_grad_batches=2",
        "total_steps=100",
        "exp_tag=dry",
        "sign=1",
        "datamodule.cache=true",
        "octaves=null",
    )
    assert result.code == 0, result.err
    lines = dict(line.split(":", 1) for line in result.out.splitlines() if line[0] != " ")
    lines = {key: value.strip() for key, value in lines.items()}
    assert (
        lines["files"].startswith("5 (2 x wav, 1 x ")
        and "11.0 s in total, 2.0 s to 3.0 s each" in lines["files"]
    )
    assert "2 x 44100 Hz" in lines["rates"] and "1 x 22050 Hz" in lines["rates"]
    assert lines["unreadable"].startswith("1 by header, 0 of 20 probed crops")
    assert lines["silent"].startswith("20% of the readable crops of 0.4 s")
    assert lines["split"].startswith("4 files (") and ", 1 (" in lines["split"]
    assert lines["steps"].startswith(
        "8 per epoch, batch 4 x 2 accumulated, 16 crops of each file; 100 in total (12.5 ep"
    )
    assert (
        "0.1 M parameters" in lines["model"]
        and "activations" in lines["memory"]
        and "free in" in lines["disk"]
    )
    megabytes = float(re.search(r"([\d.]+) MB for latents in", result.out)[1])
    # Beside the latents each file has a header and a tail of silence.
    assert megabytes == pytest.approx(
        (9 * 4 * 6 + 2) * 75 * 130 * 2 / 1e6, rel=0.15
    )  # 4 variations of 6 pitches
    assert not {"config.yaml", "checkpoints", "tensorboard", "mean.pt"} & {
        p.name for p in tmp_path.glob("logs/dry/*")
    }


def test_a_dry_run_names_a_flac_file_with_a_damaged_middle(command, tmp_path):
    for index in range(3):
        soundfile.write(tmp_path / f"flute_{index}.flac", melody(4, seed=index), 24000)
    whole = (tmp_path / "flute_0.flac").read_bytes()
    damage(tmp_path / "flute_0.flac")
    (tmp_path / "Floete.flac").write_bytes(whole)
    result = command(
        "train.py", "exp=flute_small", *TINY_SMALL, f"dataset_path={tmp_path}", "dry_run=true"
    )
    assert result.code == 0, result.err
    assert re.search(
        r"unreadable: 0 by header, [1-7] of 20 probed crops: flute_0.flac",
        result.out,
    )
    assert "left out:   1 of other instruments, by name: Floete.flac" in result.out


def test_a_dry_run_of_silence_is_an_error(command, tmp_path):
    for index in range(2):
        soundfile.write(tmp_path / f"flute_{index}.wav", np.zeros(24000), 24000)
    settings = ("exp=flute_small", *TINY_SMALL, f"dataset_path={tmp_path}", "dry_run=true")
    error = command("train.py", *settings).error()
    assert f"nothing to train on in {tmp_path}: of 20 probed crops, 20 are silent" in error


def test_a_dry_run_warns_of_too_little_memory(command, own):
    settings = ("exp=flute_small", *TINY_SMALL, f"dataset_path={own}", "dry_run=true", "length=240")
    result = command("train.py", *settings, "datamodule.batch_size=4")
    assert result.code == 0 and "of memory" not in result.err and "crops of 0.01 s" in result.out
    result = command("train.py", *settings, "datamodule.batch_size=100000000")
    assert result.code == 0, result.err
    assert (
        "GB of memory, and the device has" in result.err
        and "lower datamodule.batch_size" in result.err
    )


def test_from_own_recordings_to_a_transfer(command, own, tmp_path):
    """Train, listen to the preview, and run the command that the end of training prints."""
    tiny = [argument for argument in TINY_SMALL if not re.search("preview|octaves", argument)]
    settings = (
        "exp=flute_small",
        *tiny,
        f"dataset_path={own}",
        "datamodule.batch_size=4",
        "exp_tag=mine",
    )
    preview = (
        "callbacks.preview.every_n_validations=1",
        "callbacks.preview.num_steps=3",
        "callbacks.preview.seconds=1",
    )
    result = command("train.py", *settings, *preview, "trainer.max_steps=2", "log_every_n_steps=2")
    assert result.code == 0, result.err
    assert "measuring the flute as noise: 100%" in result.err
    run = tmp_path / "logs/mine"
    events = EventAccumulator(
        str(next((run / "tensorboard").glob("events*"))), size_guidance={"audio": 0}
    ).Reload()
    tags = events.Tags()
    assert {f"preview/flute_to_violin/{part}" for part in ("input", "output")} <= set(
        tags["audio"]
    ) & set(tags["images"])
    assert (
        "config/text_summary" in tags["tensors"]
        and "_hparams_/session_start_info" in events.summary_metadata
    )
    lines = dict(line.split(":", 1) for line in result.out.splitlines() if ":" in line)
    assert lines["best"].strip().startswith("valid_loss ") and lines["best"].endswith(
        str(run / "checkpoints/best.ckpt")
    )
    python, script, *arguments = shlex.split(lines["transfer"])
    assert (python, script, arguments[1]) == ("python", "transfer.py", "target=violin")
    recording = own / "more" / "flute 4.mp3"
    arguments = [
        a.replace("=FILE.wav", "=as violin.wav").replace("=FILE", f"={recording}")
        for a in arguments
    ]
    result = command(script, *arguments, "num_steps=3")
    assert result.code == 0, result.err
    (said,) = [line for line in result.err.splitlines() if "trained for" in line]
    assert said.startswith(f"warning: {run} was trained for only 2 steps: ")
    header, written = audio.info(recording), audio.info("as violin.wav")
    assert (written.frames, written.sample_rate) == (header.frames, header.sample_rate)
    assert OmegaConf.load(run / "config.yaml").exp_tag == "mine"


@pytest.mark.long
def test_one_recording_trains(command, tmp_path):
    soundfile.write(tmp_path / "flute.mp3", melody(5, 44100), 44100)
    result = command(
        "train.py",
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={tmp_path}",
        "trainer.max_steps=1",
    )
    assert result.code == 0 and "1 training files: an epoch reads 256 crops" in result.out, (
        result.err
    )


def test_a_logger_that_is_not_installed(command, own):
    if importlib.util.find_spec("wandb"):
        pytest.skip("Weights & Biases is installed")
    settings = ("exp=flute_small", *TINY_SMALL, f"dataset_path={own}", "loggers=many")
    error = command("train.py", *settings).error()
    assert "WandbLogger" in error and "wandb" in error and "pip install" in error


def test_a_preview_that_cannot_be(command, own, instruments):
    tiny = [argument for argument in TINY_SMALL if "preview" not in argument]
    settings = ("exp=flute_small", *tiny, f"dataset_path={own}", "datamodule.batch_size=4")
    assert (
        "unknown instrument 'none'"
        in command("train.py", *settings, "callbacks.preview.other=none").error()
    )
    assert (
        "no such audio file"
        in command("train.py", *settings, "callbacks.preview.clip=none.wav").error()
    )
