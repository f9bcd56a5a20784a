"""Analysis of a source: wrong instruments, several voices, and single voices without warning."""

from pathlib import Path

import pytest
import torch
from conftest import RATE, melody

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.audio import AudioReader
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.pitch.octaves import first_sound
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch
from audio_diffusion_pytorch.transfer.listening import (
    Analysis,
    analyse,
    analyse_wav,
    voices_overlap,
)


def clip(instrument: str, number: str = "307_p4", seconds: float = 8.0) -> tuple[torch.Tensor, int]:
    (path,) = [
        p for p in (ASSETS / "clips").glob(f"bwv{number}_t0_{instrument}.*") if p.suffix != ".json"
    ]
    with AudioReader(path) as file:
        return file.read_mono(0, round(seconds * file.info.sample_rate)), file.info.sample_rate


@pytest.mark.parametrize("instrument", ["flute", "violin", "cello", "bassoon", "trumpet"])
def test_a_shipped_clip_is_of_its_instrument_and_of_no_other(instrument):
    found = analyse_wav(*clip(instrument))
    assert (
        found.source() == instrument
        and found.warning(instrument) is None
        and found.warning(None) is None
    )
    others = {"flute", "violin", "cello", "bassoon", "trumpet"} - {instrument}
    assert all(f"it sounds like {instrument}" in found.warning(other) for other in others)
    assert f"use source={instrument}" in found.warning(others.pop())


def test_notes_outside_the_range_of_the_target(make_instrument):
    target = make_instrument("trumpet").spec  # MIDI 54 to 82
    assert pitch_range(target) == PITCH_RANGES["trumpet"]
    wide = Analysis(pitches=[40.0] * 30 + [90.0] * 70, seconds=5.0)
    expected = "30% of it is outside the trumpet's range: expect wrong octaves"
    assert wide.warning(None, target, octaves=-1) == expected
    assert wide.warning(None) is None
    few = Analysis(pitches=[40.0] * 5 + [70.0] * 95, seconds=5.0)
    assert few.warning(None, target) is None
    assert "95%" in (few.warning(None, target, octaves=2) or "")


@pytest.mark.parametrize("other", ["violin", "cello"])
def test_two_clips_at_once_are_several_voices(other):
    (one, rate), (two, rate_too) = clip("flute"), clip(other, "10.7_p4")
    two = audio.resample(two, rate_too, rate)
    length = min(one.shape[1], two.shape[1])
    found = analyse_wav(one[:, :length] + two[:, :length], rate)
    assert found.several_voices and "several voices at once" in found.warning("flute")


def test_a_third_is_two_voices_and_an_octave_is_one():
    wav, rate = clip("cello")
    third, octave = (
        torch.from_numpy(shift_pitch(wav.numpy(), interval, rate)) for interval in (4, 12)
    )
    assert analyse_wav(wav + third, rate).several_voices
    assert not analyse_wav(wav + octave, rate).several_voices


def test_drums_have_no_clear_pitch():
    rate = 24000
    noise = torch.randn(1, 3 * rate, generator=torch.Generator().manual_seed(0))
    drum = 0.5 * noise * torch.exp(-30 * (torch.arange(3 * rate) % (rate // 4)) / rate)
    assert "no clear pitch" in analyse_wav(drum, rate).warning(None)
    assert analyse_wav(drum[:, :rate], rate).warning(None) is None  # too short
    wav, rate = clip("flute")
    assert not analyse_wav(wav, rate).unpitched


def test_overlaps_count_when_they_last_and_are_no_partials():
    note = torch.zeros(100, 88)
    note[:, 40] = 0.9
    assert voices_overlap(note)[0] == 0
    note[50:60, 44] = 0.9  # an echo of the note before
    assert voices_overlap(note)[0] == 0
    note[20:60, 44] = 0.9
    assert voices_overlap(note)[0] == pytest.approx(0.4)
    note[:, 44], note[:, 52], note[:, 42] = 0, 0.9, 0  # an octave
    assert voices_overlap(note)[0] == 0
    assert voices_overlap(torch.zeros(0, 88)) == (0.0, 0.0) == voices_overlap(torch.zeros(5, 88))


def test_less_than_half_a_second_is_too_little_for_a_warning():
    found = Analysis(instruments={"flute": 0.99, "violin": 0.001}, overlap=0.9, seconds=0.4)
    assert found.warning("violin") is None
    long = Analysis(instruments={"flute": 0.99, "violin": 0.001}, seconds=2.0)
    assert (
        long.warning("violin") and long.warning("kazoo") is None and long.warning("flute") is None
    )


def test_the_source_is_a_shipped_one_unless_another_is_far_more_likely():
    assert Analysis(instruments={"oboe": 0.5, "flute": 0.4}).source() == "flute"
    assert Analysis(instruments={"oboe": 0.8, "flute": 0.1}).source() == "all:oboe"
    assert Analysis(instruments={"cello": 0.9, "viola": 0.1}).source() == "cello"
    assert Analysis().source() is None


def test_silence_and_very_short_sounds(tmp_path):
    for name, wav in (
        ("silent", torch.zeros(1, RATE)),
        ("short", torch.from_numpy(melody(0.05))[None]),
    ):
        audio.write(tmp_path / f"{name}.wav", wav, RATE)
        with AudioReader(tmp_path / f"{name}.wav") as file:
            found = analyse(file)
        assert found.warning("flute") == ("the recording is silent" if name == "silent" else None)


def test_the_first_sound_does_not_depend_on_blocks():
    wav = torch.cat(
        [
            torch.zeros(2, 3 * RATE),
            torch.from_numpy(melody(2.0))[None] * torch.tensor([[0.5], [-1.0]]),
        ],
        1,
    )
    whole, parts = first_sound([wav], RATE, True), first_sound(wav.split(5000, 1), RATE, True)
    assert (
        torch.equal(whole, parts) and whole.shape[1] <= 2 * RATE and whole.abs().max() > 0.1
    )  # in phase
    assert torch.equal(first_sound([wav], RATE, False)[0], wav[1, -whole.shape[1] :])
    assert first_sound([torch.zeros(1, 100)], RATE, False) is None


def test_opposed_channels_are_heard_as_one(tmp_path):
    wav, rate = clip("flute")
    audio.write(Path(tmp_path / "in.wav"), torch.cat([wav, -wav]), rate)
    with AudioReader(tmp_path / "in.wav") as file:
        assert analyse(file, mid=True).source() == "flute"
