"""EnCodec's weights: the names of both libraries, every source, and every defect."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from conftest import DATA
from safetensors.torch import save_file
from tolerances import NETWORK

from audio_diffusion_pytorch.codecs import encodec_weights
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.encodec_weights import infer_sizes, to_package, to_transformers
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.original_checkpoint import codec_state
from audio_diffusion_pytorch.utils.checkpoint_io import read_checkpoint

CHECKPOINT = DATA / "tiny_reference.ckpt"
CONFIG = {
    "num_filters": 4,
    "hidden_size": 16,
    "num_lstm_layers": 1,
    "sampling_rate": 24000,
    "audio_channels": 1,
    "norm_type": "weight_norm",
    "upsampling_ratios": [8, 5, 4, 2],
    "use_causal_conv": True,
    "pad_mode": "reflect",
}


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def golden() -> dict:
    return torch.load(DATA / "tiny_golden.pt", weights_only=True)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A small EnCodec's weights as `transformers` names them."""
    return {key: value.clone() for key, value in codec_state(read_checkpoint(CHECKPOINT)).items()}


@torch.no_grad()
def check(codec: EncodecCodec, golden: dict) -> None:
    """The reference's codec: wav -> latents -> wav."""
    assert (codec.latent_channels, codec.hop_length, codec.sample_rate) == (16, 320, 24000)
    mean, std = golden["mean"][:, None], golden["std"][:, None]
    assert relative_error((codec.encode(golden["wav"]) - mean) / std, golden["latents"]) < NETWORK
    assert relative_error(codec.decode(golden["decoded"] * std + mean), golden["wav_out"]) < NETWORK


# Names


@pytest.mark.parametrize("parametrized", [False, True], ids=["weight_g", "parametrizations"])
def test_names_go_both_ways(state: dict, golden: dict, parametrized: bool):
    package = to_package(state)
    theirs = to_transformers(package, parametrized)
    assert any("parametrizations.weight.original1" in key for key in theirs) == parametrized
    assert to_transformers(to_package(theirs)).keys() == state.keys()
    assert to_package(theirs).keys() == to_package(package).keys() == package.keys()
    check(EncodecCodec(theirs), golden)
    check(EncodecCodec(package), golden)


def test_names_are_those_of_the_package(state: dict):
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    package, sizes = to_package(state), infer_sizes(to_package(state))
    settings = {"norm": "weight_norm", "causal": True, **sizes}
    modules = {
        "encoder": SEANetEncoder(**settings),
        "decoder": SEANetDecoder(**settings),
        "quantizer": ResidualVectorQuantizer(16, 32, 8),
    }
    for part, module in modules.items():
        own = {key: value.shape for key, value in module.state_dict().items()}
        assert own == {
            k[len(part) + 1 :]: v.shape for k, v in package.items() if k.startswith(part + ".")
        }


@pytest.mark.parametrize(
    "config",
    [
        {"n_filters": 2, "dimension": 6, "lstm": 2},
        {
            "n_filters": 4,
            "dimension": 3,
            "ratios": [3, 2],
            "lstm": 0,
            "n_residual_layers": 2,
            "kernel_size": 5,
        },
        {
            "n_filters": 4,
            "dimension": 5,
            "ratios": [2, 2, 4],
            "true_skip": True,
            "compress": 4,
            "last_kernel_size": 3,
        },
    ],
)
def test_sizes_are_read_off_the_weights(config: dict):
    codec = EncodecCodec("random", config=config)
    again = EncodecCodec(to_transformers(codec.state_dict(), parametrized=True))
    wav = torch.randn(1, 1, 960)
    assert torch.equal(again.encode(wav), codec.encode(wav))
    assert torch.equal(again.decode(again.encode(wav)), codec.decode(codec.encode(wav)))


