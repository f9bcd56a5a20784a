"""The instrument classifier: invariances, accuracy, files, training, and the shipped one."""

import json

import pytest
import torch
from conftest import ODD_NAME, RATE, ROOT, melody
from tolerances import NETWORK

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import INSTRUMENTS, instrument_of
from audio_diffusion_pytorch.models.classifier import InstrumentClassifier, load_classifier
from audio_diffusion_pytorch.paths import ASSETS

TINY = dict(channels=(4, 4, 4), hidden=8, n_mels=16)
CLIPS = sorted(path for path in (ASSETS / "clips").iterdir() if path.suffix in (".flac", ".ogg"))


@pytest.fixture(scope="module")
def tiny() -> InstrumentClassifier:
    torch.manual_seed(0)
    return InstrumentClassifier(INSTRUMENTS, **TINY).eval()


@pytest.fixture(scope="module")
def shipped() -> InstrumentClassifier:
    return load_classifier()


@pytest.mark.parametrize("sample_rate", [16000, 24000, 44100])
@pytest.mark.parametrize("length", [1, 100, 5001])
def test_probabilities_of_any_length_and_rate(tiny, sample_rate, length):
    found = tiny.probabilities(torch.randn(2, length) / 10, sample_rate)
    assert found.shape == (2, len(INSTRUMENTS)) and torch.allclose(
        found.sum(-1), torch.ones(2), atol=NETWORK
    )


def test_level_is_no_cue(tiny):
    wav = torch.from_numpy(melody(1.0))[None]
    found = tiny.probabilities(torch.cat([wav, wav / 100, wav * 3]), RATE)
    # Their levels are divided out, which rounds them in another way.
    assert torch.allclose(found, found[:1].expand_as(found), atol=10 * NETWORK)


def test_what_lies_above_its_range_is_not_heard(tiny):
    wav = torch.from_numpy(melody(1.0))[None]
    high = torch.sin(2 * torch.pi * 10000 * torch.arange(RATE) / RATE) * 1e-3
    # The resampler attenuates frequencies above the band by 60 dB.
    assert torch.allclose(
        tiny.probabilities(wav + high, RATE), tiny.probabilities(wav, RATE), atol=1e-3
    )


def test_silence_is_no_instrument(tiny):
    wav = torch.stack([torch.zeros(RATE), torch.from_numpy(melody(1.0))])
    found = tiny.probabilities(wav, RATE)
    assert torch.allclose(found[0], torch.tensor(1 / 13)) and not torch.allclose(
        found[1], torch.tensor(1 / 13)
    )
    assert tiny.classify(wav, RATE)[0] is None and tiny.classify(wav, RATE)[1] in INSTRUMENTS


@pytest.mark.parametrize(
    "wav", [torch.zeros(2, 0), torch.zeros(100), torch.full((1, 9), float("nan"))]
)
def test_what_is_no_clip_is_refused(tiny, wav):
    with pytest.raises(InputError, match=r"wav must be \[B, T\]"):
        tiny.probabilities(wav, RATE)


def test_saved_with_its_configuration(tiny, tmp_path):
    path = tmp_path / ODD_NAME / "classifier.safetensors"
    tiny.save(path, {"step": "7"})
    again = load_classifier(path)
    assert again.config == tiny.config and again.instruments == INSTRUMENTS and not again.training
    wav = torch.from_numpy(melody(1.0))[None]
    # The weights are kept in float16.
    assert torch.allclose(again.probabilities(wav, RATE), tiny.probabilities(wav, RATE), atol=1e-2)


