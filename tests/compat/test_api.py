"""The original's names: a user's script reproduces the reference numbers."""

import base64
import itertools
import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import DATA
from tolerances import NETWORK, ROUNDING, TWO_DECIMALS

import audio_diffusion_pytorch
from audio_diffusion_pytorch.compat import api as compat
from audio_diffusion_pytorch.diffusion.denoiser import Denoiser
from audio_diffusion_pytorch.diffusion.sampling import heun, karras_schedule
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.original_checkpoint import load_unet_state
from audio_diffusion_pytorch.models.unet import UNet1d

NAMES = [
    "AudioDiffusionModel",
    "KDistribution",
    "LogNormalDistribution",
    "UniformDistribution",
    "KarrasSchedule",
    "LinearSchedule",
    "KarrasSampler",
    "KarrasSamplerReverse",
    "ADPM2Sampler",
    "AEulerSampler",
    "NormalizedEncodec",
    "PitchTracker",
    "z_norm",
    "z_denorm",
    "plot_spec",
    "play_audio",
]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def golden() -> dict:
    return torch.load(DATA / "tiny_golden.pt", weights_only=True)


@pytest.fixture(scope="module")
def model(golden: dict) -> compat.AudioDiffusionModel:
    model = compat.AudioDiffusionModel(
        **golden["arch"], diffusion_sigma_distribution=compat.KDistribution(0.001, 5, 9)
    )
    model.unet.load_state_dict(load_unet_state(DATA / "tiny_reference.ckpt", unet=golden["arch"]))
    return model


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    return [
        torch.from_numpy(soundfile.read(DATA / "pitch" / f"{name}.flac", dtype="float32")[0])[None]
        for name in "ab"
    ]


def test_a_users_script_gives_the_numbers_of_the_reference(golden: dict, monkeypatch):
    monkeypatch.chdir(DATA)
    script = runpy.run_path("original_script.py")
    assert relative_error(script["embeddings"], golden["latents"]) < NETWORK
    assert relative_error(script["noisy_embeddings"], golden["encoded"]) < NETWORK
    assert relative_error(script["generated_embeddings"], golden["decoded"]) < NETWORK
    assert relative_error(script["generated"], golden["wav_out"]) < NETWORK
    assert 0 <= script["dtw"] <= 11 and 0 <= script["jaccard"] <= 1
    assert all(
        tag.startswith('<img src="data:image/png;base64,') for tag in script["tracking_output"][1]
    )

    raw = Denoiser(UNet1d(**golden["arch"]))
    raw.net.load_state_dict(load_unet_state("tiny_reference.ckpt", "raw", golden["arch"]))
    expected = heun(raw, golden["latents"], karras_schedule(0.001, 5, 9, 8).flip(0))
    assert relative_error(script["raw_embeddings"], expected) < NETWORK


