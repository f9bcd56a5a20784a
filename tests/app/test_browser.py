"""The page in a real browser."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, melody
from page_server import OTHER_HOST, behind_proxy
from visitor import RECORD, Visitor, assert_no_foreign, contrast

from audio_diffusion_pytorch.app.service import example

pytest_plugins = ["page_server", "visitor"]  # fixtures
FLUTE = example("flute")


@pytest.fixture(scope="module")
def command_file(tmp_path_factory):
    """Runs `transfer.py` in a process."""

    def run(*arguments: str, ending: str = "wav") -> Path:
        output = tmp_path_factory.mktemp("command") / f"output.{ending}"
        command = [sys.executable, str(ROOT / "transfer.py"), *arguments, f"output={output}"]
        subprocess.run(command, check=True, capture_output=True)
        return output

    return run


def test_upload_transfer_listen_and_download(visit, command_file, tmp_path):
    visitor = visit()
    upload = tmp_path / "my flute (né).flac"
    upload.write_bytes(FLUTE.read_bytes())
    visitor.take(upload)
    assert "It sounds like a flute (96% sure)" in visitor.opened()
    visitor.play()
    visitor.player()

    # A/B: the position stays
    visitor.sounds("player.querySelector('.ab-play').click();")
    visitor.page.wait_for_timeout(700)
    before = visitor.sounds("return player.sounds[1].currentTime;")
    visitor.page.get_by_role("button", name="Your recording").click()
    after = visitor.sounds("return player.sounds[0].currentTime;")
    assert 0 < before <= after + 0.05 and after - before < 2
    assert visitor.sounds("return player.sounds.map((sound) => sound.paused);") == [False, True]
    # the pictures arrive while it plays
    visitor.page.locator("#results figure").nth(1).wait_for()
    assert visitor.sounds("return player.sounds.map((sound) => sound.paused);") == [False, True]
    visitor.page.locator("#results .ab-play").click()

    got = visitor.download("my flute (né)_as_violin.flac")  # test_transfers.py has the others
    arguments = "source=flute", "target=violin", f"input={FLUTE}"
    assert got.read_bytes() == command_file(*arguments, ending="flac").read_bytes()
    for ending in ("wav", "mp3"):
        assert visitor.download(f"my flute (né)_as_violin.{ending}").stat().st_size > 50_000
    visitor.page.get_by_text("Do the same without this page").click()
    line = visitor.page.locator("#results .recipe code").first.inner_text()
    assert line == (
        "python transfer.py source=flute target=violin 'input=my flute (né).flac' "
        "'output=my flute (né)_as_violin.wav'"
    )

    visitor.tab("History")
    assert visitor.page.locator("#history article").count() == 1
    assert_no_foreign(visitor)
    visitor.tab("Play")
    visitor.shot("play")


@pytest.mark.long
def test_several_targets_own_model_and_settings(visit):
    visitor = visit()
    page = visitor.page
    visitor.take_example("Bassoon")
    page.get_by_role("button", name="More instruments").click()
    page.get_by_label("my_violin", exact=True).check()
    page.locator("#targets").get_by_label("Violin").uncheck()
    page.locator("#targets").get_by_label("Cello").check()
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("Usual amount of change").uncheck()
    page.get_by_label("Draft: fast", exact=True).first.check()
    slider = page.get_by_role("spinbutton", name=re.compile("How much to change"))
    slider.fill("2")
    slider.press("Tab")
    visitor.play()
    page.locator("#results article").nth(1).wait_for()
    titles = page.locator("#results article h3").all_inner_texts()
    assert titles == ["Cello, sigma 2", "My_violin, sigma 2"]
    page.locator("#results article summary").first.click()
    line = page.locator("#results .recipe code").first.inner_text()
    assert line.startswith("python transfer.py source=bassoon target=cello")
    assert line.endswith("sigma=2 quality=draft")


def test_cancel_in_the_middle_frees_the_page_at_once(visit, server, tmp_path):
    visitor = visit()
    page = visitor.page
    before = set(server.temporary.rglob("*_as_*"))  # of other visitors
    long = tmp_path / "long.wav"
    soundfile.write(long, melody(90.0, 16000), 16000)
    visitor.take(long)
    visitor.play()
    page.locator("#status", has_text=re.compile(r"\d%")).wait_for()
    assert page.locator("#start").is_disabled()
    began = time.monotonic()
    page.get_by_role("button", name="Cancel").first.click()
    page.locator("#status", has_text="Cancelled").wait_for()
    page.locator("#start:not([disabled])").wait_for()
    assert time.monotonic() - began < 5  # the transfer itself would take far longer
    assert set(server.temporary.rglob("*_as_*")) == before
    visitor.take_example()
    visitor.play()  # the device is free again
    visitor.player()


def test_broken_files_say_what_to_do_in_the_page(visit, tmp_path):
    visitor = visit()
    silent_video = tmp_path / "video without sound.mp4"
    write_video(silent_video)
    nothing = tmp_path / "zero.wav"
    soundfile.write(nothing, np.zeros(0, "f4"), 8000)
    broken = tmp_path / "<img src=x onerror=alert(1)>.wav"
    broken.write_bytes(b"this is no sound")
    says = {silent_video: "without sound", nothing: "it holds no samples", broken: "as audio"}
    for path, expected in says.items():
        visitor.upload(str(path))
        alert = visitor.page.locator("#recording [role=alert]", has_text=expected)
        alert.wait_for()
        assert visitor.page.locator("#recording img").count() == 0
    visitor.play()
    assert "choose a recording first" in visitor.problem()
    visitor.shot("problem", "#recording")


def write_video(path: Path) -> None:
    """A video of one picture, without sound."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), "u1"), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_names_are_not_trusted(visit, server):
    visitor = visit()
    data = FLUTE.read_bytes()
    for name in ("../../evil.flac", 'it\'s "<b>bold</b>".flac'):
        visitor.upload([{"name": name, "mimeType": "audio/flac", "buffer": data}])
        visitor.page.locator("#recording .recording").wait_for()
        assert visitor.page.locator("#recording b").count() == 0
        visitor.page.reload()
        visitor.page.get_by_role("button", name="Play it", exact=True).wait_for()
    assert not [path for path in server.temporary.parent.glob("*evil*")]


