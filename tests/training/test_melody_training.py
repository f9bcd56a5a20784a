"""Training with a melody input, from audio, from the latent cache and from packed latents."""

import pytest
import torch
from conftest import TINY_SMALL, TINY_UNET
from conftest import melody as tone
from torch.utils._python_dispatch import TorchDispatchMode

from audio_diffusion_pytorch.data.packed import PackedRecording, PackMetadata, write_pack
from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.models.loading import load_instrument
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.pitch.melody_input import melody_input
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule
from audio_diffusion_pytorch.training.resume import initialise_from

M = 264
TINY = [
    *(
        argument
        for argument in TINY_SMALL
        if "codec" not in argument and "num_workers" not in argument
    ),
    "codec=small",
    "datamodule.batch_size=4",
    "datamodule.valid_items=3",
    "loggers=csv",
    "trainer.log_every_n_steps=1",
    "total_steps=4",
]


def module(codec, melody_channels=M, **settings):
    torch.manual_seed(0)
    net = UNet1d(**TINY_UNET, melody_channels=melody_channels)
    return InstrumentModule(net, codec, KDistribution(0.01, 10.0), **settings)


@pytest.fixture(scope="module")
def pack(tmp_path_factory, codec):
    generator = torch.Generator().manual_seed(0)
    recordings = [
        PackedRecording(
            torch.randn(60, 128, generator=generator) - 4,
            torch.rand(60, M, generator=generator),
            "flute",
            varied=index % 2 == 1,
            valid=index > 3,
        )
        for index in range(6)
    ]
    path = tmp_path_factory.mktemp("pack") / "flute.safetensors"
    metadata = PackMetadata("small", codec.fingerprint(), 24000, codec.hop_length, ("flute",), 0.1)
    write_pack(path, recordings, metadata)
    return path


@pytest.fixture
def train(command, codec_file, pack):
    def run(*arguments):
        return command(
            "train.py",
            "exp=flute_melody",
            f"dataset_path={pack}",
            *TINY,
            f"codec.name={codec_file}",
            *arguments,
        )

    return run


def state_of(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_melody_dropout(codec):
    trained = module(codec, melody_dropout=0.25)
    z, melody = torch.zeros(200, 128, 2), torch.ones(200, M, 2)
    for keyed_by in ("sample", "batch"):
        trained.hparams.keyed_by = keyed_by
        dropped = trained.draw_with_melody(z, 0, melody=melody)[3]
        assert dropped.shape == (200, M + 1, 2)
        given = dropped[:, -1, 0]
        assert torch.equal(dropped, given[:, None, None].expand_as(dropped))
        # 200 draws: four standard deviations.
        assert float(given.mean()) == pytest.approx(0.75, abs=0.13)


def test_random_numbers_without_melody_stay(codec):
    with_input, without = module(codec), module(codec, 0)
    z, label = torch.zeros(3, 128, 4), torch.zeros(3, dtype=torch.long)
    drawn = with_input.draw_with_melody(z, 7, 0, label, torch.zeros(3, M, 4))
    for here, there in zip(drawn[:3], without.draw(z, 7, 0, label), strict=True):
        assert torch.equal(here, there)


def test_a_batch_keyed_as_a_whole(codec):
    trained = module(codec, keyed_by="batch")
    z = torch.zeros(64, 128, 8)
    noise, sigma, _ = trained.draw(z, 3)
    assert torch.equal(noise, trained.draw(z, 3)[0])
    assert not torch.equal(noise, trained.draw(z, 4)[0])
    assert not torch.equal(noise, trained.draw(z, 3, first=64)[0])
    assert len(sigma.unique()) == 64
    # 65,536 draws: five standard deviations.
    assert float(noise.mean()) == pytest.approx(0, abs=5 / 256)


@pytest.mark.long
def test_training_from_a_pack_resumes_bit_for_bit(train, tmp_path):
    steps = ["datamodule.batches_per_epoch=3"]
    result = train("exp_tag=whole", *steps)
    assert result.code == 0, result.err
    assert train("exp_tag=part", *steps, "trainer.max_steps=2").code == 0
    result = train("exp_tag=part", *steps, "ckpt=last")
    assert result.code == 0 and "different settings" not in result.err, result.err
    whole, part = (state_of(tmp_path / "logs" / name) for name in ("whole", "part"))
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[key], part[key]) for key in whole)
    assert whole["denoiser.net.to_melody.weight"].shape[1] == M + 1

    log = (tmp_path / "logs" / "whole").rglob("metrics.csv")
    header = next(log).read_text().splitlines()[0].split(",")
    assert {"valid_loss", "valid_loss_without_melody"} <= set(header)
    model = load_instrument(str(tmp_path / "logs" / "whole"))
    assert model.spec.unet["melody_channels"] == M
    assert model.spec.level_db == pytest.approx(-20)


