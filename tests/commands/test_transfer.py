"""`transfer.py`: the line that users type, on any audio, and one line for whatever is wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ODD_NAME, RATE, melody, run_process

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.models.loading import shipped_instruments


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / ODD_NAME
    path.mkdir()
    soundfile.write(path / "in=1.wav", melody(0.5), RATE)
    return path


def test_the_line_that_users_type(instruments, folder):
    result = run_process(
        "transfer.py",
        *(
            f"source={instruments[0]}",
            f"target={instruments[1]}",
            "input=in=1.wav",
            "output=new (é)/o'ut.flac",
        ),
        *("plot=new (é)/pic,ture.png", "num_steps=3", "sigma=3", "solver=heun"),
        cwd=folder,
        logs=folder,
    )
    assert result.code == 0, result.err
    assert "wrote new (é)/o'ut.flac" in result.out and "wrote new (é)/pic,ture.png" in result.out
    assert "flute -> violin, sigma 3, 0.5 s on cpu: 100%" in result.err
    assert "Warning" not in result.err and "warning" not in result.err
    header = soundfile.info(folder / "new (é)/o'ut.flac")
    assert (header.frames, header.samplerate, header.channels, header.subtype) == (
        RATE // 2,
        RATE,
        1,
        "PCM_16",
    )
    assert (folder / "new (é)/pic,ture.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.rglob("*")} == {
        "in=1.wav",
        "new (é)",
        "o'ut.flac",
        "pic,ture.png",
    }


@pytest.mark.skipif(
    {"flute", "violin"} - set(shipped_instruments()) != set(), reason="no models ship yet"
)
def test_what_ships(command, folder):
    result = command(
        "transfer.py",
        "source=flute",
        "target=violin",
        f"input={folder}/in=1.wav",
        f"output={folder}/out.wav",
    )
    assert result.code == 0, result.err
    wav, rate = soundfile.read(folder / "out.wav")
    assert (
        len(wav) == RATE // 2
        and rate == RATE
        and np.isfinite(wav).all()
        and np.abs(wav).max() > 0.01
    )


@pytest.mark.parametrize(
    ("rate", "channels", "name", "subtype"),
    [
        (8000, 1, "in.wav", "PCM_U8"),
        (11025, 1, "in.ogg", "VORBIS"),
        (44100, 2, "in.mp3", "MPEG_LAYER_III"),
        (48000, 3, "in.flac", "PCM_24"),
        (192000, 2, "in.wav", "FLOAT"),
    ],
)
def test_any_rate_channels_and_format(rate, channels, name, subtype, transfer, folder):
    """The output has the input's rate, channels, length, level and, if possible, sample format."""
    clip = np.stack([melody(0.4, rate, seed=i) * 0.5 for i in range(channels)], 1)
    soundfile.write(folder / name, clip, rate, subtype=subtype)
    result = transfer(f"input={folder}/{name}", f"output={folder}/out.wav")
    assert result.code == 0, result.err
    before, after = soundfile.info(folder / name), soundfile.info(folder / "out.wav")
    assert (after.frames, after.samplerate, after.channels) == (before.frames, rate, channels)
    assert after.subtype == (subtype if subtype in ("PCM_U8", "PCM_24", "FLOAT") else "PCM_16")
    wavs = [
        torch.from_numpy(soundfile.read(folder / n, dtype="float32", always_2d=True)[0].T)
        for n in (name, "out.wav")
    ]
    # The level is that of 50 ms blocks, and the output has other quiet ones: half a dB.
    assert active_rms(wavs[1], rate) == pytest.approx(active_rms(wavs[0], rate), rel=0.05)


def test_it_says_by_how_many_octaves_a_recording_was_moved(transfer, folder):
    given = "quality=draft", "transpose=-2"  # no peak of this output would pass full scale
    result = transfer(*given, f"input={folder}/in=1.wav", f"output={folder}/out.wav")
    assert result.code == 0 and "(moved down 2 octaves)" in result.out, result.err


def test_it_says_where_peaks_would_pass_full_scale(transfer, folder):
    wav = np.random.default_rng(0).standard_normal(RATE)
    square = np.sign(wav)  # as loud as its peaks: what comes out cannot be
    soundfile.write(folder / "loud.wav", square, RATE)
    result = transfer(f"input={folder}/loud.wav", f"output={folder}/out.wav")
    assert (
        result.code == 0
        and "dB softer than the input: its peaks would pass full scale)" in result.out
    ), result.err
    assert np.abs(soundfile.read(folder / "out.wav")[0]).max() <= 1


