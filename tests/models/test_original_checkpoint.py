"""Checkpoints of the original: equal output, conversion both ways, and defective files.

`data/tiny_reference.ckpt` was written by the original's code; here the optimiser's state is left
out and the raw weights are in half precision, which makes it small.
"""

import importlib.util
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import DATA, ROOT, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import NETWORK
from torch import Tensor

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.pauses import QuietFollower
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models import loading
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import load_instrument, shared_codec
from audio_diffusion_pytorch.models.original_architecture import infer_unet
from audio_diffusion_pytorch.models.original_checkpoint import (
    codec_state,
    is_original,
    load_original,
    load_unet_state,
    save_original,
)
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

CHECKPOINT = DATA / "tiny_reference.ckpt"
STATISTICS = {"mean_path": DATA / "tiny_mean.pt", "std_path": DATA / "tiny_std.pt"}
HEADS = {"attention_heads": 2}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def golden() -> dict:
    return torch.load(DATA / "tiny_golden.pt", weights_only=True)


@pytest.fixture(scope="module")
def model() -> InstrumentModel:
    return load_instrument(CHECKPOINT, **STATISTICS, unet=HEADS, sigma_max=5.0, frames=64)


@pytest.fixture
def content() -> dict:
    return torch.load(CHECKPOINT, weights_only=True)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location(
        "convert_checkpoint", ROOT / "scripts" / "convert_checkpoint.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def write(content: dict, path: Path) -> Path:
    torch.save(content, path)
    return path


# As the original


def test_wav_to_noise_to_wav_equals_the_reference(model: InstrumentModel, golden: dict):
    bridge = Bridge(model, model, 5.0, golden["num_steps"], "heun", 0.001, 9.0, codec=model.codec)
    with torch.inference_mode():
        latents = model.codec.encode(golden["wav"])
        assert relative_error(model.normalise(latents), golden["latents"]) < NETWORK
        encoded = bridge.to_noise(latents)
        assert relative_error(encoded, golden["encoded"]) < NETWORK
        decoded = bridge.from_noise(encoded)
        assert relative_error(model.normalise(decoded), golden["decoded"]) < NETWORK
        assert relative_error(model.codec.decode(decoded), golden["wav_out"]) < NETWORK
        assert (
            relative_error(
                model.denoiser(golden["latents"], golden["sigmas_in"]), golden["denoised"]
            )
            < NETWORK
        )


def test_the_bridge_runs_from_wav_to_wav(model: InstrumentModel, golden: dict, monkeypatch):
    """It keeps the input's level, so the reference is met up to a factor.

    The original does not hold quiet frames at their level, so this part is left out.
    """
    monkeypatch.setattr(QuietFollower, "__call__", lambda self, wav, *_: wav)
    bridge = Bridge(model, model, 5.0, golden["num_steps"], "heun", 0.001, 9.0, codec=model.codec)
    out, expected = bridge(golden["wav"][:, 0], 24000), golden["wav_out"][:, 0]
    assert relative_error(out / out.norm(), expected / expected.norm()) < NETWORK


def test_the_codec_of_two_models_is_the_one_that_came_with_them(
    model: InstrumentModel, monkeypatch
):
    bare = InstrumentModel(model.spec, model.mean, model.std, model.denoiser)
    other = load_instrument(CHECKPOINT, **STATISTICS, unet=HEADS, name="other")
    assert (
        shared_codec(model, other)
        is shared_codec(model, bare)
        is shared_codec(bare, model)
        is model.codec
    )
    monkeypatch.setattr(loading, "load_codec", lambda name, **options: (name, options))
    assert shared_codec(bare, bare) == ("encodec", {})
    assert shared_codec(model, other, repository="folder") == ("encodec", {"repository": "folder"})
    next(iter(other.codec.parameters())).add_(1)
    with pytest.raises(InputError, match="tiny_reference and other contain different codecs"):
        shared_codec(model, other)
    small = InstrumentModel(
        replace(model.spec, name="flute", codec="small"), model.mean, model.std, model.denoiser
    )
    with pytest.raises(
        InputError, match="tiny_reference was trained on codec 'encodec', flute on 'small'"
    ):
        shared_codec(model, small)


def test_architecture_is_inferred_given_or_read_from_hyper_parameters(
    content: dict, golden: dict, tmp_path: Path
):
    by_shapes = load_original(CHECKPOINT, **STATISTICS, unet=HEADS).spec
    assert golden["arch"].items() <= by_shapes.unet.items()
    assert load_original(CHECKPOINT, **STATISTICS, unet=golden["arch"]).spec == by_shapes
    content["hyper_parameters"] = {
        "lr": 1e-4,
        "model": dict(golden["arch"]),
        "diffusion": {"sigma_max": 5, "rho": 7.0},
    }
    spec = load_original(write(content, tmp_path / "tiny_reference.ckpt"), **STATISTICS).spec
    assert (spec.unet, spec.sigma_max, spec.rho, spec.sigma_min) == (
        by_shapes.unet,
        5.0,
        7.0,
        0.001,
    )
    low = load_original(tmp_path / "tiny_reference.ckpt", **STATISTICS, sigma_max=3)
    assert Bridge(low, low).sigma == 3
    with pytest.raises(
        InputError, match=r"attention_heads \* attention_features = 16.*attention_heads"
    ):
        load_original(CHECKPOINT, **STATISTICS)


@settings(max_examples=examples(30))
@given(data=st.data(), levels=st.integers(1, 3), nearest=st.booleans())
def test_any_architecture_is_inferred_from_shapes(data, levels: int, nearest: bool):
    def numbers(low: int, high: int, length: int) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=length, max_size=length))

    # With nearest-neighbour upsampling, shapes do not determine the kernel.
    kernel = 2 if nearest else data.draw(st.sampled_from([2, 4]))
    arguments = dict(
        in_channels=data.draw(st.sampled_from([4, 8])),
        out_channels=data.draw(st.sampled_from([None, 12])),
        channels=32,
        patch_factor=data.draw(st.sampled_from([1, 2, 4])),
        multipliers=numbers(1, 3, levels + 1),
        factors=numbers(1, 5, levels),
        num_blocks=numbers(1, 3, levels),
        attentions=[*numbers(0, 2, levels), 1],
        attention_heads=data.draw(st.integers(1, 4)),
        attention_features=8,
        attention_multiplier=data.draw(st.integers(1, 3)),
        kernel_multiplier_downsample=kernel,
        use_nearest_upsample=nearest and levels > 0,
    )
    with torch.device("meta"):
        net = UNet1d(**arguments)
    inferred = infer_unet(
        {k: v.shape for k, v in net.state_dict().items()},
        {"attention_features": 8, "factors": net.config["factors"]},
    )
    if all(factor == 1 for factor in arguments["factors"]):
        arguments["use_nearest_upsample"] = inferred["use_nearest_upsample"]  # the same network
    assert UNet1d.__init__.__annotations__.keys() >= inferred.keys()
    assert inferred.items() <= arguments.items()


