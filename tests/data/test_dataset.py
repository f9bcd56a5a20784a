"""The data set: its files, its crops, its split, and defective files."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ODD_NAME, RATE, damage, melody
from recordings_of_all_kinds import encode

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.crops import UNVARIED
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.files import find_files
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.instruments import instrument_of


@pytest.mark.parametrize(
    ("name", "instrument"),
    [
        ("flute1.wav", "flute"),
        ("myFlutes.wav", "flute"),
        ("2_Violin-take3.flac", "violin"),
        ("viola.wav", "viola"),
        ("4_double bass.wav", "double bass"),
        ("DOUBLE_BASS.wav", "double bass"),
        ("bassoon_bass.wav", "bassoon"),
        ("bass.wav", "bass"),
        ("bass-clarinet.wav", "bass clarinet"),
        ("flute_Fs6_025_piano_normal.mp3", "flute"),
        ("tuba_D2_1_mezzo-piano_normal.mp3", "tuba"),
        ("piano_C4.wav", "piano"),
        ("take 3.wav", None),
        ("flute/take.wav", None),
    ],
)
def test_the_instrument_is_found_in_the_file_name(name, instrument):
    assert instrument_of(name) == instrument


def test_a_users_own_instrument():
    assert instrument_of("my_kazoo.wav", ["kazoo"]) == "kazoo"


def test_files_are_those_of_the_instrument_sorted(recordings, tmp_path):
    assert [f.name for f in find_files(recordings, ["flute"])] == [
        f"flute_{i}.wav" for i in range(5)
    ]
    assert len(find_files([recordings, recordings], None)) == 20
    (tmp_path / "sub").mkdir()
    for name in ("b.wav", "sub/a.FLAC", ".hidden.wav", "c.txt"):
        soundfile.write(tmp_path / name, melody(0.1), RATE, format="WAV")
    assert [f.name for f in find_files(tmp_path, None)] == ["b.wav", "a.FLAC"]
    assert [f.name for f in find_files(tmp_path, None, recursive=False)] == ["b.wav"]


def test_missing_empty_and_other_instruments(recordings, tmp_path):
    with pytest.raises(InputError, match=r"no such data set folder: .*none"):
        InstrumentDataset(str(tmp_path / "none"))
    with pytest.raises(InputError, match="no audio"):
        InstrumentDataset(str(tmp_path))
    with pytest.raises(
        InputError, match=r"no file of tuba.*Files there: flute \(5\), violin \(5\)"
    ):
        InstrumentDataset(str(recordings), ["tuba"])


def test_crops_are_parts_of_their_file(recordings):
    data = InstrumentDataset(str(recordings), ["flute"], length=4800, crops_per_file=3)
    assert len(data) == 15
    for index in (0, 7, 14):
        crop = data[index]
        assert crop.shape == (1, 4800) and crop.dtype == torch.float32
        whole = soundfile.read(data.wavs[index // 3], dtype="float32")[0]
        starts = np.flatnonzero(whole == crop[0, 0].item())
        assert any(np.array_equal(whole[start : start + 4800], crop[0]) for start in starts)


def test_crops_depend_on_seed_epoch_and_index_only(recordings):
    def crops(seed: int = 0, epoch: int = 0) -> torch.Tensor:
        data = InstrumentDataset(
            str(recordings), ["flute"], length=4800, seed=seed, augment=RecordingAugment()
        )
        data.set_epoch(epoch)
        random.seed(random.random())
        return torch.stack([data[i] for i in range(len(data))])

    first = crops()
    assert torch.equal(first, crops())
    assert not torch.equal(first, crops(epoch=1)) and not torch.equal(first, crops(seed=1))


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels(rate, channels, tmp_path):
    clip = np.stack([melody(1.0, rate, seed=i) for i in range(channels)], 1)
    soundfile.write(tmp_path / "flute.wav", clip, rate, subtype="FLOAT")
    data = InstrumentDataset(str(tmp_path), length=9600)
    assert data[0].shape == (1, 9600) and data[0].abs().max() > 0.05
    assert InstrumentDataset(str(tmp_path), length=9600, channels=0)[0].shape == (channels, 9600)


def test_short_files_are_padded_and_stereo_is_averaged(tmp_path):
    clip = np.stack([np.full(1000, 0.5), np.full(1000, 0.1)], 1)
    soundfile.write(tmp_path / "flute.wav", clip, RATE, subtype="FLOAT")
    crop = InstrumentDataset(str(tmp_path), length=1500)[0]
    assert torch.allclose(crop[0, :1000], torch.tensor(0.3)) and not crop[0, 1000:].any()


def test_silent_crops_are_redrawn(tmp_path):
    """Sound in the last twentieth only; and one file of two is silent altogether."""
    clip = np.zeros(RATE * 10)
    clip[-RATE // 2 :] = melody(0.5)
    soundfile.write(tmp_path / "flute_1.wav", clip, RATE)
    soundfile.write(tmp_path / "flute_2.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "flute_3.wav", melody(), RATE)
    data = InstrumentDataset(str(tmp_path), length=4800, crops_per_file=8)
    assert all(data[i].abs().max() > 1e-3 for i in range(len(data)))
    assert any(
        not crop.any()
        for crop in (
            InstrumentDataset(str(tmp_path), length=4800, silence_db=None)[i] for i in range(3)
        )
    )


def test_nothing_but_silence_is_an_error(tmp_path):
    soundfile.write(tmp_path / "flute.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match=r"no audible crop in .* the recordings look silent"):
        InstrumentDataset(str(tmp_path), length=4800)[0]


def test_bad_files_are_named_once_and_skipped(tmp_path):
    folder = tmp_path / ODD_NAME
    folder.mkdir()
    for index in range(4):
        soundfile.write(folder / f"flute_{index}.wav", melody(seed=index), RATE)
    (folder / "flute_empty.wav").touch()
    soundfile.write(folder / "flute_nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="1 of 6 files cannot be read") as caught:
        data = InstrumentDataset(str(folder), length=4800, crops_per_file=2)
    assert str(folder / "flute_empty.wav") in str(caught[0].message)
    gone, cut, changed = map(Path, data.wavs[:3])  # while training runs
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:5000])
    changed.write_text("no sound any more")
    with pytest.warns(UserWarning) as caught:
        crops = [data[i] for i in range(len(data))] + [data[i] for i in range(len(data))]
    assert len(crops) == 20 and all(crop.abs().max() > 0.01 for crop in crops)
    messages = [str(w.message) for w in caught if str(w.message).startswith("skipped: ")]
    # The fifth warning: the header of the cut file announces more samples.
    assert len(messages) == 4 and len(caught) == 5
    for file, says in (
        (gone, "no such audio file"),
        (cut, ""),
        (changed, ""),
        (folder / "flute_nan.wav", "holds NaN"),
    ):
        assert [says in message for message in messages if str(file) in message] == [True]


def test_a_flac_file_with_a_damaged_middle_is_skipped(tmp_path):
    soundfile.write(tmp_path / "flute_0.flac", melody(4), RATE)
    soundfile.write(tmp_path / "flute_1.wav", melody(4), RATE)
    damage(tmp_path / "flute_0.flac")
    with pytest.raises(InputError, match=r"cannot read .*flute_0\.flac as audio"):
        audio.read(tmp_path / "flute_0.flac", RATE, RATE)
    data = InstrumentDataset(str(tmp_path), length=4800, crops_per_file=8)
    with pytest.warns(UserWarning, match=r"skipped: cannot read .*flute_0\.flac") as caught:
        assert all(data[i].abs().max() > 0.01 for i in range(16))
    assert len(caught) == 1


def test_a_validation_part_without_a_good_file_borrows_one(tmp_path):
    for index in range(5):
        soundfile.write(tmp_path / f"flute_{index}.wav", melody(seed=index), RATE)
    _, valid = InstrumentDataset(str(tmp_path), length=4800).split(0.2, seed=0)
    soundfile.write(valid.wavs[0], np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="NaN"):
        crop = valid[0]
    assert crop.abs().max() > 0.01 and torch.equal(crop, valid[0])


def test_none_readable_is_an_error(tmp_path):
    (tmp_path / "flute.wav").write_bytes(b"no sound")
    with (
        pytest.warns(UserWarning),
        pytest.raises(InputError, match=r"none of the 1 audio files .*as audio"),
    ):
        InstrumentDataset(str(tmp_path))


def test_split_is_by_file_and_depends_on_names_and_seed_only(recordings, tmp_path):
    data = InstrumentDataset(
        str(recordings), length=4800, crops_per_file=4, augment=RecordingAugment()
    )
    train, valid = data.split(0.2, seed=1)
    assert (len(train.wavs), len(valid.wavs)) == (8, 2) and not set(train.wavs) & set(valid.wavs)
    assert (len(train), len(valid)) == (32, 8)
    assert valid.fixed and valid.variation == UNVARIED and train.variation.augment is not None
    before = valid[0]
    valid.set_epoch(5)
    assert torch.equal(valid[0], before)
    random.seed(5)
    torch.manual_seed(5)
    assert data.split(0.2, seed=1)[1].wavs == valid.wavs
    assert any(data.split(0.2, seed=s)[1].wavs != valid.wavs for s in (2, 3))
    (tmp_path / "moved").symlink_to(recordings)
    moved = InstrumentDataset(str(tmp_path / "moved"), length=4800).split(0.2, seed=1)[1]
    assert [Path(f).name for f in moved.wavs] == [Path(f).name for f in valid.wavs]


def test_changes_return_new_data_sets(recordings):
    data = InstrumentDataset(str(recordings), length=4800, augment=RecordingAugment())
    before = [data[index] for index in range(len(data))]
    train, valid = data.split(0.2, seed=0)
    few = data.with_files(data.wavs[:2]).with_crops_per_file(3)
    few.set_epoch(4)
    assert (len(few), few.epoch, len(data), data.epoch) == (6, 4, 10, 0)
    assert not data.fixed and not train.fixed and valid.fixed
    assert all(map(torch.equal, before, (data[index] for index in range(len(data)))))


def test_exact_copies_stay_together(tmp_path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (4, RATE))
    for index in range(4):
        for name in (f"flute{index}.wav", f"flute{index}_copy.wav"):
            soundfile.write(tmp_path / name, sound[index], RATE)
    data = InstrumentDataset(str(tmp_path), length=4800)
    for seed in range(5):
        train, valid = data.split(0.25, seed)
        sides = [{Path(file).name[:6] for file in part.wavs} for part in (train, valid)]
        assert not sides[0] & sides[1] and (len(train.wavs), len(valid.wavs)) == (6, 2)
    for path in tmp_path.glob("flute[123]*"):
        path.unlink()
    train, valid = InstrumentDataset(str(tmp_path), length=4800).split(0.25, 0)
    assert (train.span, valid.span) == ((0.0, 0.75), (0.75, 1.0))


def test_the_fingerprint_is_of_names_and_contents(tmp_path):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    soundfile.write(tmp_path / "flute.wav", wav, RATE)
    before = InstrumentDataset(str(tmp_path)).fingerprint()
    assert InstrumentDataset(str(tmp_path)).fingerprint() == before
    soundfile.write(tmp_path / "flute.wav", wav[::-1], RATE)  # as long as before
    assert InstrumentDataset(str(tmp_path)).fingerprint() != before


def test_channels_that_differ_cannot_be_kept(tmp_path):
    soundfile.write(tmp_path / "flute1.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(tmp_path / "flute2.wav", np.full((RATE, 2), 0.1), RATE)
    with pytest.raises(
        InputError, match=r"their numbers differ \(1 in .*flute1.wav, 2 in .*flute2.wav\)"
    ):
        InstrumentDataset(str(tmp_path), channels=0)
    with pytest.raises(InputError, match="crops_per_file=0 must be a whole number of at least 1"):
        InstrumentDataset(str(tmp_path), crops_per_file=0)


def test_a_single_recording_is_split_in_time(tmp_path):
    """Its end is for validation; if the end is silent, validation borrows from the rest."""
    wav = np.linspace(0.1, 0.9, 10 * RATE, dtype=np.float32)  # a value for each time
    soundfile.write(tmp_path / "flute.wav", wav, RATE, subtype="FLOAT")
    data = InstrumentDataset(str(tmp_path), length=4800, crops_per_file=40)
    train, valid = data.split(0.25, seed=0)
    starts = [
        [float((part[i][0, 0] - 0.1) / 0.8 * 10) for i in range(40)] for part in (train, valid)
    ]
    assert max(starts[0]) < 7.31 and min(starts[1]) > 7.49
    assert min(starts[0]) < 1 and max(starts[0]) > 6 and min(starts[1]) < 8 and max(starts[1]) > 9
    name, _, seconds = valid.locate(3).rpartition(" at ")
    # It is written with one decimal.
    assert name == str(tmp_path / "flute.wav") and float(seconds[:-2]) == pytest.approx(
        starts[1][3], abs=0.1
    )
    wav[7 * RATE :] = 0
    soundfile.write(tmp_path / "flute.wav", wav, RATE, subtype="FLOAT")
    assert valid[0].max() > 0.1
    soundfile.write(tmp_path / "flute.wav", wav[:RATE][:-1], RATE)
    with pytest.raises(InputError, match="less than a second is not enough"):
        InstrumentDataset(str(tmp_path), length=4800).split(0.2, 0)


def test_transforms_are_called_with_each_crop(recordings):
    data = InstrumentDataset(
        str(recordings), length=4800, transforms=lambda wav: wav[:, :100] * 0 + 1
    )
    assert torch.equal(data[0], torch.ones(1, 100))


def test_labels_come_with_the_crops(recordings):
    data = InstrumentDataset(
        str(recordings), ["flute", "violin"], length=2400, labels=["violin", "flute"]
    )
    assert [label for _, label in data] == [int("flute" in Path(file).name) for file in data.wavs]
    with pytest.raises(InputError, match="is of flute, which is none of the labels violin"):
        InstrumentDataset(str(recordings), ["flute"], length=2400, labels=["violin"])[0]


def test_labels_encode_the_recording_condition(recordings):
    """Some crops are unvaried and labelled so; validation crops always are."""
    settings = {"length": 2400, "labels": ["plain", "varied"], "crops_per_file": 30}
    data = InstrumentDataset(
        str(recordings), ["flute"], augment=RecordingAugment(probability=1.0), **settings
    )
    items = [data[index] for index in range(len(data))]
    share = sum(label for _, label in items) / len(items)
    assert 0.35 < share < 0.85
    assert all(crop.shape == (1, 2400) for crop, _ in items)
    assert {label for _, label in data.split(0.5, 0)[1]} == {0}


def test_some_crops_move_by_octaves(recordings):
    settings = {"instruments": ["flute"], "length": 24000, "crops_per_file": 8}
    moved, still = (
        InstrumentDataset(str(recordings), **settings, octaves=octaves) for octaves in ([-1], None)
    )
    crops = [(moved[index], still[index]) for index in range(8)]
    assert {a.shape for pair in crops for a in pair} == {(1, 24000)}
    assert sum(not torch.equal(a, b) for a, b in crops) > 0 and torch.equal(crops[0][0], moved[0])
    assert not moved.split(0.5, 0)[1].variation.octaves
    for octaves in ([0], [4], ["up"], [1.5]):
        with pytest.raises(InputError, match="octaves="):
            InstrumentDataset(str(recordings), **settings, octaves=octaves)


def test_opposed_channels_are_heard(tmp_path):
    """Training, the dry run and the cache read alike; a plain average would be silence."""
    from audio_diffusion_pytorch.training.data_report import probe_crops

    soundfile.write(tmp_path / "flute.wav", np.stack([melody(2.0), -melody(2.0)], 1), RATE)
    data = InstrumentDataset(str(tmp_path), length=4800)
    assert data[0].abs().max() > 0.1 and probe_crops(data).silent == 0
    assert torch.equal(data[0], InstrumentDataset(str(tmp_path), length=4800)[0])


@pytest.mark.parametrize(
    "name", ["flute.m4a", "flute.opus", "flute.mp3", "flute.AIFF", "flute.webm"]
)
def test_every_kind_is_found_and_read(name, tmp_path):
    ending = name.split(".")[1].lower()
    if ending == "aiff":
        soundfile.write(tmp_path / name, melody(2.0), RATE)
    elif ending == "webm":
        encode(tmp_path / name, melody(2.0), RATE, "libopus", "webm")
    else:
        audio.write(
            tmp_path / name,
            torch.from_numpy(melody(2.0))[None],
            48000 if ending == "opus" else RATE,
        )
    data = InstrumentDataset(str(tmp_path), length=4800, crops_per_file=4)
    assert len(data) == 4 and all(data[index].abs().max() > 0.01 for index in range(4))
