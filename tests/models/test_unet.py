"""UNet: published names and shapes, the reference's output, every option."""

import json

import pytest
import torch
from conftest import DATA, TINY_UNET, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import NETWORK, ROUNDING

from audio_diffusion_pytorch.models.layers import (
    Attention,
    FourierFeatures,
    PatchBlock,
    UnpatchBlock,
    keep_strongest_pitch,
    upsample,
)
from audio_diffusion_pytorch.models.original_checkpoint import load_unet_state
from audio_diffusion_pytorch.models.unet import UNet1d, fold_label

SMALL = dict(
    in_channels=4,
    channels=32,
    multipliers=[1, 1, 2],
    factors=[2, 3],
    num_blocks=[1, 1],
    attentions=[0, 1, 1],
    attention_heads=2,
    attention_features=8,
    resnet_groups=4,
)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def shapes(net: UNet1d) -> dict[str, list[int]]:
    return {f"unet.{name}": list(value.shape) for name, value in net.state_dict().items()}


def test_published_size_has_the_published_names_and_shapes():
    published = json.loads((DATA / "unet_keys.json").read_text())
    with torch.device("meta"):
        net = UNet1d(**published["config"])
        by_default = UNet1d()
    assert shapes(net) == published["keys"]
    assert shapes(by_default) == published["keys"]
    assert len(published["keys"]) == 497
    assert sum(p.numel() for p in net.parameters()) == 302_333_632


def test_output_equals_the_reference():
    golden = torch.load(DATA / "tiny_golden.pt", weights_only=True)
    net = UNet1d(**golden["arch"])
    net.load_state_dict(load_unet_state(DATA / "tiny_reference.ckpt", unet=golden["arch"]))
    with torch.no_grad():
        output = net(golden["latents"], golden["sigmas_in"].log() / 4)
        again = net(golden["latents"], golden["sigmas_in"].log() / 4)
        alone = net(golden["latents"][1:], golden["sigmas_in"][1:].log() / 4)
    assert relative_error(output, golden["unet_out"]) < NETWORK
    assert torch.equal(output, again)
    assert relative_error(alone, output[1:]) < NETWORK  # samples of a batch do not see each other


@st.composite
def architectures(draw) -> dict:
    levels = draw(st.integers(1, 3))

    def numbers(low: int, high: int, length: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=length, max_size=length))

    attentions = numbers(0, 2, levels + 1)
    patch_factor = draw(st.sampled_from([1, 2, 4]))
    outer = st.sampled_from([1, 4, 8] if patch_factor > 1 else [1, 3, 5, 8])
    return dict(
        in_channels=draw(outer),
        out_channels=draw(st.none() | outer),
        channels=32 if any(attentions) else 16,
        patch_factor=patch_factor,
        multipliers=numbers(1, 2, levels + 1),
        factors=numbers(1, 5, levels),
        num_blocks=numbers(1, 2, levels),
        attentions=attentions,
        attention_heads=draw(st.integers(1, 3)),
        attention_features=draw(st.sampled_from([4, 8])),
        attention_multiplier=draw(st.integers(1, 2)),
        resnet_groups=draw(st.sampled_from([1, 4, 8])),
        kernel_multiplier_downsample=draw(st.sampled_from([2, 4])),
        use_nearest_upsample=draw(st.booleans()),
        use_skip_scale=draw(st.booleans()),
    )


@settings(max_examples=examples(25))
@given(arch=architectures(), times=st.integers(1, 3))
def test_any_legal_architecture_maps_shape_to_shape(arch: dict, times: int):
    torch.manual_seed(0)
    net = UNet1d(**arch)
    x = torch.randn(2, arch["in_channels"], times * net.downsample_factor)
    output = net(x, torch.tensor([-1.0, 0.5]))
    assert output.shape == (2, arch["out_channels"] or arch["in_channels"], x.shape[2])
    output.square().mean().backward()
    without = [
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without == []  # every parameter is used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(multipliers=[1, 2]),
            r"multipliers must be 3 numbers of at least 1 for 2 factors, got \[1, 2\]",
        ),
        (dict(multipliers=[1, 0, 2]), "multipliers"),
        (dict(factors=[]), "factors must be 1 numbers"),
        (dict(factors=[2, 0]), "factors"),
        (dict(num_blocks=[1]), "num_blocks"),
        (dict(num_blocks=[1, 0]), "num_blocks"),
        (dict(attentions=[0, 1]), "attentions"),
        (dict(attentions=[0, -1, 1]), "attentions"),
        (dict(channels=33), "channels must be even, got 33"),
        (
            dict(channels=16, attentions=[1, 0, 0]),
            r"attentions\[0\] = 1 requires channels divisible by 32.* has 16",
        ),
        (
            dict(channels=16, multipliers=[1, 2, 3]),
            r"attentions\[1\] = 1 requires channels divisible by 32.* has 48",
        ),
        (dict(resnet_groups=5), "resnet_groups 5 must divide the 32 channels of level 0"),
        (dict(resnet_groups=0), "resnet_groups must be at least 1, got 0"),
        (dict(kernel_multiplier_downsample=3), "kernel_multiplier_downsample must be even, got 3"),
        (dict(patch_factor=3), "patch_factor 3 must divide the 32 channels"),
        (dict(patch_factor=2, in_channels=5), "in_channels = 5"),
        (dict(patch_factor=2, out_channels=3), "out_channels = 3"),
        (dict(in_channels=0), "in_channels must be at least 1, got 0"),
        (dict(attention_heads=0), "attention_heads"),
    ],
)
def test_arguments_that_do_not_fit_are_named_with_their_values(change: dict, message: str):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        UNet1d(**SMALL | change)