@pytest.mark.parametrize(
    "settings", [{}, {"num_residual_layers": 2, "upsampling_ratios": [4, 2], "num_lstm_layers": 2}]
)
def test_outputs_equal_those_of_transformers(settings: dict, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "num_filters": 4,
        "hidden_size": 16,
        "num_lstm_layers": 1,
        "codebook_dim": 16,
        "codebook_size": 8,
    }
    theirs = transformers.EncodecModel(transformers.EncodecConfig(**sizes | settings)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(-0.4, 0.4)
    ours = EncodecCodec(theirs.state_dict())
    with torch.no_grad():
        for length in (640, 1000, 1337):  # the last two are not multiples of the hop
            wav = torch.randn(2, 1, length)
            latents = theirs.encoder(wav)
            assert relative_error(ours.encoder(wav), latents) < NETWORK
            assert relative_error(ours.decode(latents), theirs.decoder(latents)) < NETWORK

        theirs.save_pretrained(tmp_path)  # as the hub's folders are
        wav = torch.randn(1, 1, 1280)
        assert relative_error(EncodecCodec(tmp_path).encode(wav), theirs.encoder(wav)) < NETWORK

        other = EncodecCodec("random", config=infer_sizes(to_package(theirs.state_dict())))
        missing = theirs.load_state_dict(
            to_transformers(other.state_dict(), parametrized=True), strict=False
        )
        assert (
            all(key.startswith("quantizer.") for key in missing.missing_keys)
            and not missing.unexpected_keys
        )
        assert relative_error(other.encode(wav), theirs.encoder(wav)) < NETWORK


# Places


def hub_folder(folder: Path, state: dict, file: str = "model.safetensors", **config) -> Path:
    folder.mkdir(exist_ok=True)
    if file == "model.safetensors":
        save_file(to_transformers(to_package(state), parametrized=True), folder / file)
    else:
        torch.save(state, folder / file)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


@pytest.fixture
def package_file(tmp_path: Path, state: dict, monkeypatch) -> Path:
    """A small file as the package has it, its hash in its name."""
    torch.save(to_package(state), tmp_path / "new.th")
    digest = hashlib.sha256((tmp_path / "new.th").read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(encodec_weights, "PACKAGE_FILE", f"encodec_24khz-{digest}.th")
    return (tmp_path / "new.th").rename(tmp_path / encodec_weights.PACKAGE_FILE)


def test_a_checkpoint_of_the_original_holds_its_codec(golden: dict):
    codec = load_codec("encodec", weights=str(CHECKPOINT))
    check(codec, golden)
    assert not codec.training and not any(p.requires_grad for p in codec.parameters())


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_from_the_hub(tmp_path: Path, state: dict, golden: dict, file: str):
    folder = hub_folder(tmp_path, state, file)
    check(EncodecCodec(folder), golden)
    check(EncodecCodec(repository=str(folder)), golden)
    check(EncodecCodec(folder / file), golden)


def test_a_folder_with_the_package_file(package_file: Path, golden: dict):
    check(EncodecCodec(repository=package_file.parent), golden)
    check(EncodecCodec(package_file), golden)


def test_the_package_file_in_the_format_before_zip(package_file: Path, state: dict, golden: dict):
    torch.save(
        to_package(state), package_file.with_name("old.th"), _use_new_zipfile_serialization=False
    )
    check(EncodecCodec(package_file.with_name("old.th")), golden)


def test_the_package_file_where_its_own_download_puts_it(
    package_file: Path, golden: dict, tmp_path, monkeypatch
):
    fetched = []

    def fetch(url: str, destination: str, prefix: str) -> None:
        fetched.append((url, prefix))
        Path(destination).write_bytes(package_file.read_bytes())

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    check(EncodecCodec(), golden)
    check(EncodecCodec(), golden)
    name = encodec_weights.PACKAGE_FILE
    assert fetched == [(f"https://dl.fbaipublicfiles.com/encodec/v0/{name}", name[14:22])]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch):
    def fetch(*args) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(
        InputError, match=r"no network.*encodec_24khz-d7cc33bc\.th.*repository.*small codec"
    ):
        EncodecCodec()


# What can be wrong


class Malice:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.th", "model.ckpt"])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool, name: str):
    torch.save(
        {"encoder": Malice(tmp_path / "ran")},
        tmp_path / name,
        _use_new_zipfile_serialization=zipped,
    )
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    for file in (tmp_path / name, tmp_path / "plain.bin"):
        with pytest.raises(InputError, match="Python objects"):
            EncodecCodec(file)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_not_what_its_name_says(package_file: Path):
    data = bytearray(package_file.read_bytes())
    data[len(data) // 2] ^= 1
    package_file.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged: its SHA-256"):
        EncodecCodec(repository=package_file.parent)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, state: dict, file: str, keep: float):
    path = hub_folder(tmp_path, state, file) / file
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        EncodecCodec(tmp_path)


def test_missing_unexpected_and_misshapen_keys_are_all_named(state: dict):
    spoiled = dict(state)
    del spoiled["encoder.layers.1.block.1.conv.bias"], spoiled["encoder.layers.13.lstm.bias_hh_l0"]
    spoiled["encoder.layers.99.extra"] = torch.zeros(1)
    spoiled["encoder.layers.4.shortcut.conv.bias"] = torch.zeros(3)
    spoiled["encoder.layers.6.conv.bias"] = torch.full((16,), torch.nan)
    with pytest.raises(InputError) as error:
        EncodecCodec(spoiled)
    for part in (
        "missing: model.1.block.1.conv.conv.bias, model.13.lstm.bias_hh_l0",
        "unexpected: model.99.extra",
        "model.4.shortcut.conv.conv.bias [3] instead of [8]",
        "not finite: model.6.conv.conv.bias",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sampling_rate": 48000}, "another model.*48000.*sampling_rate=24000"),
        ({"audio_channels": 2, "normalize": True}, "audio_channels=1, normalize=False"),
        ({"hidden_size": 128}, "hidden_size=128, but the shapes of the weights imply 16"),
        ({"upsampling_ratios": [8, 5, 2, 4]}, "upsampling_ratios"),
    ],
)
def test_a_config_of_another_model(tmp_path: Path, state: dict, config: dict, message: str):
    with pytest.raises(InputError, match=message):
        EncodecCodec(hub_folder(tmp_path, state, **config))


def test_places_that_hold_no_weights(tmp_path: Path, state: dict):
    with pytest.raises(InputError, match="neither a folder nor a file"):
        EncodecCodec(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"expected .*d7cc33bc\.th, or config\.json with"):
        EncodecCodec(repository=tmp_path)
    folder = hub_folder(tmp_path, state)
    (folder / "config.json").write_text("[1")
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        EncodecCodec(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        EncodecCodec(folder)
    torch.save({"state_dict": {"model.unet.x": torch.zeros(1)}}, tmp_path / "bare.ckpt")
    with pytest.raises(InputError, match="does not contain a codec"):
        EncodecCodec(tmp_path / "bare.ckpt")
    for content in ([1], {"a": 1}, torch.zeros(2)):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(InputError, match=r"other\.pt"):
            EncodecCodec(tmp_path / "other.pt")
    with pytest.raises(InputError, match="not EnCodec's weights"):
        EncodecCodec({"linear.weight": torch.zeros(1)})
    with pytest.raises(InputError, match="set only one"):
        EncodecCodec(tmp_path, repository=tmp_path)
    with pytest.raises(InputError, match=r"codec\.config"):
        EncodecCodec(tmp_path, config={"dimension": 4})
