"""Frechet distance: closed forms, pooling, singular sets."""

import numpy as np
import pytest
import torch

from audio_diffusion_pytorch.metrics.frechet import Moments, codec_embedder, frechet_distance


def frames(
    count: int = 4000, dims: int = 6, scale: float = 1.0, shift: float = 0.0, seed: int = 0
) -> torch.Tensor:
    return (
        scale
        * torch.randn(
            dims, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        + shift
    )


def test_a_set_is_no_distance_from_itself():
    moments = Moments.of(frames())
    # float64.
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-9)


def test_a_shift_and_a_scale_have_closed_forms():
    x = frames()
    a = Moments.of(x)
    assert frechet_distance(a, Moments.of(x + 3)) == pytest.approx(6 * 9)
    trace = float(np.trace(a.mean_and_covariance()[1]))
    centred = x - x.mean(1, keepdim=True)
    assert frechet_distance(Moments.of(centred), Moments.of(3 * centred)) == pytest.approx(
        trace * 4
    )


def test_full_covariances_against_the_plain_formula():
    generator = np.random.default_rng(0)
    mix = torch.from_numpy(generator.normal(size=(2, 6, 6)))
    a, b = (Moments.of(m @ frames(seed=i)) for i, m in enumerate(mix))
    (mean_a, cov_a), (mean_b, cov_b) = a.mean_and_covariance(), b.mean_and_covariance()
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real.sum()
    expected = np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_clips_pool_to_the_moments_of_all_their_frames():
    x = frames(300)
    whole, parts = Moments.of(x), Moments.pool([Moments.of(x[:, :100]), Moments.of(x[:, 100:])])
    assert parts.count == whole.count == 300
    for found, expected in zip(
        parts.mean_and_covariance(), whole.mean_and_covariance(), strict=True
    ):
        assert np.allclose(found, expected)
    assert np.allclose(whole.mean_and_covariance()[1], np.cov(x.numpy()))


def test_too_few_frames_are_known_and_singular_ones_finite():
    few, constant = Moments.of(frames(20)), Moments.of(torch.ones(6, 100))
    assert not few.enough() and constant.enough()
    assert (
        np.isfinite(frechet_distance(few, constant)) and frechet_distance(constant, constant) == 0
    )


def test_a_codec_embeds_its_latents_under_its_name(codec):
    embedder = codec_embedder(codec)
    wav = 0.1 * torch.randn(2, 3200, generator=torch.Generator().manual_seed(0))
    assert embedder.name == "small codec" and embedder.sample_rate == codec.sample_rate
    assert torch.equal(embedder.embed(wav), codec.encode(wav[:, None]))