@pytest.mark.parametrize("length", [0, 1, 5, 7, 13])
def test_length_must_be_a_multiple(length: int):
    net = UNet1d(**SMALL)
    assert net.downsample_factor == 6
    with pytest.raises(ValueError, match=f"length must be a multiple of 6, got {length}"):
        net(torch.zeros(1, 4, length), torch.zeros(1))


@pytest.mark.parametrize("shape", [(1, 5, 6), (4, 6), (1, 1, 4, 6)])
def test_shape_of_the_input_is_checked(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"x must be \[B, 4, T\]"):
        UNet1d(**SMALL)(torch.zeros(shape), torch.zeros(1))


def test_patches_count_in_the_length():
    net = UNet1d(**SMALL, patch_factor=2)
    assert net.downsample_factor == 12
    assert net(torch.randn(1, 4, 24), torch.zeros(1)).shape == (1, 4, 24)
    with pytest.raises(ValueError, match="multiple of 12, got 6"):
        net(torch.zeros(1, 4, 6), torch.zeros(1))


def test_groups_around_a_patch():
    patch, unpatch = PatchBlock(4, 32, 2, 8), UnpatchBlock(32, 4, 2, 8)
    norms = [n for n in [*patch.modules(), *unpatch.modules()] if isinstance(n, torch.nn.GroupNorm)]
    assert [(n.num_groups, n.num_channels) for n in norms] == [(2, 4), (2, 16), (2, 16), (2, 4)]
    assert PatchBlock(1, 32, 2, 8).block.block1.groupnorm.num_groups == 1


class Pass(torch.nn.Module):
    def forward(self, x, mapping):
        return x


def test_patches_are_laid_out_channel_first():
    patch, unpatch = PatchBlock(2, 6, 3, 8), UnpatchBlock(6, 2, 3, 8)
    patch.block = unpatch.block = Pass()
    x = torch.arange(12.0).reshape(1, 2, 6)
    expected = torch.tensor([[[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11.0]]])
    assert torch.equal(patch(x, None), expected)
    assert torch.equal(unpatch(expected, None), x)


def test_upsampling_corners():
    x = torch.randn(1, 4, 5)
    same = upsample(4, 2, factor=1, nearest=True)
    assert (
        isinstance(same, torch.nn.Conv1d)
        and same.kernel_size == (3,)
        and same(x).shape == (1, 2, 5)
    )
    nearest = upsample(4, 2, factor=3, nearest=True)
    assert torch.allclose(nearest(x), nearest[1](x.repeat_interleave(3, dim=2)))
    for factor in (2, 3, 4, 5):
        assert upsample(4, 2, factor)(x).shape == (1, 2, 5 * factor)


def test_attention_equals_its_definition():
    torch.manual_seed(0)
    attention = Attention(features=10, heads=3, head_features=4)
    q, k, v = torch.randn(3, 2, 7, 12)
    split = [a.reshape(2, 7, 3, 4) for a in (q, k, v)]
    weights = (torch.einsum("bihd,bjhd->bhij", *split[:2]) / 4**0.5).softmax(dim=-1)
    expected = attention.to_out(
        torch.einsum("bhij,bjhd->bihd", weights, split[2]).reshape(2, 7, 12)
    )
    assert torch.allclose(attention(q, k, v), expected, atol=ROUNDING)


def test_fourier_features():
    features = FourierFeatures(4)
    features.weights.data = torch.tensor([0.25, 0.5])
    expected = torch.tensor([[1.0, 1, 0, 0, -1], [0.0, 0, 0, 1, 1]])
    assert torch.allclose(features(torch.tensor([1.0, 0.0])), expected, atol=ROUNDING)


