"""The training module: source of the statistics, random keys, export."""

from pathlib import Path

import pytest
import torch
from conftest import RATE, TINY_UNET

from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_statistics import latent_statistics
from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule


def make(codec, **settings) -> InstrumentModule:
    torch.manual_seed(0)
    return InstrumentModule(UNet1d(**TINY_UNET), codec, KDistribution(0.01, 10.0), **settings)


@pytest.fixture
def data(recordings):
    return Datamodule(InstrumentDataset(str(recordings), ["flute"], length=9600), batch_size=2)


def test_statistics_are_computed_and_on_resume_left_alone(codec, data, tmp_path, monkeypatch):
    module = make(codec)
    module.prepare(data, tmp_path, None)
    mean, std, level = latent_statistics(codec, data)
    assert (
        torch.allclose(module.mean, mean)
        and torch.allclose(module.std, std)
        and module.level == level
    )
    z = module.normalised_latents(torch.cat(list(data.train_dataloader())))
    # The statistics are of other crops of the same files.
    assert abs(float(z.mean())) < 0.1 and float(z.std()) == pytest.approx(1, abs=0.1)

    # A resumed run does not compute the statistics again.
    monkeypatch.setattr(
        "audio_diffusion_pytorch.training.instrument_module.latent_statistics", None
    )
    again = make(codec)
    again.prepare(data, tmp_path, "last.ckpt")
    again.load_state_dict(module.state_dict())  # as the checkpoint does
    assert torch.equal(again.mean, module.mean) and torch.equal(again.level, module.level)


def test_statistics_from_files(codec, data, tmp_path):
    # The original's notebooks save tensors [128, 1].
    torch.save(torch.arange(128.0)[:, None], tmp_path / "m=1.pt")
    torch.save(torch.full((128,), 2.0), tmp_path / "s.pt")
    module = make(codec, mean_path=str(tmp_path / "m=1.pt"), std_path=str(tmp_path / "s.pt"))
    module.prepare(data, tmp_path / "run", None)
    assert module.mean.tolist() == list(range(128)) and (module.std == 2).all()
    assert module.spec.level_db is None


def test_statistics_that_cannot_be_used(codec, data, tmp_path):
    torch.save(torch.zeros(3), tmp_path / "m.pt")
    for settings, says in [
        ({"mean_path": str(tmp_path / "m.pt")}, "both mean_path and std_path"),
        (
            {"mean_path": str(tmp_path / "m.pt"), "std_path": str(tmp_path / "m.pt")},
            "statistics have 3 values, expected 128",
        ),
        ({"mean_path": "none.pt", "std_path": "none.pt"}, "no such file"),
    ]:
        with pytest.raises(InputError, match=says):
            make(codec, **settings).prepare(data, tmp_path / "run", None)


def test_a_network_for_another_codec():
    codec = EncodecCodec("random", config={"n_filters": 4, "dimension": 16, "lstm": 1})
    with pytest.raises(InputError, match=r"in_channels=128, but the codec encodec has 16"):
        make(codec)


@pytest.mark.parametrize("length", [1, 320, 4000, 9600])
def test_latents_are_padded_to_what_the_network_takes(length, codec):
    z = make(codec).normalised_latents(torch.zeros(1, 1, length))
    assert z.shape[-1] % 2 == 0 and z.shape[-1] - codec.num_frames(length) in (0, 1)


def test_noise_is_keyed_by_seed_step_and_the_samples_index(codec):
    z = torch.zeros(4, 128, 8)
    module = make(codec, seed=3)
    noise, sigma, _ = module.draw(z, step=5)
    assert noise.shape == z.shape and sigma.shape == (4,)
    torch.manual_seed(99)
    again = make(codec, seed=3).draw(z, step=5)
    assert torch.equal(noise, again[0]) and torch.equal(sigma, again[1])
    half = module.draw(z[:2], step=5)
    assert torch.equal(half[0], noise[:2]) and torch.equal(half[1], sigma[:2])
    for other in (module.draw(z, step=6), make(codec, seed=4).draw(z, step=5)):
        assert not torch.isclose(other[0], noise).any(0).all() and not torch.equal(other[1], sigma)
    assert len({tuple(row) for row in noise.flatten(1).tolist()}) == 4


def test_two_processes_draw_as_one_with_twice_the_batch(codec):
    z = torch.zeros(4, 128, 8)
    module = make(codec)
    whole, second = module.draw(z, 1), module.draw(z[:2], 1, first=2)
    assert torch.equal(second[0], whole[0][2:]) and torch.equal(second[1], whole[1][2:])