def test_published_heads_are_inferred():
    with torch.device("meta"):
        net = UNet1d()
    inferred = infer_unet({key: value.shape for key, value in net.state_dict().items()})
    assert inferred.items() <= net.config.items()


@pytest.mark.parametrize(("heads", "features"), [(8, 16), (4, 64), (1, 128)])
def test_heads_of_another_size_are_asked_for(heads, features):
    with torch.device("meta"):
        net = UNet1d(
            channels=32,
            multipliers=[1, 1],
            factors=[2],
            num_blocks=[1],
            attentions=[1, 1],
            attention_heads=heads,
            attention_features=features,
        )
    shapes = {key: value.shape for key, value in net.state_dict().items()}
    with pytest.raises(InputError, match="attention_heads"):
        infer_unet(shapes)
    assert infer_unet(shapes, {"attention_heads": heads})["attention_features"] == features


def test_raw_weights_are_the_other_ones(content: dict, model: InstrumentModel):
    raw = load_instrument(
        CHECKPOINT, **STATISTICS, unet=HEADS, weights="raw"
    ).denoiser.net.state_dict()
    for key, value in raw.items():
        assert torch.equal(value, content["state_dict"][f"model.unet.{key}"].float())
    assert any(
        not torch.equal(raw[key], value) for key, value in model.denoiser.net.state_dict().items()
    )