@pytest.mark.long
def test_files_over_the_limits_are_refused(visit, tmp_path):
    visitor = visit()
    large = tmp_path / "large.wav"
    with open(large, "wb") as file:
        file.truncate(95_000_000)
    visitor.upload(str(large))
    visitor.page.get_by_text(re.compile("exceed the maximum")).first.wait_for()
    long = tmp_path / "long.flac"
    soundfile.write(long, np.zeros(32 * 60 * 8000, "i2"), 8000)
    visitor.upload(str(long))
    assert "lasts 32.0 minutes, and this page accepts 31" in visitor.problem("#recording")


@pytest.mark.long
def test_two_users_at_once(visit):
    one, two = visit(), visit()
    one.take_example("Flute")
    two.take_example("Cello")
    two.page.locator("#targets").get_by_label("Violin").uncheck()
    two.page.locator("#targets").get_by_label("Bassoon").check()
    one.play()
    two.play()
    one.player()
    two.player()
    assert one.page.locator("#results article h3").all_inner_texts() == ["Violin"]
    assert two.page.locator("#results article h3").all_inner_texts() == ["Bassoon"]
    for visitor in (one, two):
        visitor.tab("History")
        assert visitor.page.locator("#history article").count() == 1


@pytest.mark.long
def test_a_closed_page_leaves_no_file(chromium, server):
    before = set(server.temporary.rglob("*/visitors/*/*"))
    visitor = Visitor(chromium, server.url)
    visitor.take_example()
    assert set(server.temporary.rglob("*/visitors/*/*")) - before
    visitor.close()
    end = time.monotonic() + 20
    while set(server.temporary.rglob("*/visitors/*/*")) - before and time.monotonic() < end:
        time.sleep(0.1)
    assert not set(server.temporary.rglob("*/visitors/*/*")) - before


