"""Reading, resampling and writing of audio files."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import ODD_NAME, RATE, melody
from tolerances import PCM_16, ROUNDING

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write


def test_any_part_of_an_mp3_is_that_part_of_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(10 * RATE) * np.abs(np.sin(np.arange(10 * RATE) * 2e-4))
    soundfile.write(tmp_path / "a.mp3", 0.2 * noise, RATE)
    whole, _ = audio.read(tmp_path / "a.mp3")
    for start in rng.integers(whole.shape[1] - RATE, size=40).tolist():
        part, _ = audio.read(tmp_path / "a.mp3", start, RATE)
        assert torch.allclose(part, whole[:, start : start + RATE], atol=PCM_16)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.flac", "PCM_24"), ("a.ogg", None)],
)
def test_what_is_written_is_read(name, subtype, tmp_path):
    path = tmp_path / ODD_NAME / name
    wav = torch.from_numpy(np.stack([melody(1.5), melody(1.5, seed=1)]))
    audio.write(path, wav, RATE, subtype)
    header = audio.info(path)
    assert (header.frames, header.sample_rate, header.channels, header.seconds) == (
        RATE * 3 // 2,
        RATE,
        2,
        1.5,
    )
    again, rate = audio.read(path)
    assert rate == RATE and again.shape == wav.shape and again.dtype == torch.float32
    assert (again - wav).abs().max() < (0.1 if name.endswith("ogg") else 1e-4)
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_part_is_that_part(name, tmp_path):
    soundfile.write(tmp_path / name, melody(2.0), RATE)
    whole, _ = audio.read(tmp_path / name)
    part, _ = audio.read(tmp_path / name, 12345, 6789)
    assert torch.equal(part, whole[:, 12345 : 12345 + 6789])


def test_files_that_cannot_be_read_say_why(tmp_path):
    path = tmp_path / f"{ODD_NAME}.wav"
    soundfile.write(path, melody(), RATE)
    cases = {
        "no such audio file": path.unlink,
        "the file is empty": lambda: path.write_bytes(b""),
        "no samples": lambda: soundfile.write(path, np.zeros(0), RATE),
        "damaged": lambda: path.write_bytes(b"RIFFnothing"),
        "it is a text": lambda: path.write_text("four score and seven years ago"),
    }
    for says, make in cases.items():
        make()
        with pytest.raises(InputError, match=says) as caught:
            audio.read(path)
        assert str(path) in str(caught.value)


def test_damage_inside_a_flac_is_found(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    data = path.read_bytes()
    path.write_bytes(data[:20000] + bytes(9000) + data[29000:])
    with pytest.raises(InputError, match=str(path)):
        audio.read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(value, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.0, value, 0.0]), RATE, subtype="DOUBLE")
    with pytest.raises(InputError, match="NaN or infinite"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.long
def test_what_libsndfile_reads_needs_no_ffmpeg(tmp_path):
    """And the length of an MP3 neither: commands start quicker."""
    for name in ("a.wav", "a.flac", "a.ogg", "a.aiff", "a.mp3"):
        soundfile.write(tmp_path / name, melody(), RATE)
    code = (
        "import sys; from audio_diffusion_pytorch import audio\n"
        "for name in ('a.wav', 'a.flac', 'a.ogg', 'a.aiff'):\n"
        f"    audio.read({str(tmp_path)!r} + '/' + name)\n"
        f"audio.info({str(tmp_path / 'a.mp3')!r}); sys.exit('av' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_stream_of_unknown_length_is_no_truncated_file(tmp_path):
    """What `ffmpeg ... -f wav pipe:` writes: lengths of 0xFFFFFFFF in the header."""
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert audio.read(path)[0].shape == (1, RATE)


@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [(8000, 24000), (44100, 24000), (192000, 24000), (24000, 48000), (44099, 24000)],
)
def test_resampling_keeps_a_tone(rate, new_rate):
    """A 1 kHz tone comes out as a 1 kHz tone of the same level and phase."""
    time = torch.arange(rate) / rate
    tone = torch.sin(2 * torch.pi * 1000 * time)
    out = audio.resample(tone[None], rate, new_rate)[0]
    assert len(out) == new_rate
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(new_rate) / new_rate)
    middle = slice(new_rate // 4, -new_rate // 4)
    # The filter is flat within 0.05 dB, half a percent, up to this tone.
    assert (out - expected)[middle].abs().max() < 5e-3


def test_resampling_leaves_no_alias():
    """What lies above the new Nyquist frequency is 60 dB down."""
    tone = torch.sin(2 * torch.pi * 15000 * torch.arange(48000, dtype=torch.float64) / 48000)
    # An octave above what remains, kaiser-best leaves -60 dB or less.
    assert audio.resample(tone[None].float(), 48000, 24000)[0, 1000:-1000].abs().max() < 1e-3


@pytest.mark.parametrize(
    ("frames", "rate", "new_rate"), [(1, 8000, 24000), (7, 192000, 8000), (1001, 44100, 24000)]
)
def test_resampled_length_is_rounded_up(frames, rate, new_rate):
    assert audio.resample(torch.ones(2, frames), rate, new_rate).shape == (
        2,
        -(-frames * new_rate // rate),
    )


def test_mono_is_the_average():
    assert torch.equal(
        audio.to_mono(torch.tensor([[1.0, 0.0], [0.0, 0.5]])), torch.tensor([[0.5, 0.25]])
    )


def test_active_rms_leaves_pauses_out():
    """A tone between long pauses has the tone's level, in every channel count and at every rate."""
    for rate in (8000, 48000):
        tone = 0.5 * torch.sin(2 * torch.pi * 441 * torch.arange(rate) / rate)
        wav = torch.cat([torch.zeros(3 * rate), tone, torch.zeros(3 * rate)])[None]
        # Blocks of 50 ms at the ends of the tone hold a part of it.
        assert audio.active_rms(wav, rate) == pytest.approx(0.5 / 2**0.5, rel=0.03)
        assert audio.active_rms(wav.repeat(2, 1), rate) == pytest.approx(0.5 / 2**0.5, rel=0.03)
    assert audio.active_rms(torch.zeros(1, 10), 48000) == 0
    assert audio.to_db(0.1) == pytest.approx(-20) and audio.to_db(0) == pytest.approx(-200)


