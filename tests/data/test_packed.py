"""Packed latents: the file, its errors, and the batches, crops and statistics drawn from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import damage

from audio_diffusion_pytorch.data.packed import (
    LOWEST,
    STEP,
    PackedRecording,
    PackMetadata,
    dequantise,
    open_pack,
    open_packs,
    quantise,
    write_pack,
)
from audio_diffusion_pytorch.data.packed_datamodule import PackedDatamodule
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.labels import Labels

D, M, HOP = 6, 4, 256


def recording(seed, frames=40, instrument="flute", **settings):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(frames, D, generator=generator) - 4 + seed
    return PackedRecording(
        latents, torch.rand(frames, M, generator=generator), instrument, **settings
    )


def metadata(fingerprint="0123456789abcdef"):
    return PackMetadata("tiny", fingerprint, 24000, HOP, ("flute", "violin"), 0.1, "made here")


RECORDINGS = [
    recording(0),
    recording(1, 9),  # shorter than a crop
    recording(2, varied=True),
    recording(3, instrument="violin"),
    recording(4, valid=True),
    recording(5, valid=True, varied=True),
    recording(6, valid=True, instrument="violin"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    write_pack(file, RECORDINGS, metadata())
    return file


def make(path, **settings):
    return PackedDatamodule(
        path, **{"batch_size": 8, "length": 16 * HOP, "labels": ["plain", "varied"], **settings}
    )


def test_values_survive_within_half_a_step():
    latents = torch.linspace(LOWEST, LOWEST + 255 * STEP, 1001)
    # Half a step, and the rounding of float32 at magnitude 9.
    assert (dequantise(quantise(latents)) - latents).abs().max() <= STEP / 2 + 1e-5
    assert quantise(torch.tensor([-20.0, 20.0])).tolist() == [0, 255]


def test_a_pack_is_read_as_written(path):
    pack = open_pack(path)
    assert pack.metadata == metadata()
    for index, one in enumerate(RECORDINGS):
        rows = slice(int(pack.first[index]), int(pack.first[index] + pack.frames[index]))
        assert torch.equal(pack.latents[rows], quantise(one.latents))
        assert (pack.melody[rows] / 255 - one.melody).abs().max() <= 0.5 / 255 + 1e-6
    assert pack.instrument.tolist() == [0, 0, 0, 1, 0, 0, 1]
    assert pack.varied.tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert pack.split.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_unusable_packs(path, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    damage(copy)
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-5])
    for file, says in [
        (copy, "cannot read .* as packed latents"),
        (short, "cannot read .* as packed latents"),
        (tmp_path, "is not a file of packed latents"),
    ]:
        with pytest.raises(InputError, match=says):
            open_pack(file)
    with pytest.raises(InputError, match="no recording of the oboe, only of flute, violin"):
        make(path, instruments=["oboe"])
    with pytest.raises(InputError, match="holds recordings of violin, which none of the labels"):
        make(path, labels=["flute"])


def test_crops_lie_in_recordings_of_the_instrument(path):
    data = make(path, instruments=["flute"], batches_per_epoch=20)
    pack = open_pack(path)
    allowed = torch.cat([pack.latents[pack.first[i] :][: pack.frames[i]] for i in (0, 1, 2)])
    known = {tuple(row.tolist()) for row in allowed} | {(0,) * D}
    varied = []
    for features, label in data.train_dataloader():
        assert features.dtype == torch.uint8 and features.shape == (8, D + M, 16)
        for column in features[:, :D].transpose(1, 2).reshape(-1, D):
            assert tuple(column.tolist()) in known
        varied += label.tolist()
    # 160 draws: four standard deviations.
    assert np.mean(varied) == pytest.approx(0.6, abs=4 * 0.5 / np.sqrt(160))


@pytest.fixture
def violins(tmp_path):
    file = tmp_path / "violins.safetensors"
    known = replace(metadata(), instruments=("violin",), level=0.3, sources="made there")
    write_pack(file, [recording(7 + i, 25, "violin", valid=i == 3) for i in range(4)], known)
    return file


def test_several_packs_are_one(path, violins):
    joined = open_packs([path, violins])
    whole, added = open_pack(path), open_pack(violins)
    assert joined.metadata.instruments == ("flute", "violin")
    assert joined.metadata.level == pytest.approx(0.2)
    assert joined.metadata.sources == "made here\nmade there"
    assert joined.instrument.tolist() == [*whole.instrument.tolist(), 1, 1, 1, 1]
    for pack, first in ((whole, 0), (added, len(RECORDINGS))):
        for index in range(len(pack.first)):
            here, there = (
                slice(int(p.first[i]), int(p.first[i] + p.frames[i]))
                for p, i in ((pack, index), (joined, first + index))
            )
            assert torch.equal(pack.latents[here], joined.latents[there])
            assert torch.equal(pack.melody[here], joined.melody[there])
    assert open_packs(path).digest == open_packs([path]).digest == whole.digest != joined.digest


def test_packs_of_other_codecs_are_refused(path, tmp_path):
    other = tmp_path / "other.safetensors"
    write_pack(other, RECORDINGS, metadata("fedcba9876543210"))
    with pytest.raises(InputError, match="different codecs or melodies"):
        open_packs([path, other])
    with pytest.raises(InputError, match="dataset_path is empty"):
        open_packs([])


def test_each_labelled_instrument_is_drawn_equally_often(path, violins):
    """The flute has a third of the recordings, and varied copies."""
    data = make([path, violins], labels=["flute", "violin", "plain", "varied"])
    labels = torch.cat([label for _ in range(20) for _, label in data.train_dataloader()])
    share = (labels % 2).double().mean()
    # 2,560 draws: four standard deviations.
    assert len(labels) == 2560 and abs(share - 0.5) < 4 * 0.5 / len(labels) ** 0.5


def test_short_recordings_end_with_silence(path):
    data = make(path, instruments=["flute"])
    first = open_pack(path).first[1]
    features, _ = data.crops.batch(np.array([int(first)]))
    assert torch.equal(features[0, :D, :9], quantise(RECORDINGS[1].latents).T)
    assert not features[0, :, 9:].any()


def test_silent_crops_are_not_drawn(tmp_path):
    peak = torch.cat([torch.zeros(30), torch.ones(10)])
    path = tmp_path / "pack.safetensors"
    write_pack(path, [recording(0, peak=peak), recording(1, valid=True, peak=peak)], metadata())
    data = make(path, labels=None)
    assert min(data._draw(0, batch).min() for batch in range(50)) == 30 - 16 + 1


def test_processes_share_the_batches_of_one(path):
    class Trainer:
        world_size = 2
        global_rank = 0

    whole = make(path, batch_size=8)._draw(3, 5)
    parts = []
    for rank in range(2):
        data = make(path, batch_size=4)
        data.trainer = Trainer()
        data.trainer.global_rank = rank
        parts.append(data._draw(3, 5))
    assert np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(make(path, seed=1)._draw(3, 5), whole)


def test_validation_reads_fixed_unvaried_crops(path):
    data = make(path, instruments=["flute"], valid_items=5)
    batches = list(data.val_dataloader())
    again = list(data.val_dataloader())
    assert [len(label) for _, label in batches] == [5] and len(data.valid_set) == 5
    assert torch.equal(batches[0][0], again[0][0]) and not batches[0][1].any()


def test_statistics_are_those_of_the_drawn_crops(path):
    labels = Labels(["flute", "violin"])
    data = make(path, labels=["flute", "violin"], batch_size=1000)
    mean, std, level = data.statistics(labels)
    assert mean.shape == std.shape == (2, D) and float(level) == pytest.approx(0.1)
    features, label = data.crops.batch(np.concatenate([data._draw(0, i) for i in range(20)]))
    for number in range(2):
        drawn = dequantise(features[label == number][:, :D]).transpose(0, 1).flatten(1)
        # At least 4,000 crops of standard deviation below 3: errors below 3 / 63 three times.
        assert torch.allclose(drawn.mean(1), mean[number], atol=0.15)
        assert torch.allclose(drawn.std(1), std[number], atol=0.15)