def test_weights_for_a_training_to_start_from(model: InstrumentModel):
    state = load_unet_state(CHECKPOINT, unet=HEADS)
    own = model.denoiser.net.state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[key], own[key]) for key in own)
    assert {value.dtype for value in load_unet_state(CHECKPOINT, "raw", HEADS).values()} == {
        torch.float32
    }


def test_one_alias_is_enough(content: dict, tmp_path: Path, model: InstrumentModel):
    prefix = "model_ema.ema_model.diffusion.diffusion.net."
    content["state_dict"] = {
        key: value for key, value in content["state_dict"].items() if key.startswith(prefix)
    }
    found = load_instrument(write(content, tmp_path / "a.ckpt"), **STATISTICS, unet=HEADS)
    assert found.codec is None
    assert torch.equal(
        found.denoiser.net.to_time[0][0].weights, model.denoiser.net.to_time[0][0].weights
    )


# There and back


@pytest.mark.parametrize("codec", [True, False])
def test_our_model_in_the_original_layout(
    content: dict, model: InstrumentModel, tmp_path: Path, codec: bool
):
    save_original(model, tmp_path / "back.ckpt", codec_state(content) if codec else None)
    written = torch.load(tmp_path / "back.ckpt", weights_only=True)
    theirs = {
        k: v
        for k, v in content["state_dict"].items()
        if codec or not k.startswith("encodec_model.")
    }
    assert {k: v.shape for k, v in written["state_dict"].items()} == {
        k: v.shape for k, v in theirs.items()
    }
    for key, value in written["state_dict"].items():
        if key.startswith("model_ema.ema_model.") or key.startswith("encodec_model."):
            assert torch.equal(value, theirs[key]) and value.dtype == theirs[key].dtype
    ema, raw = (
        load_unet_state(tmp_path / "back.ckpt", weights, HEADS) for weights in ("ema", "raw")
    )
    assert all(torch.equal(ema[key], raw[key]) for key in ema)
    assert (tmp_path / "back.ckpt").stat().st_size < 4.2e6  # each storage once


def test_script_converts_there_and_back(script, tmp_path: Path, golden: dict, capsys):
    small, codec, back = (
        tmp_path / "small.safetensors",
        tmp_path / "codec.safetensors",
        tmp_path / "back.ckpt",
    )
    there = [
        str(CHECKPOINT),
        str(small),
        "--mean",
        str(STATISTICS["mean_path"]),
        "--std",
        str(STATISTICS["std_path"]),
    ]
    assert (
        script(
            [
                *there,
                "--unet",
                "attention_heads=2",
                "--sigma-max",
                "5",
                "--codec-output",
                str(codec),
            ]
        )
        == 0
    )
    assert "3.7 times smaller than the checkpoint's 5.1 MB" in capsys.readouterr().out
    model = load_instrument(small)
    assert (model.spec.sigma_max, model.spec.name, model.spec.codec) == (
        5.0,
        "tiny_reference",
        "encodec",
    )
    with torch.inference_mode():
        # Weights that are kept in float16, 5e-4 of each.
        assert (
            relative_error(
                model.denoiser(golden["latents"], golden["sigmas_in"]), golden["denoised"]
            )
            < 2e-3
        )
        latents = model.normalise(EncodecCodec(codec).encode(golden["wav"]))
    assert relative_error(latents, golden["latents"]) < NETWORK

    assert script([str(small), str(back), "--to-original", "--codec", str(CHECKPOINT)]) == 0
    statistics = {"mean_path": tmp_path / "back_mean.pt", "std_path": tmp_path / "back_std.pt"}
    again = load_instrument(back, **statistics, unet=HEADS)
    for key, value in model.denoiser.net.state_dict().items():
        assert torch.equal(again.denoiser.net.state_dict()[key], value)
    assert torch.equal(again.mean, model.mean) and torch.equal(again.std, model.std)
    assert is_original(read_checkpoint(back))


