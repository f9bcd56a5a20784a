"""Basic Pitch port: the official outputs, windows, shapes, odd inputs, imported weights."""

import importlib.util
import math

import numpy as np
import pytest
import soundfile
import torch
from basic_pitch_torch import BasicPitch, resample
from basic_pitch_torch.model import MIN_LENGTH, WEIGHTS, WINDOW
from conftest import PITCH_DATA, ROOT
from tolerances import NETWORK

TOLERANCE = 1e-3


def clip(name: str) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(PITCH_DATA / f"{name}.flac", dtype="float32")[0])


def stored(name: str) -> dict[str, np.ndarray]:
    arrays = dict(np.load(PITCH_DATA / name))
    return {
        key: value / 65535 if value.dtype == np.uint16 else value for key, value in arrays.items()
    }


@pytest.fixture(scope="module")
def model() -> BasicPitch:
    return BasicPitch.load()


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    """The two windows [2, 43844] of onnx.npz."""
    return torch.stack([clip("a")[:WINDOW], clip("b")[WINDOW : 2 * WINDOW]])


def test_windows_equal_the_onnx_model(model, windows):
    expected, found = stored("onnx.npz"), model(windows)
    for name, frames in (("note", 1), ("onset", 1), ("contour", 2)):
        assert found[name].shape[:2] == (2, 172)
        assert np.abs(found[name][:, ::frames].numpy() - expected[name]).max() < TOLERANCE


def test_whole_clips_equal_the_original_system(model):
    expected = stored("golden.npz")
    found = {name: model(clip(name)[None]) for name in "ab"}
    for name in ("note", "onset", "contour"):
        assert np.abs(found["a"][name][0, ::3].numpy() - expected[f"{name}_a"]).max() < TOLERANCE
    for name in "ab":
        note = found[name]["note"][0, ::3]
        chroma = torch.stack([note[:, pitch::12].amax(1) for pitch in range(12)], dim=1)
        assert np.abs(chroma.numpy() - expected[f"chroma_{name}"]).max() < TOLERANCE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_equals_cpu(model, windows):
    found, expected = BasicPitch.load("cuda")(windows), model(windows)
    for name, value in expected.items():
        assert found[name].device.type == "cuda"
        assert (found[name].cpu() - value).abs().max() < TOLERANCE


def test_a_batch_equals_its_clips(model, windows):
    together = model(windows)
    for i in range(2):
        for name, value in model(windows[i : i + 1]).items():
            assert torch.allclose(together[name][i], value[0], atol=NETWORK)


def test_surrounding_precision_settings_change_nothing(model, windows):
    expected = model(windows)["note"]
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(windows)["note"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, expected)


def test_predict_is_the_official_windows_joined(model):
    """15 frames of silence first, a window every 36164 samples, 15 frames cut from both ends."""
    wav = clip("a")[:100000]
    padded = torch.cat([torch.zeros(15 * 256), wav])
    parts = []
    for start in range(0, len(padded), WINDOW - 30 * 256):
        window = torch.zeros(WINDOW)
        piece = padded[start : start + WINDOW]
        window[: len(piece)] = piece
        parts.append(model(window[None])["note"][0, 15:-15])
    expected = torch.cat(parts)[: math.floor(100000 * 86 / 22050)]
    for batch_size in (1, 32):
        found = model.predict(torch.stack([wav, wav.flip(0)]), batch_size=batch_size)
        assert found["contour"].shape == (2, 390, 264)
        assert torch.allclose(found["note"][0], expected, atol=NETWORK)


@pytest.mark.parametrize("until", ["contour", "note", "onset"])
def test_the_heads_before_the_last_one_stay_the_same(model, until):
    heads = ["contour", "note", "onset"]
    wav = clip("a")[None, :60000]
    for whole, part in (
        (model(wav), model(wav, until)),
        (model.predict(wav), model.predict(wav, until=until)),
    ):
        assert list(part) == heads[: heads.index(until) + 1]
        assert all(torch.equal(part[head], whole[head]) for head in part)