def test_minutes_of_ogg_are_written_in_blocks(tmp_path):
    audio.write(tmp_path / "a.ogg", torch.zeros(1, 4 * 60 * 44100), 44100)
    assert audio.info(tmp_path / "a.ogg").seconds == 240


def test_what_cannot_be_written(tmp_path):
    wav = torch.zeros(1, 100)
    with pytest.raises(InputError, match=r"use \.wav"):
        audio.write(tmp_path / "a.txt", wav, RATE)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="cannot write"):
        audio.write(tmp_path / "file" / "a.wav", wav, RATE)
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        audio.write(tmp_path / "folder.wav", wav, RATE)
    with pytest.raises(InputError, match=r"a\.flac.*at most 8 channels, not 9.*channels=mid"):
        audio.write(tmp_path / "a.flac", torch.zeros(9, 100), RATE)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder.wav"}


def test_replacing_leaves_what_was_there_when_something_fails(tmp_path):
    path = tmp_path / ODD_NAME
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    with atomic_write(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and os.listdir(tmp_path) == [ODD_NAME]


def test_large_wav_files_are_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr("audio_diffusion_pytorch.audio.writer._LARGEST_WAV", 1000)
    for frames, kind in ((500, "WAV"), (501, "RF64")):
        with audio.writing(tmp_path / "a.wav", RATE, 1, frames=frames) as write_block:
            write_block(torch.zeros(1, frames))
        assert soundfile.info(tmp_path / "a.wav").format == kind
        assert audio.info(tmp_path / "a.wav").frames == frames


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 24000), (24000, 192000), (8000, 24000), (23450.7, 24000)]
)
def test_a_stream_resamples_as_the_whole(rate, new_rate):
    wav = torch.rand(2, 30000) - 0.5
    outs = []
    for size in (30000, 777):
        resampler = audio.Resampler(rate, new_rate, 2)
        outs.append(
            torch.cat([*map(resampler, wav.split(size, 1)), resampler(wav[:, :0], last=True)], 1)
        )
    assert outs[0].shape == (2, -(-30000 * new_rate // rate)) and torch.equal(*outs)


def test_a_meter_does_not_depend_on_blocks():
    wav = torch.rand(2, 30000) - 0.5
    meter = audio.LevelMeter(8000)
    for block in wav.split(777, 1):
        meter.update(block)
    assert meter.rms == pytest.approx(audio.active_rms(wav, 8000)) and meter.peak == wav.abs().max()


def test_blocks_of_a_file_are_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("audio_diffusion_pytorch.audio.reader.BLOCK", 1000)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, np.stack([melody(1.0), melody(1.0, seed=1)], 1), RATE)
        with audio.AudioReader(tmp_path / name) as file:
            whole = file.read()
            for _ in range(2):  # and once more from the start
                blocks = list(file.blocks())
                assert max(block.shape[1] for block in blocks) == 500  # of two channels
                assert torch.allclose(torch.cat(blocks, 1), whole, atol=ROUNDING)
