"""Recordings of all formats: exact lengths, bit-exact parts, tags, and written files."""

import itertools
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, melody
from hypothesis import given
from hypothesis import strategies as st
from recordings_of_all_kinds import bytes_of, encode

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.audio import mpeg
from audio_diffusion_pytorch.errors import InputError

SECONDS = 9.0  # more than a section of a decoder
KINDS = {  # codec, container, additional frames (None: the container does not declare them)
    "m4a": ("aac", "ipod", 0),
    "alac.m4a": ("alac", "ipod", 0),
    "mp4": ("aac", "mp4", 0),
    "mov": ("pcm_s24le", "mov", 0),
    "aac": ("aac", "adts", None),
    "opus": ("libopus", "ogg", 0),
    "webm": ("libopus", "webm", None),
    "mka": ("ac3", "matroska", None),
    "mkv": ("flac", "matroska", 0),
    "wma": ("wmav2", "asf", -960),
    "3gp": ("aac", "3gp", 0),
    "mp3": ("libmp3lame", "mp3", 0),
    "mp2": ("mp2", "mp2", None),
    "oga": ("flac", "ogg", 0),
    "mp3.wav": ("libmp3lame", "wav", None),
    "avi": ("libmp3lame", "avi", None),
}


def sound(seconds: float = SECONDS) -> np.ndarray:
    """[2, T]: notes and noise, so that no part is like another."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, round(seconds * RATE)))
    return np.stack([melody(seconds), melody(seconds, seed=1)]) + noise.astype(np.float32)


class Files(dict):
    """Of each kind a file and the whole of it."""

    def __repr__(self) -> str:
        return "Files"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Files:
    """A file of each kind and the whole of it."""
    folder, files = tmp_path_factory.mktemp("kinds"), Files()
    for name, (codec, container, _) in KINDS.items():
        rate = 48000 if codec in ("libopus", "ac3") else RATE
        wav = audio.resample(torch.from_numpy(sound()), RATE, rate).numpy()
        encode(folder / f"a.{name}", wav, rate, codec, container)
        files[name] = folder / f"a.{name}", audio.read(folder / f"a.{name}")[0]
    for extension in ("wav", "flac", "ogg", "aiff", "caf", "w64", "au"):
        path = folder / f"a.{extension}"
        soundfile.write(path, sound().T, RATE)
        files[extension] = path, audio.read(path)[0]
    return files


@pytest.mark.parametrize("name", KINDS)
def test_lengths_are_exact(name, kinds):
    path, wav = kinds[name]
    header, frames = audio.info(path), round(SECONDS * RATE)
    frames = frames * header.sample_rate // RATE
    assert header.channels == 2 and header.sample_rate in (RATE, 48000)
    assert wav.shape == (2, header.frames)
    more = KINDS[name][2]
    if more is None:
        assert frames <= header.frames < frames + 3 * 2048
    else:
        assert header.frames == frames + more
    with audio.AudioReader(path) as file:
        for _ in range(2):
            assert torch.equal(torch.cat(list(file.blocks()), 1), wav)
    whole = audio.resample(torch.from_numpy(sound()), RATE, header.sample_rate)
    if more == 0 and "pcm" not in KINDS[name][0]:  # nothing is shifted
        error = (wav - whole).square().mean() / whole.square().mean()
        assert (
            error < 0.2
            and (wav[:, 1:] - whole[:, :-1]).square().mean() > 1.5 * (wav - whole).square().mean()
        )


@given(data=st.data())
def test_any_part_is_that_part_to_the_bit(kinds, data):
    path, whole = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    start = data.draw(st.integers(0, whole.shape[1] - 1))
    frames = data.draw(st.integers(1, whole.shape[1] - start))
    assert torch.equal(audio.read(path, start, frames)[0], whole[:, start : start + frames])


@given(data=st.data())
def test_damage_is_read_or_named(kinds, data):
    """Changed, added or cut bytes: the rest is read, or one sentence gives the reason."""
    path, _ = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    content = bytearray(path.read_bytes())
    generator = random.Random(data.draw(st.integers(0, 1 << 32)))
    for _ in range(data.draw(st.integers(0, 4))):
        place = generator.choice(
            [generator.randrange(len(content)), generator.randrange(min(200, len(content)))]
        )
        content[place : place + generator.choice([1, 4, 1000])] = generator.randbytes(
            generator.choice([0, 1, 4, 1000])
        )
    damaged = path.with_name("damaged")
    damaged.write_bytes(content[: generator.choice([None, len(content) // 2, len(content) - 3])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wav, rate = audio.read(damaged)
            assert wav.shape[1] == audio.info(damaged).frames and rate > 0
        except InputError as error:
            assert str(damaged) in str(error) and "\n" not in str(error)


def id3(size: int) -> bytes:
    """A tag with a picture of so many bytes, in which there are beginnings of frames."""
    body = (
        b"APIC"
        + size.to_bytes(4, "big")
        + bytes(2)
        + (b"\xff\xfb\x90\x44" * (size // 4 + 1))[:size]
    )
    length = len(body)
    return (
        b"ID3\3\0\0"
        + bytes([length >> 21 & 127, length >> 14 & 127, length >> 7 & 127, length & 127])
        + body
    )


APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (37).to_bytes(4, "little") + bytes(4 + 4 + 8)
MP3 = {
    "without a header frame": lambda data, bare: (bare, 0),
    "a large picture": lambda data, bare: (id3(3_000_000) + data, None),
    "a large picture and no header frame": lambda data, bare: (id3(3_000_000) + bare, 0),
    "tags at the end": lambda data, bare: (data + bytes(5) + b"TAG" + bytes(125), None),
    "ape at the end": lambda data, bare: (data + bytes(5) + APE, None),
    "all tags": lambda data, bare: (
        id3(50) + id3(50) + data + bytes(5) + APE + b"TAG" + bytes(125),
        None,
    ),
    "zeros before": lambda data, bare: (bytes(3000) + data, None),
    "garbage behind": lambda data, bare: (data + b"garbage" * 1000, None),
}


@pytest.fixture(scope="module")
def mp3() -> tuple[bytes, bytes, torch.Tensor]:
    """An MP3, the MP3 without its header frame and thus with the encoder's delay, and its sound."""
    wav = sound(4.0)[0]
    return (
        bytes_of(wav, RATE, "libmp3lame", "mp3", id3v2_version=0, write_id3v1=0),
        bytes_of(wav, RATE, "libmp3lame", "mp3", id3v2_version=0, write_xing=0),
        torch.from_numpy(wav)[None],
    )


