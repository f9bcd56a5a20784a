"""What ships: the clips come from test pieces only, the models load, and all of it stays small."""

import hashlib
import json
import subprocess

import pytest
from conftest import ROOT

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.instruments import instrument_of
from audio_diffusion_pytorch.models.loading import load_instrument, shipped_instruments
from audio_diffusion_pytorch.paths import ASSETS

CLIPS = ASSETS / "clips"
MANIFEST = json.loads((CLIPS / "manifest.json").read_text())
SHIPPED = ("flute", "violin", "trumpet", "bassoon", "cello")


def test_clips_are_those_of_the_manifest():
    assert {path.name for path in CLIPS.iterdir() if path.suffix != ".json"} == set(
        MANIFEST["files"]
    )
    for name, entry in MANIFEST["files"].items():
        assert hashlib.sha256((CLIPS / name).read_bytes()).hexdigest() == entry["sha256"], name


def test_clips_come_from_test_pieces_only():
    training = {piece for piece, split in MANIFEST["pieces"].items() if split != "test"}
    assert len(training) > 300
    for name, entry in MANIFEST["files"].items():
        assert MANIFEST["pieces"][entry["piece"]] == "test", name
        assert entry["piece"] not in training, name


@pytest.mark.parametrize("instrument", ["flute", "violin", "trumpet", "bassoon", "cello"])
def test_clips_of_each_instrument_with_their_notes(instrument):
    clips = [
        CLIPS / name for name in sorted(MANIFEST["files"]) if instrument_of(name) == instrument
    ]
    assert len(clips) >= 3
    for path in clips:
        header = audio.info(path)
        notes = json.loads(path.with_suffix(".json").read_text())
        assert (header.sample_rate, header.channels) == (24000, 1)
        assert header.seconds == pytest.approx(notes["duration"])
        assert notes["instrument"] == instrument and len(notes["notes"]) > 4
        assert all(0 <= on < off <= notes["duration"] for on, off, _ in notes["notes"])


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_instrument(name):
    assert name in shipped_instruments()
    assert (ASSETS / "instruments" / f"{name}.safetensors").stat().st_size <= 7_000_000
    model = load_instrument(name)
    assert model.spec.name == name and model.spec.codec == "small"
    assert model.spec.level_db is not None


def test_shipped_codec():
    assert (ASSETS / "codec_small.safetensors").stat().st_size <= 9_500_000
    assert load_codec("small").latent_channels == 128


@pytest.mark.parametrize(
    "begin", [4, *(pytest.param(second, marks=pytest.mark.long) for second in (1, 3))]
)
def test_a_recording_that_is_cut_in_a_note_ends_without_a_burst(begin):
    wav, rate = audio.read(CLIPS / "bwv307_p4_t0_flute.flac")
    out = Bridge("flute", "bassoon", quality="draft")(
        wav[:, begin * rate : round((begin + 2.5) * rate)], rate
    )
    edge = rate // 20
    assert out[:, -edge:].abs().max() < 1.2 * out[:, 5 * edge : -5 * edge].abs().max()


def test_recipes_name_every_file():
    recipes = (ROOT / "docs" / "models.md").read_text()
    files = [path for path in ASSETS.rglob("*.safetensors")]
    assert files and all(path.name in recipes for path in files)
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in recipes, (
            f"{path.name} is not the file of docs/models.md"
        )


def test_repository_stays_small():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("no git checkout")
    files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 120 * 2**20