class ReadsOfValues(TorchDispatchMode):
    """Count the operations that read a value from a tensor, for which a GPU would wait."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.long
def test_no_step_waits_for_the_device(train, monkeypatch):
    mode = ReadsOfValues()
    counts = []
    step = InstrumentModule.training_step

    def counted(*arguments):
        counts.append(mode.count)
        return step(*arguments)

    monkeypatch.setattr(InstrumentModule, "training_step", counted)
    with mode:
        result = train("total_steps=12", "trainer.log_every_n_steps=50", "log_every_n_steps=100")
    assert result.code == 0, result.err
    assert len(counts) == 12 and counts[-1] == counts[3]  # the first step moves the progress bar


def test_a_pack_of_another_codec(train, pack, tmp_path, codec):
    other = tmp_path / "other.safetensors"
    frames = torch.zeros(60, 128), torch.zeros(60, M)
    recordings = [PackedRecording(*frames, "flute", valid=valid) for valid in (False, True)]
    write_pack(other, recordings, PackMetadata("x", "0" * 16, 24000, 256, ("flute",), 0.1))
    error = train(f"dataset_path={other}").error()
    assert f"the codec x ({'0' * 16}), but this run uses the codec small" in error
    assert codec.fingerprint() in error


def test_a_dry_run_and_a_start_from_a_model_without_melody(train, make_instrument, tmp_path):
    make_instrument(codec="small").save(tmp_path / "flute.safetensors")
    result = train("dry_run=true", "init_from=flute.safetensors")
    assert result.code == 0, result.err
    assert "has no melody input" in result.out and "items for training, 3 for valid" in result.out


def test_a_start_without_the_melody_input_of_the_source(codec, make_instrument, tmp_path):
    unet = {**TINY_UNET, "melody_channels": M}
    path = tmp_path / "flute.safetensors"
    source = make_instrument(codec="small", unet=unet)
    torch.nn.init.normal_(source.denoiser.net.to_melody.bias)
    source.save(path)
    trained = module(codec, 0)
    initialise_from(trained, str(path))
    x, c_noise = torch.randn(2, 128, 8), torch.zeros(2)
    expected = source.denoiser.net(x, c_noise)  # the melody is dropped
    torch.testing.assert_close(trained.denoiser.net(x, c_noise), expected, rtol=0.01, atol=0.01)


def test_audio_becomes_latents_and_melody(codec):
    trained = module(codec)
    wav = torch.from_numpy(tone(0.2))[None, None]
    z, melody = trained.network_inputs(wav)
    frames = codec.num_frames(wav.shape[2])
    padded = frames + frames % 2
    assert z.shape == (1, 128, padded) and melody.shape == (1, M, padded)
    assert torch.equal(melody[..., :frames], melody_input(wav[:, 0], 24000, codec.hop_length))
    assert module(codec, 0).network_inputs(wav)[1] is None


@pytest.mark.long
@pytest.mark.parametrize("cache", ["true", "false"])
def test_training_from_recordings(command, codec_file, recordings, tmp_path, cache):
    result = command(
        "train.py",
        "exp=flute_small",
        f"dataset_path={recordings}",
        *TINY_SMALL,
        "~codec.dim",
        "~codec.intermediate_dim",
        "~codec.num_layers",
        "codec=small",
        f"codec.name={codec_file}",
        "model.model.melody_channels=264",
        f"datamodule.cache={cache}",
        "datamodule.dataset.augment=null",
        "datamodule.batch_size=2",
        "octaves=null",
        "total_steps=4",
        "exp_tag=run",
    )
    assert result.code == 0, result.err
    assert state_of(tmp_path / "logs" / "run")["mean"].shape == (128,)