def test_noise_is_standard_normal_and_sigma_follows_the_distribution(codec):
    module = make(codec)
    noise, sigma, _ = module.draw(torch.zeros(400, 128, 4), 0)
    # Of 204,800 normal numbers: four standard errors.
    assert abs(float(noise.mean())) < 0.01 and float(noise.std()) == pytest.approx(1, abs=0.01)
    expected = module.sigma_distribution.icdf(torch.tensor([0.25, 0.5, 0.75]))
    # Quantiles of some hundred draws from a wide distribution.
    assert torch.allclose(sigma.quantile(torch.tensor([0.75, 0.5, 0.25])), expected, rtol=0.35)


def test_optimiser_and_schedule(codec):
    optimizer = make(codec).configure_optimizers()["optimizer"]
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        1e-4,
        (0.95, 0.999),
        1e-6,
        1e-3,
    )
    scheduled = make(codec, total_steps=50).configure_optimizers()["lr_scheduler"]
    assert scheduled["interval"] == "step" and scheduled["scheduler"].total_steps == 50


def test_export_holds_the_averaged_weights(codec, data, tmp_path):
    module = make(codec, name="flute", length=9600)
    module.prepare(data, tmp_path, None)
    with torch.no_grad():
        for p in module.denoiser.parameters():
            p.add_(1.0)
    module.export(tmp_path / "flute.safetensors")
    model = load_instrument(tmp_path / "flute.safetensors")
    for key, value in module.ema.model.net.state_dict().items():
        assert torch.equal(model.denoiser.net.state_dict()[key], value.half().float())
    spec = model.spec
    assert (spec.name, spec.codec, spec.frames) == ("flute", "small", 30)
    assert (spec.sigma_min, spec.sigma_max, spec.rho, spec.unet) == (
        0.01,
        10.0,
        7.0,
        module.denoiser.net.config,
    )
    assert -40 < spec.level_db < 0


def test_the_codec_is_no_part_of_the_state(codec):
    module = make(codec)
    assert not any("backbone" in key or "mel" in key for key in module.state_dict())
    assert {key.split(".")[0] for key in module.state_dict()} == {
        "denoiser",
        "ema",
        "mean",
        "std",
        "level",
    }
    assert module.codec.sample_rate == RATE


def test_labels_are_dropped_now_and_then(codec):
    """... to the network's last one, which no crop has."""
    torch.manual_seed(0)
    names = ["flute", "violin", "plain", "varied"]
    net = UNet1d(**TINY_UNET, num_labels=4)
    module = InstrumentModule(net, codec, KDistribution(0.01, 10.0), labels=names)
    label = torch.arange(4).repeat(50)
    dropped = module.draw(torch.zeros(200, 128, 2), 0, label=label)[2]
    assert torch.equal(label, torch.arange(4).repeat(50))  # the caller's labels stay
    kept = dropped < 4
    assert 5 < int((dropped == 4).sum()) < 40 and torch.equal(dropped[kept], label[kept])
    with pytest.raises(
        InputError, match=r"labels=\['flute'\] make 1 labels, and model\.model\.num_labels is 4"
    ):
        InstrumentModule(net, codec, KDistribution(0.01, 10.0), labels=["flute"])


def test_each_instrument_has_its_own_statistics(codec, recordings):
    """Normalised latents do not reveal the average spectrum: only labels tell instruments apart."""
    names = ["flute", "violin", "plain", "varied"]
    dataset = InstrumentDataset(
        str(recordings), ["flute", "violin"], length=9600, labels=names, crops_per_file=8
    )
    data = Datamodule(dataset, batch_size=4)
    module = InstrumentModule(
        UNet1d(**TINY_UNET, num_labels=4), codec, KDistribution(0.01, 10.0), labels=names
    )
    module.prepare(data, Path(), None)
    assert module.mean.shape == module.std.shape == (2, codec.latent_channels)
    batches = list(data.train_dataloader())
    wav, label = (torch.cat(parts) for parts in zip(*batches, strict=True))
    z = module.normalised_latents(wav, label)
    for number in (0, 1):
        own = z[label % 2 == number]
        assert own.mean((0, 2)).abs().max() < 0.05 and (own.std((0, 2)) - 1).abs().max() < 0.1
    # Two instruments differ by far more than rounding.
    assert not torch.allclose(module.mean[0], module.mean[1], atol=0.1)