@pytest.mark.parametrize(
    ("width", "theme"),
    [(400, "dark"), pytest.param(1600, "light", marks=pytest.mark.long)],
)
def test_narrow_and_wide_screens(visit, width, theme):
    visitor = visit(width=width, theme=theme)
    visitor.take_example()
    visitor.page.get_by_role("button", name="More settings").click()
    for tab in ("Play", "Live", "Compare", "History", "Models", "Trainings", "For scripts"):
        visitor.tab(tab)
        visitor.page.wait_for_timeout(300)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width, tab
    assert contrast(visitor, ".hint:visible, header p:visible") >= 4.5  # WCAG AA
    if width == 400:
        visitor.tab("Play")
        visitor.shot("narrow")


@pytest.mark.long
def test_by_keyboard_alone(visit):
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="Flute", exact=True).focus()
    page.keyboard.press("Enter")
    visitor.opened()
    page.locator("#targets").get_by_label("Trumpet").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play it", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#results article").nth(1).wait_for()
    page.locator("#results .ab-play").focus()
    page.keyboard.press("Space")
    assert visitor.sounds("return !player.sounds[1].paused;")
    page.keyboard.press("3")
    assert page.locator("#results [aria-pressed=true]").inner_text().startswith("Trumpet")
    page.keyboard.press("Space")
    assert visitor.sounds("return player.sounds.every((sound) => sound.paused);")


