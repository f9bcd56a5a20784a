"""Files that failed for users: the kept ones if available, and equivalents made here."""

import io
import os
import random
import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from conftest import ODD_NAME, RATE, ROOT, melody
from recordings_of_all_kinds import bytes_of, encode

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.audio import NotAudio
from audio_diffusion_pytorch.errors import InputError

SHARED = Path(os.environ.get("SHARED_RECORDINGS", ROOT.parent / "shared"))
# frames; None: an error
KEPT = {
    "f_unknown.flac": 96000,
    "h_7fffffff.wav": 96000,
    "h_zero.wav": 96000,
    "h_plus16.wav": 96000,
    "o_chain.ogg": 352800,
    "m_concat.mp3": 352800,
    "m_empty_tag.mp3": 176400,
    "flute_empty.flac": 48000,
    "m4a_named.mp3": None,
    "aac_named.mp3": 24000,
    "mixed_folder/flute1.wav": 24000,
    "mixed_folder/flute2.aif": 24000,
    "mixed_folder/flute3.aiff": 24000,
    "mixed_folder/flute4.opus": 48000,
    "mixed_folder/flute5.m4a": 24000,
    "ch9.wav": 12000,
}


def read_all(path: Path) -> tuple[torch.Tensor, list[str]]:
    """The sound of a file, read in every way, and the warnings that came."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wav, _ = audio.read(path)
    with audio.AudioReader(path) as file:
        assert torch.equal(torch.cat(list(file.blocks()), 1), wav)
        assert wav.shape == (file.info.channels, file.info.frames)
    middle = wav.shape[1] // 2
    assert torch.equal(audio.read(path, middle, 1000)[0], wav[:, middle : middle + 1000])
    return wav, [str(warning.message) for warning in caught]


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="the kept files are not here")
@pytest.mark.parametrize(("name", "frames"), KEPT.items())
def test_kept_cases(name, frames):
    path = SHARED / "cases" / name
    if frames is None:
        with pytest.raises(
            InputError, match=r"m4a_named\.mp3 as audio: it is an MP4 file without its index"
        ):
            audio.info(path)
        return
    wav, told = read_all(path)
    assert wav.shape[1] == frames and wav.abs().max() > 0.01
    assert [str(path) in message for message in told] == [True] * (name == "h_plus16.wav")
    with audio.AudioReader(path) as file:
        assert all(value.strip() for value in file.tags.values())


def recordings() -> list[Path]:
    folders = (SHARED / "real", SHARED / "samples")
    return sorted(
        f for folder in folders for f in folder.glob("*/*") if f.suffix in (".mp3", ".flac")
    )


def check_lengths(paths: list[Path]) -> None:
    for path in paths:
        with audio.AudioReader(path) as file:
            assert sum(block.shape[1] for block in file.blocks()) == file.info.frames, path


@pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="the recordings are not here")
def test_recordings_of_players_are_read():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_lengths(random.Random(0).sample(recordings(), 60))


@pytest.mark.long
@pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="the recordings are not here")
def test_every_recording_of_players_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_lengths(recordings())


SIZES = {
    "zero": 0,
    "half": 0x7FFFFFFF,
    "full": 0xFFFFFFFF,
    "sox": 0x7FFFF000,
    "alsa": 0x80000000 - 36,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_wav_with_a_placeholder_for_its_size(size, subtype, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([melody(), melody(seed=1)], 1), RATE, subtype=subtype)
    whole, data = read_all(path)[0], bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = SIZES[size].to_bytes(4, "little")
    path.write_bytes(data)
    wav, told = read_all(path)
    assert torch.equal(wav, whole) and not told


@pytest.mark.parametrize("more", [1, 16, 100_000])
def test_wav_that_tells_of_more_than_there_is(more, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    whole, data = read_all(path)[0], bytearray(path.read_bytes())
    data[40:44] = (len(data) - 44 + more).to_bytes(4, "little")
    path.write_bytes(data)
    wav, told = read_all(path)
    assert torch.equal(wav, whole)
    assert len(told) == 1 and str(path) in told[0] and "its header declares" in told[0]


def test_wav_that_was_cut_gives_what_is_there(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    whole = read_all(path)[0]
    path.write_bytes(path.read_bytes()[:-1001])
    wav, told = read_all(path)
    assert torch.equal(wav, whole[:, :-501]) and len(told) == 1


def test_wav_without_its_pad_byte(tmp_path):
    """A chunk of odd length before the sound, and no byte that fills it up."""
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    whole, data = read_all(path)[0], path.read_bytes()
    for pad in (b"", b"\0"):
        path.write_bytes(
            data[:36] + b"note" + (5).to_bytes(4, "little") + b"hello" + pad + data[36:]
        )
        assert torch.equal(read_all(path)[0], whole)


def test_an_empty_wav_holds_no_samples(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE)
    path.write_bytes(path.read_bytes() + b"LIST" + (4).to_bytes(4, "little") + b"INFO")
    with pytest.raises(InputError, match="it holds no samples"):
        audio.info(path)


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("size", [*SIZES, "more"])
def test_other_headers_that_do_not_know_the_length(kind, size, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(
        path, np.stack([melody(), melody(seed=1)], 1), RATE, format=kind, subtype="PCM_16"
    )
    whole, data = read_all(path)[0], bytearray(path.read_bytes())
    sound = whole.numel() * 2
    for start, length, order, extra in {
        "AIFF": lambda: [
            (data.index(b"SSND") + 4, 4, "big", 8),
            (data.index(b"COMM") + 10, 4, "big", None),
        ],
        "AU": lambda: [(8, 4, "big", 0)],
        "CAF": lambda: [(data.index(b"data") + 4, 8, "big", 4)],
        "W64": lambda: [(data.index(b"data\xf3") + 16, 8, "little", 24)],
        "RF64": lambda: [(28, 8, "little", 0)],
    }[kind]():
        value = sound + extra + 100 if size == "more" and extra is not None else SIZES.get(size)
        if value == 0xFFFFFFFF:
            value = (1 << 8 * length) - 1
        if value is not None:
            data[start : start + length] = value.to_bytes(length, order)
    path.write_bytes(data)
    wav, told = read_all(path)
    assert torch.equal(wav, whole) and len(told) == (size == "more")


def test_flac_that_does_not_know_its_length(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([melody(3), melody(3, seed=1)], 1), RATE)
    whole, data = read_all(path)[0], bytearray(path.read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    path.write_bytes(data)
    assert torch.equal(read_all(path)[0], whole)
    path.write_bytes(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + data)  # a tag that does not belong there
    assert torch.equal(read_all(path)[0], whole)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_streams_one_after_the_other(subtype, tmp_path):
    parts = []
    for index, seconds in enumerate((1.5, 0.7, 1.0)):
        soundfile.write(
            tmp_path / f"{index}.ogg",
            melody(seconds, seed=index),
            RATE,
            format="OGG",
            subtype=subtype,
        )
        parts.append(audio.read(tmp_path / f"{index}.ogg")[0])
    path = tmp_path / ODD_NAME
    path.write_bytes(b"".join((tmp_path / f"{index}.ogg").read_bytes() for index in range(3)))
    wav, told = read_all(path)
    assert torch.equal(wav, torch.cat(parts, 1)) and not told


def test_ogg_streams_of_different_kinds(tmp_path):
    soundfile.write(tmp_path / "0.ogg", melody(), RATE)
    soundfile.write(tmp_path / "1.ogg", melody(), 2 * RATE)
    (tmp_path / "a.ogg").write_bytes(
        (tmp_path / "0.ogg").read_bytes() + (tmp_path / "1.ogg").read_bytes()
    )
    with pytest.raises(
        InputError, match=r"a\.ogg as audio: after 1\.0 s its format changes \(24000 Hz.* 48000 Hz"
    ):
        audio.info(tmp_path / "a.ogg")


def test_an_ogg_file_that_was_cut(tmp_path):
    soundfile.write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE), RATE)
    whole, data = read_all(tmp_path / "a.ogg")[0], (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(data[: len(data) * 2 // 3])
    wav, told = read_all(tmp_path / "a.ogg")
    assert 1.5 * RATE < wav.shape[1] < 3 * RATE and torch.equal(wav, whole[:, : wav.shape[1]])
    assert len(told) == 1 and "it was cut off" in told[0]


@pytest.mark.parametrize("share", [0.999, 0.6, 0.2])
def test_a_flac_file_that_was_cut(share, tmp_path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (4 * RATE, 2))
    soundfile.write(tmp_path / "a.flac", sound, RATE)
    whole, data = read_all(tmp_path / "a.flac")[0], (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: round(len(data) * share)])
    wav, told = read_all(tmp_path / "a.flac")
    assert (share - 0.1) * 4 * RATE < wav.shape[1] <= share * 4 * RATE
    assert torch.equal(wav, whole[:, : wav.shape[1]])
    assert len(told) == 1 and "a.flac: it was cut off in the middle" in told[0]
    (tmp_path / "a.flac").write_bytes(data[:60])
    with pytest.raises(InputError, match=r"a\.flac as audio"):
        audio.info(tmp_path / "a.flac")


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a", "a.flac"])
@pytest.mark.parametrize(
    ("codec", "container"), [("aac", "ipod"), ("flac", "flac"), ("libopus", "webm")]
)
def test_content_decides_not_the_name(name, codec, container, tmp_path):
    encode(tmp_path / "right", melody(), RATE, codec, container)
    shutil.copy(tmp_path / "right", tmp_path / name)
    assert torch.equal(read_all(tmp_path / name)[0], audio.read(tmp_path / "right")[0])


def picture() -> bytes:
    return bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
        "0000000049454e44ae426082"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"Four score and seven years ago our fathers brought forth\n" * 50, "it is a text"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://localhost:9/a.ts\n/etc/passwd\n", "it is a text"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "it is a text"),
        (picture(), "it holds a picture or film without sound"),
        (bytes(5000), "it is not audio"),
        (random.Random(0).randbytes(5000), "it is not audio"),
        (b"RIFF\0\0\0\0WAVEfmt ", "damaged"),
        (b"fLaC" + bytes(100), "damaged"),
        (b"OggS" + bytes(100), "damaged"),
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10), "not audio"),
        (b"\xff\xfb\x90\x44" + bytes(50), "no sound"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp3", "a.wav"])
def test_what_is_no_recording_says_so_in_one_sentence(content, says, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        audio.info(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, audio.NotAudio) == (
        "it is a text" in says or "without sound" in says
    )


def green(index: int = 0) -> av.VideoFrame:
    """A frame of a film; a new `VideoFrame` would hold what the memory held before."""
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 32), np.uint8), "yuv420p")
    frame.pts = index
    return frame


def film_without_sound() -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for frame in (green(), None):
            container.mux(stream.encode(frame))
    return content.getvalue()


MPEG_FRAMES = b"\xff\xfb\x90\x44".ljust(417, b"\0") * 3


def box(name: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + name + content


@pytest.mark.parametrize(
    "change",
    [
        lambda film: film,
        lambda film: film[:28] + box(b"free", MPEG_FRAMES) + film[28:],
        lambda film: box(b"free", MPEG_FRAMES) + film,
        lambda film: film + b"\xff\xfb\x90\x44",  # a frame that the end of the file interrupts
    ],
    ids=["plain", "frames", "frames first", "frame at the end"],
)
def test_a_film_without_sound(change, tmp_path):
    film = film_without_sound()
    assert film[:8] == b"\0\0\0\x1cftyp"
    (tmp_path / "a.mp4").write_bytes(change(film))
    with pytest.raises(
        NotAudio, match=r"a\.mp4 as audio: it holds a picture or film without sound"
    ):
        audio.info(tmp_path / "a.mp4")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(InputError, match="is a pipe or device"):
        audio.info(tmp_path / "a.wav")
    with pytest.raises(InputError, match="is a folder"):
        audio.info(tmp_path)
    with pytest.raises(InputError, match="no such audio file"):
        audio.info(tmp_path / "b.wav")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser reads everything
        import builtins

        real = builtins.open

        def refuse(file, *args, **kwargs):
            if str(file) == str(path):
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(InputError, match=rf"cannot read {path}: you may not read it"):
        audio.info(path)


def test_a_warning_comes_once(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, melody(), RATE)
    path.write_bytes(path.read_bytes()[:-1000])
    assert len(read_all(path)[1]) == 1 and not read_all(path)[1]
    path.write_bytes(path.read_bytes()[:-1000])  # another file
    assert len(read_all(path)[1]) == 1


def test_an_mp4_file_whose_sound_was_cut(tmp_path):
    """Its index comes first, and is whole."""
    path = tmp_path / "a.m4a"
    encode(path, melody(4), RATE, "aac", "ipod", movflags="faststart")
    whole, data = read_all(path)[0], path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    wav, told = read_all(path)
    assert RATE < wav.shape[1] < 3.5 * RATE and torch.equal(wav[:, :RATE], whole[:, :RATE])
    assert len(told) == 1 and "a.m4a: it was cut off" in told[0]


@pytest.mark.parametrize(
    ("kind", "codec", "packet"),
    [("mkv", "aac", 1024), ("mp4", "mp3", 576), ("mpg", "mp2", 1152)],
)
def test_the_sound_of_a_film(kind, codec, packet, tmp_path):
    path = tmp_path / f"a.{kind}"
    with av.open(str(path), "w") as container:
        film = container.add_stream("mpeg4", rate=25)
        film.width = film.height = 32
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        for index in range(50):
            sound = av.AudioFrame.from_ndarray(
                melody()[None, index * 480 : index * 480 + 480], "fltp", "mono"
            )
            sound.sample_rate, sound.pts = RATE, index * 480
            container.mux([*film.encode(green(index)), *stream.encode(sound)])
        container.mux([*film.encode(None), *stream.encode(None)])
    wav, told = read_all(path)
    assert not told and RATE <= wav.shape[1] < RATE + 3 * packet and wav.abs().max() > 0.1


def test_an_mp4_file_that_was_cut_says_so(tmp_path):
    path = tmp_path / "a.m4a"
    path.write_bytes(bytes_of(melody(), RATE, "aac", "ipod")[:4000])
    with pytest.raises(InputError, match=r"a\.m4a as audio: it is an MP4 file without its index"):
        audio.info(path)
