"""The latent cache: its files, its crops, its invalidation, and defects."""

import multiprocessing
import os
import pickle
import shutil
import time
from collections import namedtuple
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, melody
from safetensors import safe_open
from tolerances import HALF, ROUNDING

from audio_diffusion_pytorch.audio import active_rms
from audio_diffusion_pytorch.codecs.encodec import EncodecCodec
from audio_diffusion_pytorch.codecs.mel import MelCodec
from audio_diffusion_pytorch.data import encode_latents, latent_cache
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.datamodule import Datamodule
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.encode_latents import build
from audio_diffusion_pytorch.data.latent_cache import CachedVariant, LatentCache
from audio_diffusion_pytorch.data.latent_statistics import latent_statistics
from audio_diffusion_pytorch.data.pitch_shift import PitchShift
from audio_diffusion_pytorch.engine import engine
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.labels import Labels

HOP = 320


@pytest.fixture(scope="module")
def encodec() -> EncodecCodec:
    return tiny_encodec()


def tiny_encodec(seed: int = 0) -> EncodecCodec:
    """Untrained, its latents brought to mean 0 and deviation 1."""
    torch.manual_seed(seed)
    codec = EncodecCodec(
        weights="random", config={"n_filters": 2, "dimension": 16, "lstm": 1}
    ).freeze()
    last = codec.encoder.model[-1].conv.conv
    torch.nn.init.zeros_(last.bias)
    latents = codec.encode(torch.from_numpy(melody(2.0))[None, None])[0]
    std, mean = torch.std_mean(latents, 1)
    getattr(last, "weight_g", last.weight).mul_(1 / std[:, None, None])
    last.bias.sub_(mean / std)
    return codec


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three flutes of 2 s."""
    (tmp_path / "data").mkdir()
    for index in range(3):
        soundfile.write(
            tmp_path / "data" / f"flute_{index}.wav", melody(2.0, seed=index), RATE, subtype="FLOAT"
        )
    return tmp_path / "data"


def cached(folder: Path, codec, batch_size: int = 1, **settings) -> Datamodule:
    settings = {"length": 24000, **settings}
    data = Datamodule(
        InstrumentDataset(str(folder), **settings),
        batch_size,
        cache=True,
        cache_dir=folder.parent / "cache",
    )
    assert data.use_cache(codec)
    return data


def entries(folder: Path) -> dict[str, int]:
    """Name -> time of writing."""
    found = (folder.parent / "cache").rglob("*.safetensors")
    return {path.name: path.stat().st_mtime_ns for path in found if path.name[0] != "."}


@pytest.mark.parametrize("kind", ["codec", "encodec"])
def test_crops_are_those_of_encoding_them_but_for_their_edges(kind, folder, request):
    codec = request.getfixturevalue(kind)
    data = cached(folder, codec, crops_per_file=4).train_set
    for index in range(len(data)):
        latents = data[index]
        assert latents.shape == (codec.latent_channels, 75) and latents.dtype == torch.float32
        whole = torch.from_numpy(
            soundfile.read(data.wavs[index // data.crops_per_file], dtype="float32")[0]
        )
        start = place(latents, codec.encode(whole[None, None])[0])
        crop = codec.encode(whole[None, None, start * HOP : (start + 75) * HOP])[0]
        inner = slice(30, 71)  # a causal network with memory needs a while
        assert torch.allclose(latents[:, inner], crop[:, inner], atol=HALF)


def place(latents: torch.Tensor, whole: torch.Tensor) -> int:
    """Return the position of a crop in the latents of its recording."""
    windows = whole.unfold(1, latents.shape[1], 1).transpose(0, 1)
    errors = (windows - latents).abs().amax((1, 2))
    assert errors.min() < 0.02
    return int(errors.argmin())


def test_crops_depend_on_seed_epoch_and_index_only(folder, encodec):
    def crops(seed: int = 0, epoch: int = 0) -> torch.Tensor:
        data = cached(folder, encodec, seed=seed).train_set
        data.set_epoch(epoch)
        return torch.stack([data[i] for i in range(len(data))])

    first = crops()
    assert torch.equal(first, crops())
    assert not torch.equal(first, crops(epoch=1)) and not torch.equal(first, crops(seed=1))


def test_long_recordings_are_encoded_in_blocks_and_sections(folder, encodec, monkeypatch):
    soundfile.write(folder / "flute_0.wav", melody(9.0, 44100), 44100, subtype="FLOAT")

    def whole() -> torch.Tensor:
        data = cached(folder, encodec).train_set
        file = str(folder / "flute_0.wav")
        return data.source.cache.whole(file, CachedVariant(), 24000, (0.0, 1.0))[0]

    at_once = whole()
    assert at_once.shape == (16, 9 * 75)
    monkeypatch.setattr(latent_cache, "_VERSION", "test")
    for module in (encode_latents, latent_cache):
        monkeypatch.setattr(module, "_SECTION", 250)
    monkeypatch.setattr(encode_latents, "_BLOCK", 100)
    assert torch.allclose(whole(), at_once, atol=HALF)


def test_variants_differ_are_kept_and_are_not_cut_across_sections(folder, encodec, monkeypatch):
    for module in (encode_latents, latent_cache):
        monkeypatch.setattr(module, "_SECTION", 90)
    data = cached(folder, encodec, augment=RecordingAugment(probability=1.0), crops_per_file=40)
    train, valid = data.train_set, data.valid_set
    assert len(entries(folder)) == 4 * len(train.wavs) + len(valid.wavs)
    variants = train.cached_variants(train.wavs[0])
    assert sum(share for _, share in variants) == pytest.approx(1) and len(variants) == 4
    cache = train.source.cache
    wholes = [cache.whole(train.wavs[0], one, 24000, (0.0, 1.0))[0] for one, _ in variants]
    assert all(not torch.allclose(wholes[0], other, atol=0.05) for other in wholes[1:])
    starts = {min(place_among(train[i], wholes)) for i in range(40)}
    assert max(starts) <= 75 and all(start + 75 <= 90 or start >= 90 for start in starts)
    before = entries(folder)
    cached(folder, encodec, augment=RecordingAugment(probability=1.0))
    assert entries(folder) == before
    cached(folder, encodec, augment=RecordingAugment(probability=0.9))
    assert len(entries(folder)) == len(before) + 4 * len(train.wavs)


def place_among(latents: torch.Tensor, wholes: list[torch.Tensor]) -> list[int]:
    found = []
    for whole in wholes:
        windows = whole.unfold(1, latents.shape[1], 1).transpose(0, 1)
        found += torch.nonzero((windows - latents).abs().amax((1, 2)) < ROUNDING).flatten().tolist()
    return found


def test_pitch_shifted_recordings_are_cached(folder, encodec, tmp_path):
    shift = PitchShift(1, tmp_path / "pitch", probability=0.5, semitones=(1, 2), variants=2)
    data = cached(folder, encodec, pitch_shift=shift, crops_per_file=20).train_set
    file = data.wavs[0]
    variants = dict((variant.semitones, share) for variant, share in data.cached_variants(file))
    assert variants == {None: 0.5, 1: 0.25, 2: 0.25} and len(entries(folder)) == 2 * 3 + 1
    shifted = soundfile.read(shift.shifted(file, 2, RATE, True), dtype="float32")[0]
    stored = data.source.cache.whole(file, CachedVariant(2), 24000, (0.0, 1.0))[0]
    assert torch.allclose(
        stored, encodec.encode(torch.from_numpy(shifted)[None, None])[0], atol=HALF
    )
    wholes = [
        data.source.cache.whole(file, CachedVariant(semitones), 24000, (0.0, 1.0))[0]
        for semitones in variants
    ]
    assert all(any(place_among(data[i], [whole]) for i in range(20)) for whole in wholes)


def test_short_recordings_go_on_in_silence(folder, encodec):
    data = cached(folder, encodec, length=96000).train_set
    latents = data[0]
    whole = np.pad(soundfile.read(data.wavs[0], dtype="float32")[0], (0, 48000))
    expected = encodec.encode(torch.from_numpy(whole)[None, None])[0]
    assert latents.shape == (16, 300) and torch.allclose(latents, expected, atol=HALF)


def test_silent_crops_are_redrawn(folder, encodec):
    clip = np.zeros(RATE * 10, np.float32)
    clip[-RATE:] = melody(1.0)
    soundfile.write(folder / "flute_0.wav", clip, RATE)
    data = cached(folder, encodec, crops_per_file=20)
    part = data.train_set if str(folder / "flute_0.wav") in data.train_set.wavs else data.valid_set
    first = part.wavs.index(str(folder / "flute_0.wav")) * 20
    for index in range(first, first + 20):
        file, second = part.locate(index).removesuffix(" s").split(" at ")
        assert file != str(folder / "flute_0.wav") or float(second) > 7.9


def test_statistics_are_those_of_all_frames(folder, codec):
    data = cached(folder, codec)
    mean, std, level = latent_statistics(codec, data)
    wavs = [
        torch.from_numpy(soundfile.read(f, dtype="float32")[0])[None, None]
        for f in data.train_set.wavs
    ]
    latents = torch.cat([codec.encode(wav)[0] for wav in wavs], 1)
    assert torch.allclose(mean, latents.mean(1), atol=HALF) and torch.allclose(
        std, latents.std(1), atol=HALF
    )
    levels = [active_rms(wav[0], RATE) for wav in wavs]
    assert min(levels) * 0.95 < float(level) < max(levels) * 1.05


def test_a_change_makes_just_that_anew(folder, encodec, codec):
    data = cached(folder, encodec)
    before = entries(folder)
    assert len(before) == 3
    cached(folder, encodec, length=48000, seed=5, crops_per_file=2)  # other experiments share them
    (folder / "flute_0.wav").rename(folder / "flute_9.wav")
    cached(folder, encodec)
    assert entries(folder) == before
    soundfile.write(folder / "flute_9.wav", melody(1.5, seed=9), RATE)
    cached(folder, encodec)
    assert len(entries(folder)) == 4 and before.items() < entries(folder).items()
    cached(folder, tiny_encodec(seed=1))
    assert len(list((folder.parent / "cache").glob("encodec-*"))) == 2
    cached(folder, codec)
    # Another decoder: the same latents.
    cached(folder, MelCodec(dim=32, intermediate_dim=16, num_layers=1).freeze())
    assert len(list((folder.parent / "cache").glob("small-*"))) == 1
    assert data.train_set.source.cache.folder.exists()


def test_damage_is_repaired_at_the_next_start_and_skipped_until_then(folder, encodec):
    data = cached(folder, encodec, crops_per_file=2).train_set
    good = {path: path.read_bytes() for path in data.source.cache.folder.rglob("*.safetensors")}
    before = [data[i] for i in range(len(data))]
    first, second, third = sorted(good)
    first.write_bytes(good[first][:-100])
    flipped = bytearray(good[second])
    flipped[-100] ^= 1
    second.write_bytes(flipped)
    third.unlink()
    (third.parent / f".{third.stem}.1.tmp.safetensors").write_bytes(b"cut off")
    os.utime(third.parent / f".{third.stem}.1.tmp.safetensors", (0, 0))
    with (
        pytest.raises(InputError, match="no audible crop"),
        pytest.warns(UserWarning, match="is missing or damaged"),
    ):
        for path in good:
            path.unlink(missing_ok=True)
        data[0]
    second.write_bytes(flipped)
    cached(folder, encodec)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (data[i] for i in range(len(data))), strict=True)
    )
    assert all(data.source.cache.is_intact(path) for path in good)
    assert not list(data.source.cache.folder.rglob(".*"))


def test_recordings_that_go_away_or_change_while_training_do_no_harm(folder, encodec):
    data = cached(folder, encodec).train_set
    before = [data[i] for i in range(len(data))]
    Path(data.wavs[0]).unlink()
    Path(data.wavs[1]).write_bytes(b"something else")
    assert all(
        torch.equal(a, b) for a, b in zip(before, (data[i] for i in range(len(data))), strict=True)
    )


def test_unusable_recordings_are_named_and_skipped(folder, encodec):
    soundfile.write(folder / "flute_nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="flute_nan.wav: it holds NaN") as caught:
        data = cached(folder, encodec)
    assert len(caught) == 1 and len(entries(folder)) == 3
    crops = [part[i] for part in (data.train_set, data.valid_set) for i in range(len(part))]
    assert len(crops) > 4 and len({crop.shape for crop in crops}) == 1


def test_a_full_disk_is_told_and_what_was_made_stays(folder, encodec, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(encode_latents.shutil, "disk_usage", lambda path: usage(100))
    with pytest.raises(
        InputError, match=r"needs 0 MB more, 0 MB are free: choose .*cache_dir=FOLDER.*cache=false"
    ):
        cached(folder, encodec)
    monkeypatch.undo()
    write, count = Path.write_bytes, []

    def fails(path: Path, content: bytes) -> int:
        count.append(path)
        if len(count) == 2:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(
        InputError, match=r"latent cache: .*No space left on device.*datamodule.cache_dir=FOLDER"
    ):
        cached(folder, encodec)
    monkeypatch.undo()
    before = entries(folder)
    assert len(before) == 1 and not list((folder.parent / "cache").rglob(".*"))
    cached(folder, encodec)
    assert len(entries(folder)) == 3 and before.items() < entries(folder).items()


def builder(folder: Path, codec) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=cached, args=(folder, codec))
    process.start()
    return process


def test_two_processes_build_one_cache_and_a_killed_one_is_continued(folder, encodec):
    for index in range(3, 12):
        soundfile.write(folder / f"flute_{index}.wav", melody(3.0, seed=index), RATE)
    killed = builder(folder, encodec)
    while not entries(folder) and killed.is_alive():
        time.sleep(0.01)
    killed.kill()
    killed.join()
    before = entries(folder)
    assert before
    both = [builder(folder, encodec), builder(folder, encodec)]
    for process in both:
        process.join(300)
        assert process.exitcode == 0
    after = entries(folder)
    assert before.items() <= after.items() and len(after) == 12
    store = LatentCache(folder.parent / "cache", encodec, RATE)
    assert all(store.is_intact(p) for p in store.folder.rglob("*.safetensors") if p.name[0] != ".")


def test_what_is_stored(folder, encodec):
    data = cached(folder, encodec).train_set
    path = data.source.cache.path(data.source.cache.digests[data.wavs[0]], CachedVariant())
    with safe_open(path, "pt") as entry:
        shapes = {
            name: (list(entry.get_tensor(name).shape), entry.get_tensor(name).dtype)
            for name in entry.keys()  # noqa: SIM118, the file is not a mapping
        }
        assert entry.metadata()["recording"] == Path(data.wavs[0]).name
    frames, half = 150 + latent_cache._TAIL, torch.float16
    assert shapes == {
        "latents": ([frames, 16], half),
        "peak": ([frames], half),
        "rms": ([frames], half),
    }
    # Beside the latents a file has a header, and a tail of 75 frames.
    assert path.stat().st_size == pytest.approx(data.source.cache.bytes_for(3.0), rel=0.1)


def test_which_runs_use_it(folder, codec, encodec):
    def made(codec=encodec, transforms=None, channels=1, **settings) -> Datamodule:
        dataset = InstrumentDataset(
            str(folder), length=24000, transforms=transforms, channels=channels
        )
        data = Datamodule(dataset, 1, cache_dir=folder.parent / "cache", **settings)
        data.use_cache(codec)
        return data

    assert made().latents and not made(codec).latents and made(codec, cache=True).latents
    assert not made(cache=False).latents and not made(transforms=lambda wav: wav).latents
    assert made().train_set[0].shape == (16, 75) and made(cache=False).train_set[0].shape == (
        1,
        24000,
    )
    with pytest.raises(InputError, match="transforms work on audio"):
        made(transforms=lambda wav: wav, cache=True)
    with pytest.raises(InputError, match="single-channel"):
        made(channels=0, cache=True)
    with pytest.raises(InputError, match=r"datamodule\.cache=maybe must be true or false, or auto"):
        made(cache="maybe")
    with pytest.raises(InputError, match="cache_variants"):
        made(cache_variants=0)


def test_labels_go_with_cached_crops(folder, encodec):
    data = cached(folder, encodec, labels=["violin", "flute"])
    latents, label = next(iter(data.train_dataloader()))
    assert latents.shape == (1, 16, 75) and label.tolist() == [1]


def test_statistics_of_each_instrument(folder, codec):
    for index in range(3):
        soundfile.write(
            folder / f"violin_{index}.wav",
            melody(2.0, seed=index, brightness=0.7),
            RATE,
            subtype="FLOAT",
        )
    names = ["violin", "flute"]
    data = cached(folder, codec, instruments=names, labels=names)
    mean, std, _ = latent_statistics(codec, data, Labels(names))
    for number, name in enumerate(names):
        files = [file for file in data.train_set.wavs if name in Path(file).name]
        wavs = [
            torch.from_numpy(soundfile.read(file, dtype="float32")[0])[None, None] for file in files
        ]
        latents = torch.cat([codec.encode(wav)[0] for wav in wavs], 1)
        assert torch.allclose(mean[number], latents.mean(1), atol=HALF)
        assert torch.allclose(std[number], latents.std(1), atol=HALF)


def test_build_is_idle_where_all_is_there(folder, encodec, monkeypatch):
    data = cached(folder, encodec)
    monkeypatch.setattr(encode_latents, "_encode", lambda *args: pytest.fail("encoded again"))
    build(data.train_set.source.cache, [data.train_set], encodec, "cpu")


def test_one_recording_is_split_in_time(folder, encodec):
    for index in (1, 2):
        (folder / f"flute_{index}.wav").unlink()
    data = cached(folder, encodec, length=9600, crops_per_file=20)
    train, valid = data.train_set, data.valid_set
    for part in (train, valid):
        for index in range(20):
            second = float(part.locate(index).split(" at ")[1].split()[0])
            assert 0 <= second <= 1.21 if part is train else 1.59 <= second <= 1.61
    assert torch.equal(valid[0][:, :30], encodec_of(data, slice(120, 150)))


def encodec_of(data: Datamodule, frames: slice) -> torch.Tensor:
    file = data.train_set.wavs[0]
    return data.train_set.source.cache.whole(file, CachedVariant(), 24000, (0.0, 1.0))[0][:, frames]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.long)])
def test_workers_fill_the_same_cache(real, folder, encodec, monkeypatch):
    def in_a_worker(task, workers, jobs, tell) -> None:
        task = pickle.loads(pickle.dumps(task))
        task.do(task.start(0, workers), jobs, tell)

    if not real:
        monkeypatch.setattr(engine, "run_in_processes", in_a_worker)
        monkeypatch.setattr(encode_latents, "plain_warnings", lambda: None)
    broken = np.full((48000, 1), np.nan, "f4")  # which the header does not reveal
    soundfile.write(folder / "flute_9.wav", broken, RATE, subtype="FLOAT")

    def files(**settings) -> dict[str, tuple]:
        dataset = InstrumentDataset(str(folder), length=24000)
        data = Datamodule(dataset, 1, cache_dir=folder.parent / "cache", cache=True, **settings)
        with pytest.warns(UserWarning, match="flute_9"):
            data.use_cache(encodec)
        cache = data.train_set.source.cache
        assert len(cache.digests) == 3
        found = {}
        for path in cache.folder.rglob("*.safetensors"):
            with safe_open(path, "pt") as entry:
                tensors = {key: entry.get_tensor(key).tolist() for key in entry.keys()}  # noqa: SIM118
                found[path.name] = entry.metadata(), tensors
        shutil.rmtree(cache.root)
        return found

    alone = files()
    assert len(alone) == 3 and files(cache_engine={"workers": 2}) == alone
