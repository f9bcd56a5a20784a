"""HTML report: main table first, readable on a phone, no empty part, no repeated sound."""

import math
import re

import pytest
import torch
from test_aggregate import groups

from audio_diffusion_pytorch.evaluation import results
from audio_diffusion_pytorch.evaluation.aggregate import Estimate
from audio_diffusion_pytorch.evaluation.html_report import _Sounds, write_report
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.utils import about

SETTINGS = dict.fromkeys(
    ("pairs", "data", "outputs", "models", "sigma", "quality", "clips", "seconds"), "x"
)


@pytest.fixture
def page(tmp_path):
    """Writes the page of some groups, and returns its text."""

    def write(found) -> str:
        content = results.collect(found, {}, "small codec", Problems(), SETTINGS)
        write_report(None, found, content, tmp_path / "report.html", 0)
        return (tmp_path / "report.html").read_text()

    return write


def test_what_says_most_comes_first(page):
    text = page(groups([("flute", "violin")]))
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles[0].startswith("Systems and reference points") and titles[1] == "bridge: each pair"
    assert text.index("<table") < text.index("<img")
    made = about.made()
    assert made["date"][:10] in text and f"timbridge {made['version']}" in text
    assert made["commit"] is None or f"commit {made['commit'].rstrip('+')}" in text
    assert "<th>target accuracy ↑</th><th>DPD ↓</th>" in text
    assert re.search("<tr class=system><td>bridge</td>", text)


def test_a_phone_shows_it_without_scrolling_sideways(page):
    """The page fits the device, wide tables scroll, pictures shrink; light and dark."""
    text = page(groups([("flute", "violin")]))
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count("<table") == text.count('<div class="table"><table') > 2
    assert ".table { overflow-x: auto" in text and "img { max-width: 100%" in text
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text


def test_there_are_no_empty_plots(page, tmp_path, monkeypatch):
    found = groups([("flute", "violin")])
    assert page(found).count("<img") == 1 and (tmp_path / "pairs.png").is_file()
    for group in found:
        group.figures["frechet"] = group.figures["dpd"] = Estimate(math.nan)
        monkeypatch.setattr(group.system, "swept", True)
        monkeypatch.setattr(group.system, "sigma", 1.0)
    text = page(found)
    assert "<img" not in text and not list(tmp_path.glob("*.png"))
    assert (
        "Real clips" not in text and "s per s" not in text
    )  # nor tables or columns without a figure


def test_no_sound_is_there_twice():
    sounds, wav = _Sounds(), torch.sin(torch.arange(2400) / 10)
    first = sounds.player("input", "flute-violin: a@0", wav, 24000)
    again = sounds.player("input", "flute-cello: <a>@0", wav.clone(), 24000)
    other = sounds.player("bridge", "flute-cello: a@0", -wav, 24000)
    assert "<audio" in first and 'id="sound1"' in first and "<audio" in other
    assert again == '<div>input: <a href="#sound1">as input, flute-violin: a@0</a></div>'
