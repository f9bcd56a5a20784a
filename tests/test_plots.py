"""Pictures: files of each kind, the right scale, any rate and length."""

import pytest
import torch
from conftest import ODD_NAME, RATE, melody

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.plots import mel_spectrogram_db, plot_spectrograms


@pytest.mark.parametrize(
    ("ending", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")]
)
def test_files(ending, magic, tmp_path):
    clips = {
        "input: a $x_1$ flute": (torch.from_numpy(melody(0.5))[None], RATE),
        "output": (torch.zeros(2, 4000), 8000),
    }
    path = tmp_path / ODD_NAME / f"both{ending}"
    plot_spectrograms(clips, path)
    assert path.read_bytes().startswith(magic) and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 192000])
@pytest.mark.parametrize("samples", [1, 5000, 2_000_000])
def test_any_rate_and_length(rate, samples):
    picture = mel_spectrogram_db(torch.full((samples,), 0.01), rate)
    assert picture.shape[0] == 160 and 1 <= picture.shape[1] <= 4000


def test_a_tone_lies_in_its_band_at_its_level():
    tone = 0.1 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    picture = mel_spectrogram_db(tone, RATE)[:, 50]
    # A mel band's width takes up to 4 dB off a tone's level.
    assert picture.max() == pytest.approx(-20, abs=4)
    mel = 2595 * torch.log10(1 + torch.tensor([40.0, 1000.0, RATE / 2]) / 700)
    # The picture has 160 bands; a tone between two lights both.
    assert picture.argmax() == pytest.approx(
        float((mel[1] - mel[0]) / (mel[2] - mel[0]) * 160), abs=2
    )
    assert mel_spectrogram_db(torch.zeros(RATE), RATE).max() < -90


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match=r"must end in .png"):
        plot_spectrograms({"a": (torch.zeros(1, 1000), RATE)}, tmp_path / "a.gif")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        plot_spectrograms({"a": (torch.zeros(1, 1000), RATE)}, tmp_path / "file" / "a.png")
