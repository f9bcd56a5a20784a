"""Long sessions of the tab Live in a real browser; test_browser.py has a short one."""

import pytest
from page_server import behind_proxy
from visitor import RECORD, Player, assert_no_foreign, contrast

pytest_plugins = ["page_server", "visitor"]  # fixtures


@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("NotFoundError", "There is no microphone. Connect one"),
        ("NotReadableError", "Close other programs that use it"),
        ("AbortError", "The microphone cannot be opened: no"),
    ],
)
def test_without_a_microphone(player, error, sentence):
    one = player()
    one.open(source=None)
    one.refuse_microphone(error)
    one.start()
    assert sentence in one.problem()
    assert one.page.locator("#live-start").is_enabled()
    assert one.page.locator("#live-stop").is_disabled()


@pytest.mark.long
def test_the_new_instrument_is_heard(player):
    """The source is recognised, and a classifier recognises the target."""
    import torch

    from audio_diffusion_pytorch.transfer.listening import instrument_probabilities

    one = player()
    one.open(source=None)
    one.page.get_by_role("button", name="More settings").last.click()
    one.set_number("latency", 3)  # needs less computing: the machine may be busy
    one.start()
    one.until("Playing")
    one.page.wait_for_timeout(4000)
    assert one.facts()["Your instrument"].startswith("flute (it sounds like flute")
    one.page.evaluate(RECORD)
    one.page.wait_for_timeout(10_000)
    _, made = one.recorded()
    rate = one.page.evaluate("() => livePlay.session.context.sampleRate")
    found = instrument_probabilities(torch.from_numpy(made.copy())[None], round(rate))
    assert max(found, key=found.get) == "violin"


@pytest.mark.long
def test_a_machine_that_is_too_slow(player):
    one = player()
    one.open()
    one.page.get_by_role("button", name="More settings").last.click()
    one.page.get_by_label("High: most exact, slowest").last.check()
    one.start()
    one.page.locator("live-panel .notice", has_text="Too slow: this machine needs").wait_for()
    assert "or quality=instant" in one.page.locator("live-panel .notice").inner_text()


@pytest.mark.long
def test_another_visitor_waits_until_the_player_leaves(player, visit):
    one, two = player(), visit()
    one.open()
    one.start()
    one.until("Playing")
    two.take_example()
    two.play()
    two.page.locator("#status", has_text="Waiting: another visitor plays live").wait_for()
    one.context.close()  # without Stop
    two.player()


@pytest.mark.long
def test_a_server_that_ends(player, start_server):
    alone = start_server()
    one = player(alone.url)
    one.open()
    one.start()
    one.until("Playing")
    alone.process.kill()
    assert "The connection to the page's program is lost" in one.problem()


@pytest.mark.long
def test_by_keyboard_alone(player):
    one = player()
    one.open(source=None)
    page = one.page
    page.get_by_label("New instrument").last.focus()
    page.keyboard.type("trum")
    page.keyboard.press("Enter")
    page.locator("#live-start").focus()
    page.keyboard.press("Enter")
    one.until("Playing")
    page.locator("#live-stop").focus()
    page.keyboard.press("Space")
    one.until("Stopped")


@pytest.mark.long
@pytest.mark.parametrize(
    ("width", "theme"), [(400, "dark"), (400, "light"), (1280, "light"), (1600, "dark")]
)
def test_narrow_and_wide_screens(player, width, theme):
    one = player(width=width, theme=theme)
    one.open()
    one.page.get_by_role("button", name="More settings").last.click()
    one.page.get_by_label("Instant: fastest").last.check()
    one.start()
    one.until("Playing")
    one.page.wait_for_timeout(5000)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        one.shot("live")
    assert contrast(one, ".live-text, live-panel dt, live-panel dd") >= 4.5  # WCAG AA


@pytest.mark.long
def test_behind_a_reverse_proxy_with_a_login(chromium, start_server, tmp_path):
    users = tmp_path / "users.txt"
    users.write_text("anna:secret\n")
    server = start_server("root_path=/timbre", f"auth={users}")
    with behind_proxy(server) as url:
        one = Player(chromium, url, user=("anna", "secret"))
        one.open()
        one.start()
        one.until("Playing")
        assert_no_foreign(one)  # every address lies below /timbre
        one.close()