@pytest.mark.parametrize("length", [1, 255, 256, 2205, MIN_LENGTH - 1, MIN_LENGTH, 43844, 60001])
def test_any_length_gives_the_documented_frames(model, length):
    wav = torch.randn(1, length, generator=torch.Generator().manual_seed(0)) * 0.1
    whole, windowed = model(wav), model.predict(wav)
    assert whole["note"].shape == (1, 1 + length // 256, 88)
    assert windowed["onset"].shape == (1, length * 86 // 22050, 88)
    assert all(torch.isfinite(value).all() for value in whole.values())


def test_silence_has_no_note(model):
    for out in (model(torch.zeros(1, 50000)), model.predict(torch.zeros(1, 50000))):
        assert out["note"].max() < 0.2 and out["onset"].max() < 0.2


@pytest.mark.parametrize("midi", [33, 60, 69, 84])
def test_a_tone_is_heard_at_its_pitch(model, midi):
    for rate in (22050, 24000, 44100, 48000):
        time = torch.arange(2 * rate) / rate
        tone = (
            sum(
                torch.sin(2 * math.pi * 440 * 2 ** ((midi - 69) / 12) * h * time) / h
                for h in range(1, 5)
            )
            * 0.1
        )
        note = model.predict(tone[None], rate)["note"][0, 40:120]
        assert (note.argmax(dim=-1) == midi - 21).float().mean() > 0.95


@pytest.mark.parametrize(
    "wav",
    [
        torch.zeros(100),
        torch.zeros(1, 2, 100),
        torch.zeros(1, 0),
        torch.zeros(0, 100),
        torch.full((1, 9), torch.nan),
    ],
)
def test_unusable_audio_is_refused(model, wav):
    for run in (model, model.predict):
        with pytest.raises(ValueError, match=r"expected|no audio"):
            run(wav)


def test_integer_audio_and_a_bad_rate_are_refused(model):
    with pytest.raises(ValueError, match="floating-point"):
        model(torch.zeros(1, 100, dtype=torch.int16))
    with pytest.raises(ValueError, match="sample rate"):
        model.predict(torch.zeros(1, 100), 0)


def test_resample_keeps_a_tone_in_place():
    source, target = 24000, 22050
    tone = [
        torch.sin(2 * math.pi * 1000 * torch.arange(rate) / rate + 0.3)[None]
        for rate in (source, target)
    ]
    found = resample(tone[0], source, target)
    assert found.shape == tone[1].shape
    # The FFT takes the clip to be periodic: the jump at its ends rings, here by 0.2 %.
    assert (found - tone[1])[:, 500:-500].abs().max() < 2e-3
    assert resample(torch.zeros(2, 24001), source, target).shape == (2, 22051)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="import_basic_pitch"):
        BasicPitch.load(path=tmp_path / "none.safetensors")


def test_weights_ship_with_licence_and_notice():
    assert WEIGHTS.stat().st_size < 200_000
    assert "Apache License" in (WEIGHTS.parent / "LICENSE").read_text()
    assert "Spotify" in (WEIGHTS.parent / "NOTICE").read_text()


@pytest.fixture(scope="module")
def importer():
    spec = importlib.util.spec_from_file_location(
        "import_basic_pitch", ROOT / "scripts" / "import_basic_pitch.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importer_refuses_another_file(importer, tmp_path, capsys):
    (tmp_path / "other.whl").write_bytes(b"not it")
    output = tmp_path / "out"
    assert importer.main(["--wheel", str(tmp_path / "other.whl"), "--output", str(output)]) == 1
    assert "sha256" in capsys.readouterr().err
    assert importer.main(["--wheel", str(tmp_path / "none.whl"), "--output", str(output)]) == 1
    assert "file not found" in capsys.readouterr().err
    assert not output.exists()


def test_importer_reads_every_tensor_of_the_model(importer):
    onnx = pytest.importorskip("onnx")
    from safetensors.torch import load

    generator = np.random.default_rng(0)
    names = {
        name + ("x" if name.endswith(";") else ""): shape
        for name, shape in importer.TENSORS.values()
    }
    names |= dict.fromkeys(importer.KERNELS, (36, 1, 1, 256))
    tensors = [
        onnx.numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in names.items()
    ]
    graph = onnx.helper.make_graph([], "graph", [], [], initializer=tensors)
    data = onnx.helper.make_model(graph).SerializeToString()
    model = BasicPitch()
    model.load_state_dict(load(importer.convert(data)))
    real, imaginary = (onnx.numpy_helper.to_array(t).reshape(36, 256) for t in tensors[-2:])
    assert np.array_equal(model.cqt.kernel.numpy(), np.stack([real, imaginary]))
    del graph.initializer[0]
    with pytest.raises(importer.InputError, match="no tensor"):
        importer.convert(onnx.helper.make_model(graph).SerializeToString())