def read_checked(path: Path, content: bytes) -> tuple[torch.Tensor, list[str]]:
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wav, _ = audio.read(path)
    for start in (0, 1000, wav.shape[1] // 2, wav.shape[1] - 10):
        assert torch.equal(audio.read(path, start, 10)[0], wav[:, start : start + 10])
    return wav, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("what", MP3)
def test_mp3_with_whatever_is_around_its_frames(what, mp3, tmp_path):
    data, bare, wav = mp3
    content, _ = MP3[what](data, bare)
    out, told = read_checked(tmp_path / "a.mp3", content)
    assert not told
    expected = audio.read(
        _write(tmp_path / "b.mp3", bare if "no header" in what or "without" in what else data)
    )[0]
    assert torch.equal(out, expected)
    if "no header" not in what and "without" not in what:
        assert out.shape == wav.shape


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_an_mp3_whose_header_frame_is_wrong(mp3, tmp_path):
    data, _bare, wav = mp3
    at = max(data.find(b"Xing"), data.find(b"Info"))
    for frames in (1, 20, 10**6, 0xFFFFFFFF):
        wrong = bytearray(data)
        wrong[at + 8 : at + 12] = frames.to_bytes(4, "big")
        out, _ = read_checked(tmp_path / "a.mp3", wrong)
        # The silence at the end is left out where the header is right about the rest.
        assert wav.shape[1] <= out.shape[1] <= wav.shape[1] + 2 * 576 + 529
        assert torch.equal(out[:, : wav.shape[1]], audio.read(_write(tmp_path / "b.mp3", data))[0])


def test_joined_mp3_files_are_read_to_the_end(mp3, tmp_path):
    data, bare, wav = mp3
    one, two = (
        audio.read(_write(tmp_path / f"{i}.mp3", content))[0]
        for i, content in enumerate((data, bare))
    )
    assert one.shape == wav.shape
    out, told = read_checked(tmp_path / "a.mp3", data + data)
    assert torch.equal(out, torch.cat([one, one], 1)) and not told
    out, _ = read_checked(tmp_path / "a.mp3", data + id3(70000) + data + b"TAG" + bytes(125))
    assert torch.equal(out, torch.cat([one, one], 1))
    out, _ = read_checked(tmp_path / "a.mp3", bare + bare)
    assert out.shape[1] == 2 * two.shape[1]


def test_joined_mp3_files_of_different_rates(mp3, tmp_path):
    other = bytes_of(melody(2.0), 44100, "libmp3lame", "mp3")
    (tmp_path / "a.mp3").write_bytes(mp3[0] + other)
    with pytest.raises(
        InputError,
        match=r"a\.mp3 as audio: after 4\.\d s its format changes \(24000 Hz to 44100 Hz\)",
    ):
        audio.info(tmp_path / "a.mp3")


def test_an_mp3_that_was_cut_gives_what_is_there(mp3, tmp_path):
    data, bare, _ = mp3
    for content in (data, bare):
        whole = audio.read(_write(tmp_path / "b.mp3", content))[0]
        out, told = read_checked(tmp_path / "a.mp3", content[: len(content) // 2 + 50])
        assert whole.shape[1] * 0.4 < out.shape[1] < whole.shape[1] * 0.6
        assert torch.equal(out, whole[:, : out.shape[1]])
        assert len(told) == 1 and "a.mp3: it was cut off in the middle" in told[0]


def test_damage_inside_an_mp3_costs_what_is_damaged(mp3, tmp_path):
    data = bytearray(mp3[1])
    data[20000:20040] = bytes(40)
    whole = audio.read(_write(tmp_path / "b.mp3", mp3[1]))[0]
    out, _ = read_checked(tmp_path / "a.mp3", data)
    assert whole.shape[1] - 576 * 3 <= out.shape[1] <= whole.shape[1]
    assert torch.equal(out[:, -8000:], whole[:, -8000:])


def test_long_mp3_is_walked_without_decoding(mp3, tmp_path, monkeypatch):
    """An hour and a half; a part of it decodes a few seconds."""
    _data, bare, _ = mp3
    count = 90 * 60 // 4
    (tmp_path / "a.mp3").write_bytes(bare * count)
    decoded = []
    real = mpeg.MpegSource.decode
    monkeypatch.setattr(
        mpeg.MpegSource, "decode", lambda self, n: decoded.append(n) or real(self, n)
    )
    once = audio.info(_write(tmp_path / "b.mp3", bare)).frames
    assert audio.info(tmp_path / "a.mp3").frames == count * once and not decoded
    start = 5000 * RATE
    assert audio.read(tmp_path / "a.mp3", start, RATE)[0].abs().max() > 0.1
    assert len(decoded) <= 2


@pytest.mark.parametrize("extension", audio.OUTPUT_EXTENSIONS)
@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_what_is_written_has_the_inputs_length_and_place(extension, rate, tmp_path):
    path = tmp_path / f"a{extension.upper()}"
    for frames in (1, 1000, rate + 17):
        wav = torch.from_numpy(np.stack([melody(2.0), melody(2.0, seed=1)]))[
            :, 3000 : 3000 + frames
        ]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with audio.writing(
                path, rate, 2, tags={"title": "Ein Stück", "tracknumber": "3"}
            ) as write_block:
                for block in wav.split(777, 1):
                    write_block(block)
        out, new_rate = audio.read(path)
        assert (
            new_rate
            == audio.written_rate(extension, rate)
            == (48000 if extension == ".opus" else rate)
        )
        assert [f"{extension} supports only 48000 Hz" in str(w.message) for w in caught] == [
            True
        ] * (new_rate != rate)
        expected = audio.resample(wav, rate, new_rate)
        assert out.shape == expected.shape
        if frames > 1000:
            assert (out - expected).square().mean() < 1e-2 * expected.square().mean()
        with audio.AudioReader(path) as file:
            assert (file.tags["title"], file.tags["tracknumber"]) == ("Ein Stück", "3")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


LIMITS = [
    (
        ".flac",
        24000,
        9,
        "at most 8 channels, not 9: write .wav or .ogg, or bridge their average with channels=mid",
    ),
    (".mp3", 44100, 3, "at most 2 channels"),
    (".ogg", 44100, 256, "at most 255 channels, not 256: write .wav"),
    (".opus", 48000, 9, "at most 8 channels"),
    (".m4a", 48000, 7, "1 to 6 or 8 channels"),
    (".mp3", 96000, 1, "does not support 96000 Hz, only 8000, .*48000: write .flac or .wav"),
    (".m4a", 192000, 1, "does not support 192000 Hz"),
    (".flac", 700000, 1, "at most 655350 Hz"),
    (".ogg", 384000, 1, "at most 200000 Hz"),
    (".txt", 44100, 1, "cannot write .txt: use .wav"),
    ("", 44100, 1, "a file without ending"),
]


@pytest.mark.parametrize(("extension", "rate", "channels", "says"), LIMITS)
def test_limits_of_output_formats(extension, rate, channels, says, tmp_path):
    with pytest.raises(InputError, match=says):
        audio.check_format(extension.upper(), rate, channels)
    with (
        pytest.raises(InputError, match=says),
        audio.writing(tmp_path / f"a{extension}", rate, channels),
    ):
        raise AssertionError("refused before the work")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("extension", audio.OUTPUT_EXTENSIONS)
def test_what_is_within_the_limits_is_written(extension, tmp_path):
    for rate, channels in itertools.product(
        (8000, 11025, 44100, 96000, 200000), (1, 2, 3, 6, 8, 9)
    ):
        try:
            audio.check_format(extension, rate, channels)
        except InputError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audio.write(tmp_path / f"a{extension}", torch.full((channels, 500), 0.1), rate)
        assert audio.info(tmp_path / f"a{extension}").channels == channels


@pytest.mark.parametrize("extension", audio.OUTPUT_EXTENSIONS)
def test_tags_that_cannot_be_written_are_left_out(extension, tmp_path):
    tags = {
        "title": "",
        "artist": "  ",
        "album": "x" * 100_000,
        "comment": "\udcff",
        "genre": "a\0b",
        "date": "1999",
    }
    with (
        pytest.warns(UserWarning, match="cannot hold the input's album, comment") as caught,
        audio.writing(tmp_path / f"a{extension}", 48000, 1, tags=tags) as write_block,
    ):
        write_block(torch.zeros(1, 5000))
    assert len(caught) == 1
    with audio.AudioReader(tmp_path / f"a{extension}") as file:
        assert file.tags.get("date") == "1999" and file.tags.get("genre", "a b") == "a b"
        assert not {"title", "artist", "album", "comment"} & set(file.tags)


@pytest.mark.parametrize("name", ["m4a", "opus", "mp3", "webm", "mov", "wma"])
def test_tags_of_every_kind_are_read(name, tmp_path):
    codec, container, _ = KINDS[name]
    tags = {"title": "Sonata", "artist": "N. N."}
    encode(
        tmp_path / "a",
        sound(0.5),
        48000 if name in ("opus", "webm") else 44100,
        codec,
        container,
        tags,
    )
    with audio.AudioReader(tmp_path / "a") as file:
        assert file.tags["title"] == "Sonata" and file.tags["artist"] == "N. N."


def test_several_sound_tracks_are_told(tmp_path):
    encode(tmp_path / "a.mp4", sound(0.5), RATE, "aac", "mp4", tracks=2)
    with pytest.warns(UserWarning, match=r"a\.mp4: it holds 2 sound tracks: the main one is read"):
        assert audio.info(tmp_path / "a.mp4").frames == RATE // 2


OPPOSED: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda wav: torch.stack([wav, -wav]),
    lambda wav: torch.stack([-wav, wav * 0.5, wav]),
]


@pytest.mark.parametrize("channels", OPPOSED)
def test_opposed_channels_do_not_cancel(channels, tmp_path, monkeypatch):
    """The whole recording decides: a part in which they agree is averaged as the others are."""
    monkeypatch.setattr("audio_diffusion_pytorch.audio.reader.BLOCK", 3000)
    mono = torch.from_numpy(melody(2.0))
    wav = channels(mono)
    wav[0, :6000] = wav[-1, :6000] = wav[-1, :6000] * 0.1
    audio.write(tmp_path / "a.wav", wav, RATE, "FLOAT")
    whole = audio.read_mono(tmp_path / "a.wav")[0]
    assert torch.allclose(whole, audio.to_mono(audio.in_phase(wav)), atol=1e-7)
    assert whole[:, 6000:].square().mean() > 0.5 * mono[6000:].square().mean()
    assert torch.equal(audio.read_mono(tmp_path / "a.wav", 2000, 100)[0], whole[:, 2000:2100])
    with audio.AudioReader(tmp_path / "a.wav") as file:
        assert torch.equal(torch.cat(list(file.mono_blocks()), 1), whole)
        assert file.polarity.flatten().tolist() == [
            1.0 if s > 0 else -1.0 for s in (wav @ wav[wav.square().sum(1).argmax()])
        ]


def test_polarity_of_one_channel_and_of_silence(tmp_path):
    for wav in (torch.from_numpy(melody())[None], torch.zeros(2, 100)):
        audio.write(tmp_path / "a.wav", wav, RATE)
        with audio.AudioReader(tmp_path / "a.wav") as file:
            assert (file.polarity == 1).all() and file.polarity.shape == (len(wav), 1)