def test_silence_stays_silence(transfer, folder):
    soundfile.write(folder / "silent.wav", np.zeros(5000), 16000)
    assert transfer(f"input={folder}/silent.wav", f"output={folder}/out.ogg").code == 0
    wav, rate = soundfile.read(folder / "out.ogg")
    # A tone at the codec's silence: nothing but rounding is left.
    assert len(wav) == 5000 and rate == 16000 and np.abs(wav).max() < 1e-6


@pytest.mark.parametrize("seconds", [20, pytest.param(180, marks=pytest.mark.long)])
def test_one_sample_and_many_windows(seconds, transfer, folder):
    for name, clip in (("one", np.ones(1) * 0.5), ("many", np.tile(melody(5.0), seconds // 5))):
        soundfile.write(folder / f"{name}.wav", clip, RATE)
        result = transfer(
            f"input={folder}/{name}.wav", f"output={folder}/{name}.ogg", "batch_size=64"
        )
        assert result.code == 0, result.err
        assert soundfile.info(folder / f"{name}.ogg").frames == len(clip)


def test_dry_run_writes_nothing(transfer, folder):
    result = transfer(f"input={folder}/in=1.wav", f"output={folder}/a/out.wav", "dry_run=true")
    assert (
        result.code == 0
        and "flute -> violin" in result.out
        and "1 windows; would write" in result.out
    )
    assert [path.name for path in folder.iterdir()] == ["in=1.wav"]


def test_a_run_folder_and_a_checkpoint_are_models(make_instrument, transfer, folder):
    run = folder / "epoch=03"
    make_instrument("flute").save(run / "flute_small.safetensors")
    result = transfer(f"source={run}", f"input={folder}/in=1.wav", f"output={folder}/out.wav")
    assert result.code == 0, result.err


# One line for whatever is wrong, and nothing half-written.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["input=DIR/in=1.wav"], "missing: output=..."),
        (["input=DIR/no.wav", "output=DIR/out.wav"], "no such audio file or folder: DIR/no.wav"),
        (
            ["input=DIR", "output=DIR/out.wav"],
            "output=DIR/out.wav is one file, input=DIR may be many",
        ),
        (["input=DIR", "output=DIR"], "output=DIR is the input folder"),
        (
            ["input=DIR/no*.wav", "output=DIR/out"],
            "no audio file (wav, flac, mp3, m4a ...) in DIR/no*.wav",
        ),
        (
            ["input=DIR/*.wav", "output=DIR/out", "format=aiff"],
            "format=aiff must be one of wav, flac, ogg",
        ),
        (["input=DIR/*.wav", "output=DIR/in=1.wav/out"], "cannot write DIR/in=1.wav/out/in=1.wav"),
        (["input=DIR/in=1.wav", "output=DIR/out.aiff"], "must end in .wav, .flac, .ogg"),
        (["input=DIR/in=1.wav", "output=DIR/out"], "must end in .wav, .flac, .ogg"),
        (["input=DIR/in=1.wav", "output=DIR/in=1.wav"], "are the same file"),
        (
            ["input=DIR/in=1.wav", "output=DIR/in=1.wav/out.wav"],
            "cannot write DIR/in=1.wav/out.wav",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "plot=DIR/p.gif"],
            "must end in .png, .pdf, .svg",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "plot=DIR/in=1.wav/p.png"],
            "cannot write DIR/in=1.wav/p.png",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "source=kazoo"],
            "unknown instrument 'kazoo'",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "target=DIR/no.ckpt"],
            "no such checkpoint: DIR/no.ckpt",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "target=DIR/no.safetensors"],
            "model file not found: DIR/no.safetensors",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "target=DIR"],
            "folder DIR does not contain a model",
        ),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=1000"], "sigma=1000"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=much"], "sigma=much"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "num_steps=1"], "num_steps=1"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "num_steps=2.5"], "num_steps=2.5"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "batch_size=0"], "batch_size=0"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "workers=0"], "workers=0"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=[2,1000]"], "sigma=1000"),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=[2,4]", "plot=DIR/p.png"],
            "plot is for one file",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "transpose=up"],
            "transpose=up must be a whole number from -",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "channels=left"],
            "channels=left must be one of each, mid",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "melody=true"],
            "melody=true needs a model with a melody input, and neither flute nor violin has one",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "melody_guidance=low"],
            "melody_guidance=low must be a number of at least 0",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "solver=magic"],
            "solver=magic must be one of heun",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "transpose=true"],
            "transpose=true must be a whole number from -",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "overwrite=no"],
            "overwrite=no must be true or false",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "dry_run=no"],
            "dry_run=no must be true or false",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "report=1"],
            "report=1 must be true or false",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "compile=null"],
            "compile=null must be true or false",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=[]"],
            "sigma=[] must be a number above 0",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=[4,null]"],
            "sigma=null must be a number above 0",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "sigma=inf"],
            "sigma=inf must be a number above 0",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "workers=null"],
            "workers=null must be a whole number of at least 1",
        ),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "source=null"], "source=null must be a text"),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "plot=[a,b]"],
            "plot=[a, b] must be a single value",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "quality=[draft]"],
            "quality=[draft] must be a single value",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "codec=null"],
            "codec=null must be given as codec.weights",
        ),
        (["input=DIR/in=1.wav", "output="], "output= must be a text"),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "format=flac"],
            "format=flac is not the ending of output=DIR",
        ),
        (["input=null", "output=DIR/out"], "input=null must be a text"),
        (["input=[]", "output=DIR/out"], "input=[] must be a file, a folder"),
        (["input=[null]", "output=DIR/out"], "input=null must be a text"),
        (["input={a:b}", "output=DIR/out"], "no such audio file or folder: {a:b}"),
        (["input=DIR/in=1.wav", "output=DIR/out.wav", "device=meta"], "device=meta cannot be used"),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "device=abacus"],
            "device=abacus cannot be used",
        ),
        (
            ["input=DIR/in=1.wav", "output=DIR/out.wav", "sigmas=2"],
            "no such setting: sigmas; did you mean sigma?",
        ),
    ],
)
def test_wrong_arguments(arguments, says, transfer, folder):
    result = transfer(*(argument.replace("DIR", str(folder)) for argument in arguments))
    assert says.replace("DIR", str(folder)) in result.error()
    assert [path.name for path in folder.iterdir()] == ["in=1.wav"]