# What can be wrong


def drop(*keys: str) -> Callable[[dict], None]:
    def change(state: dict) -> None:
        for key in keys:
            del state[key]

    return change


def put(key: str, value: Tensor) -> Callable[[dict], None]:
    return lambda state: state.update({key: value})


BLOCK = "model_ema.ema_model.unet.bottleneck.pre_block.block1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            drop(f"{BLOCK}.project.weight", f"{BLOCK}.project.bias"),
            rf"missing: {BLOCK}.project.weight, {BLOCK}.project.b",
        ),
        (
            drop("model.diffusion.net.to_mapping.0.bias"),
            r"missing: model\.diffusion\.net\.to_mapping\.0\.bias",
        ),
        (
            put("model_ema.ema_model.unet.to_pitch.weight", torch.zeros(1)),
            r"unexpected: .*unet\.to_pitch\.weight",
        ),
        (put("classifier.weight", torch.zeros(1)), r"unexpected: classifier\.weight"),
        (
            put(f"{BLOCK}.project.bias", torch.zeros(7)),
            r"another shape: .*bias \[7\] instead of \[64\]",
        ),
        (
            put(f"{BLOCK}.project.bias", torch.full((64,), torch.nan)),
            r"not finite: bottleneck.*project\.bias",
        ),
        (drop("encodec_model.encoder.layers.0.conv.bias"), r"missing: model\.0\.conv\.conv\.bias"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    content: dict, tmp_path: Path, change: Callable, message: str
):
    change(content["state_dict"])
    with pytest.raises(InputError, match=message):
        load_instrument(write(content, tmp_path / "a.ckpt"), **STATISTICS, unet=HEADS)


def test_every_missing_key_of_an_incomplete_network_is_named(
    content: dict, tmp_path: Path, golden: dict
):
    groups = ("model.", "model_ema.online_model.", "model_ema.ema_model.")
    names = [
        f"{g}{alias}to_time.0.0.weights" for g in groups for alias in ("unet.", "diffusion.net.")
    ]
    drop(*names, *(f"{g}diffusion.diffusion.net.to_time.0.0.weights" for g in groups))(
        content["state_dict"]
    )
    path = write(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"to_time\.0\.0\.weights' is missing"):
        load_unet_state(path, unet=HEADS)
    with pytest.raises(InputError) as error:
        load_unet_state(path, unet=golden["arch"])
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        (HEADS | {"factors": [4, 4]}, r"another shape: .*upsample\.weight"),
        (HEADS | {"num_blocks": [2, 2]}, r"missing: .*blocks\.1\..*"),
        (HEADS | {"channels": 33}, "cannot build a UNet.*even"),
        (HEADS | {"heads": 3}, "cannot build a UNet.*heads"),
        ({"attention_heads": "x"}, "invalid arguments of a UNet"),
        ({"attention_heads": 3}, r"another shape: .*to_q\.weight"),
    ],
)
def test_another_architecture(unet: dict, message: str):
    with pytest.raises(InputError, match=message):
        load_instrument(CHECKPOINT, **STATISTICS, unet=unet)