def test_files_that_are_no_classifier(tiny, codec, tmp_path):
    path = tmp_path / "classifier.safetensors"
    with pytest.raises(InputError, match=f"classifier file not found: {path}"):
        load_classifier(path)
    codec.save(path)
    with pytest.raises(InputError, match="is not an instrument classifier"):
        load_classifier(path)
    tiny.save(path)
    good = path.read_bytes()
    for bad in (b"", b"nothing", good[: len(good) // 2], good.replace(b"hidden", b"hiden_", 1)):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=f"cannot read {path}"):
            load_classifier(path)


def test_the_command_trains_and_resumes(command, recordings, tmp_path):
    settings = (
        "exp=classifier",
        f"dataset_path={recordings}",
        "trainer=cpu",
        "datamodule.num_workers=0",
    )
    settings += ("datamodule.batch_size=4", "log_every_n_steps=2", "length=4800")
    settings += (
        "model.network.channels=[4,4,4]",
        "model.network.hidden=8",
        "model.network.n_mels=16",
    )
    settings += (
        "codec=small_untrained",
        "+codec.dim=16",
        "+codec.intermediate_dim=16",
        "+codec.num_layers=1",
    )
    first = command("train.py", *settings, "exp_tag=a", "trainer.max_steps=2")
    assert first.code == 0, first.err
    last = tmp_path / "logs/a/checkpoints/last.ckpt"
    assert not any("codec" in key for key in torch.load(last, weights_only=True)["state_dict"])
    second = command("train.py", *settings, "exp_tag=b", "trainer.max_steps=4", f"ckpt={last}")
    assert second.code == 0, second.err
    trained = load_classifier(tmp_path / "logs/b/classifier.safetensors")
    assert trained.instruments == INSTRUMENTS and trained.config["hidden"] == 8


def test_labels_follow_the_order_of_the_classes(command, recordings, tmp_path):
    """After a few dozen steps, the classifier separates two synthetic instruments."""
    settings = (
        "exp=classifier",
        f"dataset_path={recordings}",
        "trainer=cpu",
        "datamodule.num_workers=0",
    )
    settings += (
        "datamodule.batch_size=4",
        "length=9600",
        "total_steps=40",
        "datamodule.dataset.augment=null",
    )
    settings += (
        "model.network.channels=[4,8,8]",
        "model.network.hidden=16",
        "model.network.n_mels=32",
    )
    settings += (
        "model.codec_share=0",
        "model.network.dropout=0",
        "log_every_n_steps=40",
        "model.ema_beta=0",
    )
    result = command("train.py", *settings, "exp_tag=a")
    assert result.code == 0, result.err
    classifier = load_classifier(tmp_path / "logs/a/classifier.safetensors")
    for path in sorted(recordings.glob("*.wav")):
        wav, rate = audio.read(path)
        assert classifier.classify(audio.to_mono(wav), rate) == [instrument_of(path)], path.name


# What ships.


def test_shipped_classifier_is_small_and_knows_the_thirteen(shipped):
    assert (ASSETS / "classifier.safetensors").stat().st_size <= 1_000_000
    assert sum(p.numel() for p in shipped.parameters()) < 500_000
    assert shipped.instruments == INSTRUMENTS


def test_notes_are_heard_and_not_one_average_spectrum(shipped):
    """Noise with the spectrum of a whole clip resembles the clip's instrument far less."""
    heard = []
    for path in CLIPS:
        wav, rate = audio.read(path)
        phase = (
            2
            * torch.pi
            * torch.rand(wav.shape[-1] // 2 + 1, generator=torch.Generator().manual_seed(0))
        )
        noise = torch.fft.irfft(
            torch.polar(torch.fft.rfft(wav).abs(), phase[None]), n=wav.shape[-1]
        )
        label = shipped.instruments.index(instrument_of(path))
        heard.append(shipped.probabilities(torch.cat([wav, noise]), rate)[:, label])
    plain, average = torch.stack(heard).mean(0)
    assert plain > 0.9 and average < plain - 0.3


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_shipped_classifier_knows_the_clips(shipped, path):
    """Test pieces, plain and through the codec."""
    from audio_diffusion_pytorch.codecs.loading import load_codec

    wav, rate = audio.read(path)
    codec = load_codec()
    decoded = codec.decode(codec.encode(wav[None]), wav.shape[-1])[0]
    assert shipped.classify(torch.cat([wav, decoded]), rate) == [instrument_of(path)] * 2


def test_benchmark_prints_accuracy_and_matrix(shipped, tmp_path, monkeypatch, capsys):
    import runpy

    figures = tmp_path / "figures.json"
    arguments = [
        "--data",
        str(ASSETS / "clips"),
        "--seconds",
        "4",
        "--hear",
        "plain",
        "codec",
        "--json",
        str(figures),
    ]
    monkeypatch.setattr("sys.argv", ["classifier.py", *arguments])
    runpy.run_path(str(ROOT / "benchmarks/classifier.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert (
        f"plain: {len(CLIPS)} of {len(CLIPS)} clips correct, 100.0 %" in out and " 5 flute " in out
    )
    matrix = torch.tensor(json.loads(figures.read_text())["plain"]["matrix"])
    assert matrix.sum() == len(CLIPS) and matrix[4, 4] == matrix[0, 0] == len(CLIPS) // 5
