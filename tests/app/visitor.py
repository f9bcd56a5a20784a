"""A page of the browser, as a person uses it."""

import base64
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from audio_diffusion_pytorch.app.service import example

DOCS = ROOT / "docs" / "app"
UPDATE = os.environ.get("UPDATE_SCREENSHOTS") == "1"  # otherwise the tests change no file
SLOW = 60_000  # milliseconds: a transfer on a busy machine
TALLEST = 1500  # pixels of a picture in the documentation


class Visitor:
    """One page of the browser, as a person uses it."""

    def __init__(
        self,
        browser,
        url: str,
        width: int = 1280,
        theme: str = "light",
        user: tuple[str, str] | None = None,
    ):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, accept_downloads=True
        )
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.url = url
        self.page.goto(f"{url}?__theme={theme}")
        if user:
            self.page.get_by_label("username").fill(user[0])
            self.page.get_by_label("password").fill(user[1])
            self.page.get_by_role("button", name="Login").click()
        self.page.get_by_role("button", name="Play it", exact=True).wait_for()

    def upload(self, *files) -> None:
        self.page.locator("#upload input[type=file]").set_input_files(*files)

    def opened(self) -> str:
        card = self.page.locator("#recording .recording")
        card.wait_for()
        return card.inner_text()

    def take(self, path: Path) -> None:
        self.upload(str(path))
        self.page.locator("#recording .recording", has_text=path.name).wait_for()

    def take_example(self, name: str = "Flute") -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        clip = example(name.lower()).name
        self.page.locator("#recording .recording", has_text=clip).wait_for()

    def play(self) -> None:
        self.page.get_by_role("button", name="Play it", exact=True).click()

    def player(self):
        found = self.page.locator("#results ab-player")
        found.wait_for()
        return found

    def problem(self, place: str = "#status") -> str:
        alert = self.page.locator(f"{place} [role=alert]")
        alert.wait_for()
        return alert.inner_text()

    def tab(self, name: str) -> None:
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not (tab.count() and tab.first.is_visible()):
            self.page.locator(".overflow-menu button").first.click()
            tab = self.page.locator(".overflow-dropdown button", has_text=name)
        tab.first.click()

    def download(self, name: str) -> Path:
        with self.page.expect_download() as waiting:
            self.page.locator(f"#results a[download='{name}']").first.click()
        assert waiting.value.suggested_filename == name
        return Path(waiting.value.path())

    def sounds(self, expression: str):
        """Evaluate JavaScript with `player`, the first player of the results."""
        return self.page.evaluate(
            f"() => {{ const player = document.querySelector('#results ab-player'); {expression} }}"
        )

    def shot(self, name: str, selector: str | None = None) -> None:
        """Take a screenshot; write it into the documentation, with few colours, if asked."""
        from PIL import Image

        page = self.page
        page.mouse.move(0, 0)  # no button is under the mouse
        page.wait_for_timeout(300)  # changes of colours end
        data = page.locator(selector).screenshot() if selector else page.screenshot(full_page=True)
        if UPDATE:
            DOCS.mkdir(exist_ok=True)
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST)))
            picture.quantize(64).save(DOCS / f"{name}.png", optimize=True)

    def close(self) -> None:
        self.context.close()


# Records what goes into the audio thread's node and what comes out of it, in step.
RECORD = """() => {
  const { context, input, node } = livePlay.session;
  window.recorded = [[], []];
  const both = context.createChannelMerger(2);
  const split = context.createChannelSplitter(2);
  input.connect(both, 0, 0);
  node.connect(split).connect(both, 0, 1);
  const recorder = context.createScriptProcessor(4096, 2, 1);
  recorder.onaudioprocess = ({ inputBuffer }) => {
    recorded.forEach((parts, i) => parts.push(inputBuffer.getChannelData(i).slice()));
  };
  both.connect(recorder).connect(context.destination);
}"""
READ = """() => recorded.map((parts) => {
  let text = "";
  for (const part of parts) {
    const bytes = new Uint8Array(part.buffer);
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
  }
  return btoa(text);
})"""
STATUS = ".live-text"


class Player(Visitor):
    """A visitor in the tab Live."""

    def open(self, source: str | None = "Flute") -> None:
        self.tab("Live")
        self.page.locator("#live-start:not([disabled])").wait_for()
        if source:
            self.page.get_by_label("Your instrument").click()
            self.page.get_by_role("option", name=source, exact=True).first.click()

    def set_number(self, name: str, value: float) -> None:
        field = self.page.locator(f"#live-{name} input[type=number]")
        field.fill(str(value))
        field.press("Tab")

    def start(self) -> None:
        self.page.locator("#live-start").click()

    def refuse_microphone(self, error: str) -> None:
        self.page.evaluate(
            """(name) => { navigator.mediaDevices.getUserMedia = () =>
                Promise.reject(new DOMException("no", name)); }""",
            error,
        )

    def until(self, text: str) -> None:
        self.page.locator(STATUS, has_text=text).wait_for()

    def recorded(self) -> tuple[np.ndarray, np.ndarray]:
        given, made = self.page.evaluate(READ)
        return np.frombuffer(base64.b64decode(given), "<f4"), np.frombuffer(
            base64.b64decode(made), "<f4"
        )

    def facts(self) -> dict[str, str]:
        panel = self.page.locator("live-panel dl")
        names = panel.locator("dt").all_inner_texts()
        return dict(zip(names, panel.locator("dd").all_inner_texts(), strict=True))

    def problem(self, place: str = "live-panel") -> str:
        alert = self.page.locator(f"{place} .problem")
        alert.wait_for()
        return alert.inner_text()


@pytest.fixture
def player(chromium, server) -> Iterator:
    yield from _pages(Player, chromium, server)


@pytest.fixture
def visit(chromium, server) -> Iterator:
    yield from _pages(Visitor, chromium, server)


def _pages(kind: type, chromium, server) -> Iterator:
    """Open pages of one kind; none of them may report a problem."""
    pages: list = []

    def open_page(url: str | None = None, **options):
        pages.append(kind(chromium, url or server.url, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        problems = page.problems
        page.close()
        assert not problems


def assert_no_foreign(visitor: Visitor) -> None:
    foreign = [
        url for url in visitor.requests if not url.startswith((visitor.url, "data:", "blob:"))
    ]
    assert visitor.requests and not foreign


def contrast(visitor: Visitor, selector: str) -> float:
    """Lowest contrast of texts with the page, after WCAG 2."""
    locator = visitor.page.locator(selector.replace(":visible", ""))
    colours = locator.evaluate_all(
        """elements => elements.map(element => {
            const style = getComputedStyle(element);
            const page = getComputedStyle(document.querySelector('gradio-app'));
            return [style.color, style.opacity, page.backgroundColor];
        })"""
    )

    def luminance(rgb) -> float:
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def parse(text: str) -> np.ndarray:
        return np.array([float(x) for x in re.findall(r"[\d.]+", text)[:3]]) / 255

    values = []
    for text, opacity, ground in colours:
        share, page = float(opacity), parse(ground)
        ink = share * parse(text) + (1 - share) * page
        high, low = sorted((luminance(ink), luminance(page)), reverse=True)
        values.append((high + 0.05) / (low + 0.05))
    assert values
    return min(values)