def test_no_ema_and_no_raw_weights(content: dict, tmp_path: Path):
    state = content["state_dict"]
    content["state_dict"] = {
        key: value for key, value in state.items() if not key.startswith("model_ema.")
    }
    path = write(content, tmp_path / "raw.ckpt")
    with pytest.raises(InputError, match=r'lacks averaged.*weights="raw"'):
        load_instrument(path, **STATISTICS, unet=HEADS)
    assert load_instrument(path, **STATISTICS, unet=HEADS, weights="raw").codec is not None
    content["state_dict"] = {key: value for key, value in state.items() if "ema_model" in key}
    with pytest.raises(InputError, match=r'lacks raw.*weights="ema"'):
        load_unet_state(write(content, tmp_path / "ema.ckpt"), "raw", HEADS)
    with pytest.raises(InputError, match="weights='mean': use \"ema\""):
        load_unet_state(tmp_path / "ema.ckpt", "mean", HEADS)


def test_a_bare_state_dict_has_raw_weights(content: dict, tmp_path: Path):
    state = {
        k[len("model.") :]: v for k, v in content["state_dict"].items() if k.startswith("model.")
    }
    found = load_unet_state(write(state, tmp_path / "bare.pt"), "raw", HEADS)
    assert torch.equal(found["to_mapping.0.bias"], state["unet.to_mapping.0.bias"].float())


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (torch.zeros(15), torch.ones(16), r"mean\.pt has 15 values.*16 channels"),
        (torch.zeros(16), torch.ones(17, 1), r"std\.pt has 17 values.*16 channels"),
        (torch.zeros(16), torch.zeros(16), "positive"),
        (torch.full((16,), torch.nan), torch.ones(16), "finite"),
        ({"mean": 1}, torch.ones(16), "holds a dict"),
    ],
)
def test_statistics_that_do_not_fit(tmp_path: Path, mean, std, message: str):
    torch.save(mean, tmp_path / "mean.pt")
    torch.save(std, tmp_path / "std.pt")
    with pytest.raises(InputError, match=message):
        load_instrument(
            CHECKPOINT, mean_path=tmp_path / "mean.pt", std_path=tmp_path / "std.pt", unet=HEADS
        )


def test_statistics_may_be_columns(tmp_path: Path, model: InstrumentModel):
    for kind, value in (("mean", model.mean), ("std", model.std)):
        torch.save(value[:, None], tmp_path / f"{kind}.pt")
    found = load_instrument(
        CHECKPOINT, mean_path=tmp_path / "mean.pt", std_path=tmp_path / "std.pt", unet=HEADS
    )
    assert torch.equal(found.mean, model.mean) and torch.equal(found.std, model.std)


def test_statistics_are_asked_for(tmp_path: Path):
    with pytest.raises(InputError, match="pass mean_path and std_path"):
        load_instrument(CHECKPOINT, mean_path=STATISTICS["mean_path"], unet=HEADS)
    with pytest.raises(InputError, match="no such file of statistics"):
        load_instrument(
            CHECKPOINT, mean_path=tmp_path / "no.pt", std_path=STATISTICS["std_path"], unet=HEADS
        )
    with pytest.raises(
        InputError, match="neither arguments of UNet1d nor fields of InstrumentSpec: sigma"
    ):
        load_instrument(CHECKPOINT, **STATISTICS, unet=HEADS, sigma=3)


@pytest.mark.parametrize("source", ["flute.safetensors", "no such name"])
def test_arguments_for_a_checkpoint_of_the_original_only(source: str):
    with pytest.raises(
        InputError, match="mean_path, weights can be used with a checkpoint of the original"
    ):
        load_instrument(source, mean_path="mean.pt", weights="raw")