def test_every_name_is_in_compat_and_at_the_top():
    assert sorted(NAMES) == sorted(compat.__all__)
    assert all(getattr(audio_diffusion_pytorch, name) is getattr(compat, name) for name in NAMES)
    code = (
        "import sys, audio_diffusion_pytorch as a; "
        "print('torch' in sys.modules, set(sys.argv[1:]) <= set(dir(a)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *NAMES], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]


def test_published_size_is_the_default():
    with torch.device("meta"):
        model = compat.AudioDiffusionModel(
            diffusion_sigma_distribution=compat.KDistribution(0.001, 100, 9.0),
            diffusion_type="k",
            patch_blocks=1,
        )
    published = json.loads((DATA / "unet_keys.json").read_text())["keys"]
    aliases = ("unet.", "diffusion.net.", "diffusion.diffusion.net.")
    expected = {
        alias + key[len("unet.") :]: shape for key, shape in published.items() for alias in aliases
    }
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 302_333_632
    with pytest.raises(InputError, match="diffusion_type must be 'k'"):
        compat.AudioDiffusionModel(diffusion_type="v")
    with pytest.raises(InputError, match="context_features is not supported"):
        compat.AudioDiffusionModel(context_features=3)


def test_loss_equals_the_reference(model: compat.AudioDiffusionModel, golden: dict):
    drawn = model.sigma_distribution
    model.sigma_distribution = lambda num_samples, device: golden["sigmas_in"]
    loss = model(golden["latents"], noise=golden["noise"])
    model.sigma_distribution = drawn
    assert loss.shape == () and relative_error(loss, golden["losses"].mean()) < NETWORK
    torch.manual_seed(0)
    first = model(golden["latents"])
    torch.manual_seed(0)
    assert torch.equal(model(golden["latents"]), first)


def test_schedules(golden: dict):
    sigmas = compat.KarrasSchedule(sigma_min=0.001, sigma_max=5, rho=9.0)(8, torch.device("cpu"))
    assert (
        sigmas.dtype == torch.float32 and relative_error(sigmas, golden["karras_sigmas"]) < ROUNDING
    )
    default = compat.KarrasSchedule()(3)
    assert (
        default[0].item() == pytest.approx(100)
        and default[-2].item() == pytest.approx(0.1)
        and default[-1] == 0
    )
    assert compat.LinearSchedule(start=2)(4).tolist() == [2, 1.5, 1, 0.5]
    assert compat.LinearSchedule()(2, "cpu").tolist() == [1, 0.5]


def test_samplers(model: compat.AudioDiffusionModel, golden: dict):
    """Against the steps written out."""
    denoise = model.diffusion.diffusion.requires_grad_(False)
    schedule = compat.KarrasSchedule(0.01, 5.0, 9.0)
    sigmas = schedule(4)
    x = golden["noise"]

    def run(sampler) -> torch.Tensor:
        return model.sample(x, num_steps=4, sigma_schedule=schedule, sampler=sampler)

    def slope(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (x - denoise(x, sigma)) / sigma

    scaled = run(compat.KarrasSampler(bridge=False))
    assert relative_error(scaled, heun(denoise, sigmas[0] * x, sigmas[:4])) < ROUNDING
    assert (
        relative_error(run(compat.KarrasSampler(s_churn=40)), heun(denoise, x, sigmas[:4]))
        < ROUNDING
    )

    for sampler, rho, y in (
        (compat.ADPM2Sampler(), 1.0, sigmas[0] * x),
        (compat.ADPM2Sampler(bridge=True, rho=3.0), 3.0, x),
    ):
        for s, n in itertools.pairwise(sigmas[:4]):
            down = n**2 / s
            mid = ((s ** (1 / rho) + down ** (1 / rho)) / 2) ** rho
            y = y + (down - s) * slope(y + (mid - s) * slope(y, s), mid)
        assert relative_error(run(sampler), y) < NETWORK

    torch.manual_seed(3)
    found, y = run(compat.AEulerSampler()), sigmas[0] * x
    torch.manual_seed(3)
    for s, n in itertools.pairwise(sigmas[:4]):
        y = (
            y
            + (n**2 / s - s) * slope(y, s)
            + torch.randn_like(x) * (n**2 * (s**2 - n**2) / s**2).sqrt()
        )
    assert relative_error(found, y) < NETWORK


def test_a_sampler_takes_any_function_of_sigma():
    calls = []

    def fn(x: torch.Tensor, *, sigma: torch.Tensor) -> torch.Tensor:
        calls.append(round(sigma[0].item(), 4))
        return torch.zeros_like(x)

    out = compat.KarrasSamplerReverse()(
        torch.ones(1, 1, 2), fn=fn, sigmas=torch.tensor([4.0, 2.0, 1.0, 0.0]), num_steps=3
    )
    assert calls == [1, 2, 2, 4] and torch.allclose(out, torch.full((1, 1, 2), 4.0))


def test_clamp(model: compat.AudioDiffusionModel, golden: dict):
    arguments = dict(
        num_steps=3,
        sigma_schedule=compat.KarrasSchedule(0.01, 5.0, 9.0),
        sampler=compat.KarrasSampler(),
    )
    free, cut = (
        model.sample(golden["encoded"], **arguments),
        model.sample(golden["encoded"], **arguments, clamp=True),
    )
    assert free.abs().max() > 1 and torch.equal(cut, free.clamp(-1, 1))


def test_encodec_without_statistics_is_raw(golden: dict):
    encodec = compat.NormalizedEncodec(DATA / "tiny_reference.ckpt", device="cpu")
    mean, std = golden["mean"][:, None], golden["std"][:, None]
    raw = encodec.encode_latent(golden["wav"], None, None)
    assert relative_error(compat.z_norm(raw, mean, std), golden["latents"]) < NETWORK
    assert (
        relative_error(compat.z_denorm(golden["latents"], golden["mean"], golden["std"]), raw)
        < NETWORK
    )
    wav = encodec.decode_latent(compat.z_denorm(golden["decoded"], mean, std), None, None)
    assert relative_error(wav, golden["wav_out"]) < NETWORK and not wav.requires_grad


def test_pitch_metric_equals_the_reference(clips: list[torch.Tensor]):
    expected = np.load(DATA / "pitch" / "golden.npz")["raw24k"]
    tracker = compat.PitchTracker()
    ((dpd, jaccard),) = tracker.cals_pitch_metric(*clips, metric="both")
    assert (dpd, jaccard) == pytest.approx(tuple(expected), abs=TWO_DECIMALS)
    assert tracker.cals_pitch_metric(clips[0][None], clips[1]) == [dpd]
    assert tracker.cals_pitch_metric(*clips, "jaccard") == [jaccard]

    short = [clip[:, :24000] for clip in clips]
    batch = tracker.cals_pitch_metric(torch.cat(short), torch.cat(short[::-1]), "both")
    assert len(batch) == 2 and batch[0] == tracker.cals_pitch_metric(*short, "both")[0]

    distances, first, second = tracker.cals_pitch_metric(*short, plot=True, specs_back=True)
    assert (
        len(distances) == 1
        and first.shape == second.shape == (1, 94, 12)
        and isinstance(first, np.ndarray)
    )
    distances, tags = tracker.cals_pitch_metric(*short, plot=True, window_size=5)
    assert (
        len(distances) == 1 and base64.b64decode(tags[0].split(",")[1].split('"')[0])[1:4] == b"PNG"
    )
    with pytest.raises(InputError, match='choose "dtw", "jaccard" or "both"'):
        tracker.cals_pitch_metric(*clips, "dpd")


def test_median_filter_runs_over_time_only(clips: list[torch.Tensor]):
    """The original's filter also ran over the batch: a single clip's melody became zero."""
    tracker = compat.PitchTracker()
    assert tracker.cals_pitch_metric(*clips, "both", window_size=5)[0][0] > 0.5


def test_pictures_and_players(clips: list[torch.Tensor], monkeypatch):
    pytest.importorskip("IPython")
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    for waveform in (clips[0][0], clips[0], clips[0][None], clips[0].numpy()):
        compat.plot_spec(waveform[..., :24000], "a clip")
        assert shown[-1].axes[0].get_title() == "a clip"
        plt.close(shown[-1])
        player = compat.play_audio(waveform[..., :24000])
        assert player.data[:4] == b"RIFF"
    assert len(shown) == 4


def test_arguments_without_a_counterpart():
    small = {
        "channels": 32,
        "multipliers": [1, 1],
        "factors": [2],
        "num_blocks": [1],
        "attentions": [0, 0],
    }
    compat.AudioDiffusionModel(**small, context_channels=None, use_context_features=False)
    with pytest.raises(InputError, match="context_channels is not supported"):
        compat.AudioDiffusionModel(**small, context_channels=[4])
