"""Optimal-transport coupling: known plans, marginals, and no effect if it is off."""

import numpy as np
import pytest
import torch
from conftest import TINY_CODEC, TINY_SMALL, TINY_UNET
from scipy.optimize import linear_sum_assignment

from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.diffusion.coupling import (
    ChunkCoupling,
    squared_distance,
    transport_plan,
)
from audio_diffusion_pytorch.diffusion.denoiser import KDistribution
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.unet import UNet1d
from audio_diffusion_pytorch.training.instrument_module import InstrumentModule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def permuted(z: torch.Tensor, channels: int, frames: int) -> torch.Tensor:
    """z [D, L] with its chunks in another order."""
    chunks = [piece for row in z.split(channels) for piece in row.split(frames, 1)]
    order = torch.randperm(len(chunks), generator=generator(1)).tolist()
    columns = z.shape[1] // frames
    return torch.cat(
        [
            torch.cat([chunks[k] for k in order[i : i + columns]], 1)
            for i in range(0, len(order), columns)
        ]
    )


@pytest.mark.parametrize(
    ("channels", "frames", "shape"), [(4, 4, (32, 40)), (2, 8, (16, 64)), (1, 4, (3, 20))]
)
def test_noise_that_is_the_data_in_another_order_is_put_in_order(channels, frames, shape):
    z = torch.randn(shape, generator=generator())
    assert torch.equal(
        ChunkCoupling(channels, frames)(z, permuted(z, channels, frames), generator()), z
    )


def test_the_plan_is_the_optimal_assignment_where_there_is_little_entropy():
    x, y = torch.randn(2, 96, 16, generator=generator())
    cost = squared_distance(x, y)
    torch.testing.assert_close(cost[3, 5], (x[3] - y[5]).square().mean())
    rows, columns = linear_sum_assignment(cost.numpy())
    plan = transport_plan(cost, 1e-3, 100)
    # Sinkhorn's plan is smoothed: it costs up to half a percent more than the best one.
    assert (plan * cost).sum() / len(x) == pytest.approx(
        float(cost[rows, columns].mean()), rel=5e-3
    )
    assert (plan.argmax(1)[rows] == torch.from_numpy(columns)).float().mean() > 0.9


def test_the_plan_of_two_points_in_closed_form():
    """By symmetry [[p, 1 - p], [1 - p, p]] with p / (1 - p) = exp(1 / eps) for costs 0 and 1."""
    plan = transport_plan(1 - torch.eye(2), 0.5, 100)
    p = torch.sigmoid(torch.tensor(2.0))
    torch.testing.assert_close(
        plan, torch.stack([torch.stack([p, 1 - p]), torch.stack([1 - p, p])])
    )


@pytest.mark.parametrize("regularisation", [1e-3, 0.1])
def test_marginals(regularisation):
    """Every chunk of noise is used once on average, even for data close together on a line."""
    line, spread, y = (torch.randn(256, width, generator=generator(width)) for width in (1, 15, 16))
    x = 0.9 * line + 0.4 * torch.cat([line, spread], 1)
    plan = transport_plan(squared_distance(x, y), regularisation, 100)
    torch.testing.assert_close(plan.sum(1), torch.ones(256))
    assert plan.sum(0).std() < 0.06 and plan.sum(0).max() < 1.4


def test_coupled_noise_is_normal_and_nearer():
    z, noise = torch.randn(2, 64, 128, generator=generator())
    coupled = ChunkCoupling()(z, noise, generator())
    assert set(coupled.flatten().tolist()) <= set(noise.flatten().tolist())
    assert abs(coupled.mean()) < 0.03 and abs(coupled.std() - 1) < 0.03
    assert abs((coupled**4).mean() - 3) < 0.3
    assert (coupled - z).square().mean() < 0.45 * (noise - z).square().mean()


def test_deterministic_and_drawn_from_the_generator():
    z, noise = torch.randn(2, 32, 32, generator=generator())
    coupling = ChunkCoupling(regularisation=0.5)  # much entropy: many draws are possible
    one, same, other = (coupling(z, noise, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    state = torch.random.get_rng_state()
    coupling(z, noise, generator())
    assert torch.equal(state, torch.random.get_rng_state())


def test_groups_bound_the_plan():
    def groups(chunks: int, limit: int) -> int:
        return ChunkCoupling(1, 1, group=limit)._groups(chunks)

    assert [groups(10240, 512), groups(10240, 20000), groups(2048, 512), groups(7, 3)] == [
        20,
        1,
        4,
        7,
    ]
    z = torch.arange(32 * 24.0).reshape(32, 24)
    coupling = ChunkCoupling(group=10)
    cut = coupling._cut(z)
    assert cut.shape == (6, 8, 16)
    assert torch.equal(coupling._join(cut, z.shape), z)
    assert torch.equal(cut[1, 0], z[4:8, :4].flatten()) and torch.equal(
        cut[2, 1], z[:4, 4:8].flatten()
    )


@pytest.mark.parametrize("sizes", [{"channels": 3}, {"frames": 5}])
def test_chunks_that_do_not_fit(sizes):
    z = torch.zeros(32, 32)
    with pytest.raises(InputError, match=r"must divide the latents' 32 channels and 32 frames"):
        ChunkCoupling(**sizes)(z, z)


@pytest.mark.parametrize(
    "setting", [{"channels": 0}, {"frames": 2.5}, {"regularisation": 0.0}, {"group": -1}]
)
def test_sizes_that_are_none(setting):
    with pytest.raises(InputError, match=f"model.coupling.{next(iter(setting))}"):
        ChunkCoupling(**setting)


def module(**settings) -> InstrumentModule:
    torch.manual_seed(0)
    return InstrumentModule(
        UNet1d(**TINY_UNET), MelCodec(**TINY_CODEC), KDistribution(0.01, 10), seed=3, **settings
    )


def test_in_training():
    """Coupling changes only the noise, and each sample independently of its batch."""
    z = torch.randn(3, 128, 16, generator=generator())
    off, on = module(), module(coupling=ChunkCoupling())
    noise, sigma, _ = off.draw(z, 5)
    coupled, same, _ = on.draw(z, 5)
    assert torch.equal(sigma, same) and not torch.equal(noise, coupled)
    assert torch.equal(coupled[:2], on.draw(z[:2], 5)[0])
    assert torch.equal(coupled[1], on.coupling(z[1], noise[1], _after_draws(on, z, 5, 1)))
    assert "coupling" not in on.hparams and on.state_dict().keys() == off.state_dict().keys()


def _after_draws(
    module: InstrumentModule, z: torch.Tensor, step: int, index: int
) -> torch.Generator:
    """The generator of a sample, after its sigma and its noise."""
    key = np.random.SeedSequence([module.hparams.seed, step, index]).generate_state(1, np.uint64)
    key = torch.Generator().manual_seed(int(key[0]) >> 1)
    torch.rand((), generator=key)
    torch.randn(z.shape[1:], generator=key)
    return key


def test_through_the_command(command, recordings):
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=2",
    )
    settings = (*settings, "trainer.max_steps=1", "log_every_n_steps=1", "model/coupling=chunks")
    result = command(
        "train.py", *settings, "model.coupling.frames=2", "model.coupling.iterations=5"
    )
    assert result.code == 0, result.err
    error = command("train.py", *settings, "exp_tag=other").error()
    assert "model.coupling.frames=4 must divide the latents' 128 channels and 30 frames" in error