def test_labels_change_the_output_and_fold_into_a_network_without():
    torch.manual_seed(0)
    net = UNet1d(**TINY_UNET, num_labels=3).eval()
    x = torch.randn(2, 128, 8)
    c_noise = torch.tensor([0.1, -0.3])
    # Embeddings of labels are initialised to zero.
    assert torch.equal(net(x, c_noise), net(x, c_noise, torch.tensor([0, 2])))
    torch.nn.init.normal_(net.to_label.weight)
    outputs = [net(x, c_noise, torch.tensor([label, label])) for label in range(3)]
    assert (
        not torch.isclose(outputs[0], outputs[1]).all()
        and not torch.isclose(outputs[1], outputs[2]).all()
    )
    # The last row stands for no label.
    assert torch.equal(net(x, c_noise), net(x, c_noise, torch.tensor([3, 3])))
    plain = UNet1d(**TINY_UNET).eval()
    plain.load_state_dict(fold_label(net.state_dict(), 1))
    assert torch.allclose(plain(x, c_noise), outputs[1], atol=NETWORK)


def test_a_network_with_a_melody_input_and_without_melody():
    torch.manual_seed(0)
    sizes = {"in_channels": 8, "channels": 8, "multipliers": [1, 2], "factors": [2]}
    sizes |= {"num_blocks": [1], "attentions": [0, 0], "resnet_groups": 2}
    net = UNet1d(**sizes, melody_channels=3).eval()
    x, c_noise = torch.randn(2, 8, 16), torch.zeros(2)
    melody = torch.rand(2, 3, 16)
    given = net(x, c_noise, melody=melody)
    assert not torch.allclose(given, net(x, c_noise))
    dropped = torch.cat([melody, torch.ones(2, 1, 16)], 1) * torch.tensor([1.0, 0.0])[:, None, None]
    torch.testing.assert_close(net(x, c_noise, melody=dropped)[0], given[0])
    torch.testing.assert_close(net(x, c_noise, melody=dropped)[1], net(x, c_noise)[1])
    assert UNet1d(**net.config).melody_channels == 3


def test_a_single_pitch_hides_strength_and_partials():
    melody = torch.full((1, 60, 30), 0.05)
    melody[:, 20, :15] = torch.linspace(0.3, 0.9, 15)
    melody[:, 40, 15:] = 0.6
    melody[:, 50] = 0.2  # a weaker partial
    kept = keep_strongest_pitch(melody)
    assert (kept > 0).sum(1).eq(9).all() and kept[:, 50].eq(0).all()
    sure = [*range(13), *range(17, 30)]  # between the notes, the running mean holds both
    assert kept.argmax(1)[0, sure].tolist() == [20] * 13 + [40] * 13
    torch.testing.assert_close(kept.amax(1)[:, sure], torch.ones(1, 26))
    silence = keep_strongest_pitch(torch.full((2, 60, 3), 0.01))  # shorter than the running mean
    assert silence.amax() <= 0.05 + ROUNDING


def test_a_network_with_a_single_pitch():
    torch.manual_seed(0)
    sizes = {"in_channels": 8, "channels": 8, "multipliers": [1, 2], "factors": [2]}
    sizes |= {"num_blocks": [1], "attentions": [0, 0], "resnet_groups": 2}
    net = UNet1d(**sizes, melody_channels=60, single_pitch=True).eval()
    x, c_noise = torch.randn(1, 8, 16), torch.zeros(1)
    melody = torch.zeros(1, 60, 16)
    melody[:, 30] = 0.8
    output = net(x, c_noise, melody=melody)
    assert not torch.allclose(output, net(x, c_noise))
    melody[:, 42] = 0.4
    assert torch.equal(net(x, c_noise, melody=melody / 2), output)
    assert UNet1d(**net.config).single_pitch
    dropped = torch.zeros(1, 61, 16)
    torch.testing.assert_close(net(x, c_noise, melody=dropped), net(x, c_noise))


@pytest.mark.parametrize("patch_factor", [1, 2])
def test_a_melody_that_is_embedded_once_gives_the_same(patch_factor):
    torch.manual_seed(0)
    sizes = {"in_channels": 8, "channels": 8, "multipliers": [1, 2], "factors": [2]}
    sizes |= {"num_blocks": [1], "attentions": [0, 0], "resnet_groups": 2}
    net = UNet1d(**sizes, melody_channels=60, single_pitch=True, patch_factor=patch_factor).eval()
    x, c_noise, melody = torch.randn(2, 8, 16), torch.zeros(2), torch.rand(2, 60, 16)
    features = net.embed_melody(melody)
    assert torch.equal(net(x, c_noise, melody_features=features), net(x, c_noise, melody=melody))
    without = net(x, c_noise, melody_features=net.embed_melody(None))
    assert torch.equal(without, net(x, c_noise))
