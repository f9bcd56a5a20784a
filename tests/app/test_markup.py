"""HTML of the page: everything that a visitor names is escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from audio_diffusion_pytorch.app import markup
from audio_diffusion_pytorch.app.recipes import Request
from audio_diffusion_pytorch.app.transfers import Recording, Result
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.audio import AudioInfo
from audio_diffusion_pytorch.transfer.listening import Analysis

EVIL = "<img src=x onerror=alert(1)>\"'.wav"
FACTS = {
    "octaves": -1,
    "softer_db": 3.2,
    "cents": 12.0,
    "sigma": 5.0,
    "seconds": 2.5,
    "duration": 75.0,
    "sounds_like": "flute",
    "sounds_like_probability": 0.99,
}


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture
def result(tmp_path) -> Result:
    analysis = Analysis(instruments={"flute": 0.99})
    info = AudioInfo(75 * 8000, 8000, 2, "PCM_16")
    player = tmp_path / "input.flac"
    recording = Recording(tmp_path / "input", EVIL, info, analysis, tmp_path, player, player)
    files = {"wav": tmp_path / "a" / "x_as_violin.wav"}
    missing = {"mp3": "no <b>"}
    request = Request("flute", "violin")
    return Result(request, "x", files, missing, FACTS, "<script>", recording, player)


def test_names_and_sentences_are_escaped(result):
    for text in (
        markup.results([result], ""),
        markup.recording_card(result.recording, ""),
        markup.history([result], ""),
        markup.problem(EVIL),
        markup.notice(EVIL),
        markup.runs_table([[EVIL] * 6], Path(EVIL)),
        markup.runs_table([], Path(EVIL)),
    ):
        tags = Tags(text).found
        assert not [tag for tag, _ in tags if tag in ("script", "b")]
        assert not [tag for tag, a in tags if "onerror" in a or (tag == "img" and a["src"] == "x")]


def test_facts_say_what_was_done(result):
    facts = markup.facts(result)
    assert facts["Moved"] == "1 octave down, into its range"
    assert facts["Level"] == "3 dB softer than your recording, to avoid clipping"
    assert facts["Tuning"] == "+12 cents from A = 440 Hz, kept"
    assert facts["Time needed"] == "2.5 s for 1:15 min of sound"
    assert facts["Instrument in the recording"] == "flute, 99% sure"


def test_files_have_addresses_below_the_proxy(result):
    tags = Tags(markup.results([result], "/timbre")).found
    (link,) = [a for tag, a in tags if tag == "a"]
    assert link["href"].startswith("/timbre/gradio_api/file=/")
    assert link["download"] == "x_as_violin.wav" == link["aria-label"].split()[-1]


def test_progress_tells_time_left_and_place_in_the_queue():
    ticket = Ticket()
    assert "2 transfers before yours" in markup.progress(ticket, [Ticket(), Ticket()])
    ticket.state = "running"
    ticket.start_stage("Playing", 4)
    ticket.advance()
    ticket._started -= 10
    assert "25%, about 30 s left" in markup.progress(ticket, [])


def test_every_control_of_a_result_has_a_name(result):
    for tag, attributes in Tags(markup.results([result], "")).found:
        if tag in ("a", "button", "audio", "section"):
            assert attributes.get("aria-label"), (tag, attributes)


def test_every_instrument_has_a_picture():
    from audio_diffusion_pytorch.instruments import INSTRUMENTS

    for name in (*INSTRUMENTS, "other"):
        assert (markup.ICONS / f"{name.replace(' ', '_')}.svg").is_file()
    assert markup.picture_style("my_oboe_3") == markup.picture_style("Oboe")
    assert markup.picture_style("Kazoo") == markup.picture_style("other")


def test_style_and_script_name_no_other_host():
    text = markup.style() + markup.script()
    hosts = re.findall(r"(?:\w+:|%3A)//([\w.]+)", text)
    assert set(hosts) == {"www.w3.org"}  # the name space of the pictures