def test_controls_have_names_for_screen_readers(visit):
    visitor = visit()
    visitor.take_example()
    unnamed = visitor.page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, audio, textarea')]
            .filter(element => element.offsetParent && element.type !== 'file')
            .filter(element => !(element.getAttribute('aria-label') || element.textContent.trim()
                || element.title || element.labels?.length
                || element.getAttribute('aria-labelledby')))
            .map(element => element.outerHTML.slice(0, 200))"""
    )
    assert not unnamed


@pytest.mark.long
def test_compare_draws_the_trade_off(visit):
    visitor = visit()
    visitor.take_example()
    visitor.tab("Compare")
    visitor.page.locator("#compare-start").click()
    visitor.page.locator("#trade-off img").wait_for()
    visitor.page.locator("#compare-status .progress").wait_for(state="detached")
    assert visitor.page.locator("#compare-results article").count() == 5
    visitor.shot("compare")
    visitor.tab("History")
    visitor.shot("history")


@pytest.mark.long
def test_models_trainings_and_scripts(visit):
    visitor = visit()
    page = visitor.page
    visitor.tab("Models")
    own = page.locator("#own-models article")
    own.wait_for()
    assert "my_violin" in own.inner_text() and "Range" in own.inner_text()
    assert "99.8 %" in page.locator("article", has_text="Trumpet").first.inner_text()
    visitor.shot("models")
    visitor.tab("Trainings")
    row = page.locator("#runs tbody tr")
    row.wait_for()
    assert row.locator("td").all_inner_texts()[:3] == ["my_flute", "stopped", "391 of 1,000"]
    page.locator("#run-details img").wait_for()
    visitor.shot("trainings")
    visitor.tab("For scripts")
    page.get_by_text("gradio_client").first.wait_for()
    visitor.shot("scripts")


@pytest.mark.long
def test_the_microphone(visit):
    visitor = visit()
    page = visitor.page
    page.get_by_role("button", name="Record with the microphone").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Stop", exact=True).click()
    assert "microphone" in visitor.opened()


@pytest.mark.long
def test_thirty_minutes_show_progress_and_can_be_cancelled(visit, tmp_path):
    visitor = visit()
    long = tmp_path / "long.flac"
    soundfile.write(long, np.tile(melody(60.0, 16000), 30), 16000)
    visitor.take(long)
    visitor.play()
    visitor.page.locator("#status", has_text="left").wait_for()
    visitor.page.get_by_role("button", name="Cancel").first.click()
    visitor.page.locator("#status", has_text="Cancelled").wait_for()


@pytest.mark.long
def test_behind_a_reverse_proxy(chromium, start_server):
    server = start_server("root_path=/timbre")
    with behind_proxy(server) as url:
        visitor = Visitor(chromium, url)
        visitor.take_example()
        visitor.play()
        visitor.player()
        visitor.page.locator("#results figure img").nth(1).wait_for()
        assert visitor.download(f"{FLUTE.stem}_as_violin.wav").stat().st_size > 500_000
        assert_no_foreign(visitor)  # every address lies below /timbre
        visitor.close()


@pytest.mark.long  # two servers; the files of a killed one: test_storage.py
def test_a_killed_server_and_its_successor(chromium, start_server):
    first = start_server()
    visitor = Visitor(chromium, first.url)
    visitor.take_example()
    first.stop(signal.SIGKILL)
    (left,) = first.temporary.glob("timbridge-app-*")
    port = first.url.rstrip("/").rpartition(":")[2]
    second = start_server(f"port={port}", temporary=first.temporary)
    assert second.url == first.url and not left.exists()
    visitor.page.goto(first.url)
    visitor.take_example()
    visitor.close()
    assert second.stop() == 128 + signal.SIGTERM
    assert not list(first.temporary.glob("timbridge-app-*"))


def dry_and_lost(given: np.ndarray, made: np.ndarray, delay: int) -> tuple[float, float]:
    """Shares of the input that come back unchanged after `delay` samples, and as silence."""
    made, given = made[delay:], given[: len(made) - delay]
    sounding = np.abs(given) > 0.001
    assert sounding.mean() > 0.3
    dry = np.abs(made - given)[sounding] < 1e-4
    return float(dry.mean()), float((made[sounding] == 0).mean())


def test_sound_flows_with_the_constant_delay(player):
    """Dry sound comes back sample by sample; a busy machine may lose some, but moves none."""
    one = player()
    one.open()
    one.set_number("wet", 0)
    one.refuse_microphone("NotAllowedError")
    one.start()
    assert "The browser refused the microphone. Allow it for this page" in one.problem()
    one.page.evaluate("() => { delete navigator.mediaDevices.getUserMedia; }")
    one.start()
    one.until("Playing")
    one.page.evaluate(RECORD)
    one.page.wait_for_timeout(2000)
    given, made = one.recorded()
    delay = one.page.evaluate("() => livePlay.session.delay")
    rate = one.page.evaluate("() => livePlay.session.context.sampleRate")
    constant = delay["models"] + delay["page"]
    dry, lost = dry_and_lost(given, made, round(constant * rate))
    assert dry > 0.2 and dry + lost > 0.99
    facts = one.facts()
    seconds = re.match(r"([\d.]+) s: ([\d.]+) s for the models and ([\d.]+) s", facts["Delay"])
    assert float(seconds[2]) + float(seconds[3]) == pytest.approx(constant, abs=0.02)
    assert constant <= float(seconds[1]) < 1.2
    assert "audio devices" in facts["Delay"] and facts["Your instrument"] == "flute, as chosen"
    assert re.match(r"\d+", facts["Dropouts"]) and "%" in facts["Load"]

    one.set_number("wet", 1)  # while it plays
    one.page.evaluate("() => recorded.forEach((parts) => { parts.length = 0; })")
    one.page.wait_for_timeout(1500)
    assert dry_and_lost(*one.recorded(), round(constant * rate))[0] < 0.1
    assert_no_foreign(one)

    began = time.monotonic()
    one.page.locator("#live-stop").click()
    one.until("Stopped")
    assert time.monotonic() - began < 2
    assert one.page.evaluate("() => livePlay.session") is None
    assert one.page.locator("#live-start").is_enabled()


def test_a_page_that_is_not_secure(player, server):
    one = player(server.url.replace("127.0.0.1", OTHER_HOST))
    assert not one.page.evaluate("() => isSecureContext")
    one.open(source=None)
    one.start()
    assert "only to pages with HTTPS" in one.problem()