def test_a_checkpoint_of_another_kind(tmp_path: Path):
    path = write({"state_dict": {"linear.weight": torch.zeros(1)}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of an instrument's training"):
        load_instrument(path)
    with pytest.raises(
        InputError, match="mean_path, std_path can be used with a checkpoint of the original system"
    ):
        load_instrument(path, **STATISTICS)
    with pytest.raises(InputError, match="not a checkpoint of the original"):
        load_unet_state(path)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_unet_state(tmp_path / "nothing.ckpt")


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, 0.9999])
def test_truncated(tmp_path: Path, script, capsys, keep: float):
    data = CHECKPOINT.read_bytes()
    (tmp_path / "a.ckpt").write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InputError, match=r"a\.ckpt is damaged"):
        load_instrument(tmp_path / "a.ckpt", **STATISTICS)
    assert script([str(tmp_path / "a.ckpt"), str(tmp_path / "out.safetensors")]) == 2
    assert (
        capsys.readouterr().err.startswith("error: ")
        and not (tmp_path / "out.safetensors").exists()
    )


def test_flipped_bits_are_found_or_harmless(tmp_path: Path):
    """In a tensor, always found; elsewhere (padding, dates in the zip) possibly without effect."""
    expected, data, path = (
        load_unet_state(CHECKPOINT, unet=HEADS),
        CHECKPOINT.read_bytes(),
        tmp_path / "a.ckpt",
    )
    rng = random.Random(0)
    inside = data.index(expected["to_mapping.0.bias"].numpy().tobytes())
    with zipfile.ZipFile(CHECKPOINT) as archive:
        directory = archive.start_dir
    places = [
        inside + 5,
        *(rng.randrange(len(data)) for _ in range(8)),
        *(rng.randrange(directory, len(data)) for _ in range(24)),
    ]
    for i, place in enumerate(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            found = load_unet_state(path, unet=HEADS)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert i > 0 and all(torch.equal(found[key], value) for key, value in expected.items())


class Malice:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_or_in_statistics_is_not_run(
    content: dict, tmp_path: Path, script, capsys
):
    output, ran = tmp_path / "out.safetensors", tmp_path / "ran"
    content["callbacks"] = Malice(ran)
    path = write(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="Python objects, which are not loaded"):
        load_instrument(path, **STATISTICS, unet=HEADS)
    assert script([str(path), str(output), "--unet", "attention_heads=2"]) == 2
    torch.save(Malice(ran), tmp_path / "mean.pt")
    with pytest.raises(InputError, match="cannot read"):
        load_instrument(
            CHECKPOINT, mean_path=tmp_path / "mean.pt", std_path=STATISTICS["std_path"], unet=HEADS
        )
    arguments = [
        str(CHECKPOINT),
        str(output),
        "--unet",
        "attention_heads=2",
        "--std",
        str(STATISTICS["std_path"]),
    ]
    assert script([*arguments, "--mean", str(tmp_path / "mean.pt")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not ran.exists() and not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{source}", "{folder}/out.ckpt"], "must end in .safetensors"),
        (["{source}", "{folder}/out.safetensors", "--to-original"], "must end in .ckpt"),
        (["{source}", "{folder}/out.safetensors"], "pass unet="),
        (
            ["{source}", "{folder}/out.safetensors", "--unet", "attention_heads=2"],
            "pass mean_path and std_path",
        ),
        (["{source}", "{folder}/out.safetensors", "--unet", "factors=4,2"], "expected KEY=VALUE"),
        (["{source}", "{source}"], "is the source itself"),
        (["{folder}/no.ckpt", "{folder}/out.safetensors"], "no such checkpoint"),
        (["{folder}/no.safetensors", "{folder}/out.ckpt", "--to-original"], "model file not found"),
        (["{folder}/our.safetensors", "{folder}/out.safetensors"], "needs --to-original"),
        (["{source}", "{folder}/out.safetensors", "--codec", "x"], "requires --to-original"),
    ],
)
def test_script_names_the_problem_in_one_line(
    script, tmp_path: Path, capsys, arguments: list[str], message: str
):
    assert (
        script([argument.format(source=CHECKPOINT, folder=tmp_path) for argument in arguments]) == 2
    )
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