def test_audio_that_cannot_be_used(transfer, folder):
    bad = folder / "bad.wav"
    good = (folder / "in=1.wav").read_bytes()
    nan = melody(0.5)
    nan[5000] = np.nan
    cases = {
        "empty": lambda: bad.write_bytes(b""),
        "no samples": lambda: soundfile.write(bad, np.zeros(0), RATE),
        "it is a text, not audio": lambda: bad.write_bytes(b"no sound" * 100),
        "holds no samples": lambda: bad.write_bytes(good[:44]),
        "NaN": lambda: soundfile.write(bad, nan, RATE, subtype="FLOAT"),
    }
    for says, make in cases.items():
        make()
        error = transfer(f"input={bad}", f"output={folder}/out.wav").error()
        assert str(bad) in error and says in error
        assert {path.name for path in folder.iterdir()} == {"in=1.wav", "bad.wav"}


def test_models_that_cannot_be_used(transfer, folder, instruments, make_instrument):
    ends = f"input={folder}/in=1.wav", f"output={folder}/out.wav"
    bad = folder / "bad.safetensors"
    bad.write_bytes(instruments[0].read_bytes()[:5000])
    assert f"cannot read {bad}" in transfer(*ends, f"source={bad}").error()
    bad.write_text("no model")
    assert f"cannot read {bad}" in transfer(*ends, f"source={bad}").error()
    make_instrument(codec="encodec").save(bad)
    error = transfer(*ends, f"source={bad}").error()
    assert "'encodec'" in error and "choose two models of the same codec" in error
    shutil.copy(bad, folder / "target.safetensors")
    error = transfer(
        *ends, f"source={bad}", f"target={folder}/target.safetensors", f"codec.repository={folder}"
    ).error()
    assert (
        f"EnCodec's weights not found in {folder}" in error and "encodec_24khz-d7cc33bc.th" in error
    )
    make_instrument(codec=f"{folder}/no codec.safetensors").save(bad)
    error = transfer(*ends, f"source={bad}", f"target={bad}").error()
    assert f"codec file not found: {folder}/no codec.safetensors" in error
    assert not (folder / "out.wav").exists()
