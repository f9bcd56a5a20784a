"""Packs of recordings: content, variations, split, defective files; the command as typed."""

import math
import runpy
import sys

import pytest
import torch

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.melody_features import MelodyFeatures
from audio_diffusion_pytorch.data.pack_recordings import Preparation
from audio_diffusion_pytorch.data.packed import dequantise, dequantise_melody, open_pack
from audio_diffusion_pytorch.paths import ROOT

RATE = 24000


def tone(seconds, hertz=440.0):
    time = torch.arange(round(seconds * RATE)) / RATE
    return 0.3 * torch.sin(2 * math.pi * hertz * time)[None]


def test_variations_depend_on_the_seed_and_the_name(tmp_path):
    for name in ("flute_a.wav", "flute_b.wav"):
        audio.write(tmp_path / name, tone(13.0), RATE)

    def sounds(name, seed=0):
        prepare = Preparation(RATE, 1, (-1,), RecordingAugment(probability=1.0), seed)
        found, level = prepare(str(tmp_path / name))
        assert level == pytest.approx(0.3 / math.sqrt(2), rel=0.01)
        assert [varied for _, varied in found] == [False, True, True]  # sections of 12 s and 1 s
        assert [len(sound) / RATE for sound, _ in found] == [13, 12, 1]
        return [sound.tolist() for sound, _ in found]

    first = sounds("flute_a.wav")
    assert first == sounds("flute_a.wav")
    assert first[1] != sounds("flute_b.wav")[1]
    assert first[1] != sounds("flute_a.wav", seed=1)[1]


def test_the_command_packs_what_it_can_read(tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        audio.write(data / f"flute_{number}.wav", tone(1.0, 440.0 + number), RATE)
    broken = tone(1.0)
    broken[0, 5] = math.nan
    audio.write(data / "flute_nan.wav", broken, RATE, subtype="FLOAT")
    output = tmp_path / "flute.safetensors"

    def pack(*arguments):
        command = ["pack_latents", "--data", str(data), "--instrument", "flute", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(ROOT / "scripts" / "pack_latents.py"), run_name="__main__")

    with pytest.warns(UserWarning, match=r"flute_nan\.wav"):
        pack("--output", str(output), "--valid-share", "0.5", "--sources", "made here")
    assert "recordings and sections" in capsys.readouterr().out
    content = open_pack(output)
    codec = load_codec("small")
    assert content.metadata.codec_fingerprint == codec.fingerprint()
    assert content.metadata.sources == "made here"
    assert content.metadata.level == pytest.approx(0.3 / math.sqrt(2), rel=0.01)
    plain = content.varied == 0
    assert plain.sum() == 3
    assert not ((content.split == 1) & (content.varied == 1)).any()
    wav, _ = audio.read_mono(data / "flute_0.wav")
    features = MelodyFeatures(codec).encode(wav[None])[0]
    rows = slice(int(content.first[0]), int(content.first[0] + content.frames[0]))
    torch.testing.assert_close(
        dequantise(content.latents[rows]).T, features[:128], rtol=0, atol=0.03
    )
    torch.testing.assert_close(
        dequantise_melody(content.melody[rows]).T, features[128:], rtol=0, atol=0.005
    )

    with pytest.raises(SystemExit) as ended:
        pack("--output", str(tmp_path / "flute.pt"))
    assert ended.value.code == 2
    assert "must end in .safetensors" in capsys.readouterr().err
