"""Times of the page in the browser: its start, a transfer, a live session. Needs Chromium.

python benchmarks/app.py             # three starts, each with two transfers and 20 s of live sound
python benchmarks/app.py --runs 10 --only start transfer

start     from the start of `app.py` to the page: seconds
transfer  10 s of a shipped flute clip, from the click to a player with sound: seconds, for the
          first transfer of a server, which loads models, and for the second one
live      the microphone plays the clip: delay that the browser plays with, dropouts, load

The load of the machine stands in each row: other programs change the figures.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import soundfile
from measuring import Table
from playwright.sync_api import Page, sync_playwright

from audio_diffusion_pytorch.paths import CLIPS

ROOT = Path(__file__).resolve().parent.parent
CLIP = CLIPS / "bwv307_p4_t0_flute.flac"
SECONDS = 10  # of the clip
LONGEST = 120_000  # milliseconds until a step counts as failed
PARTS = ("start", "transfer", "live")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="starts of the server")
    parser.add_argument("--seconds", type=int, default=20, help="length of a live session")
    parser.add_argument("--quality", choices=("Instant", "Draft"), default="Draft", help="of live")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("error: Chromium is not installed: apt install chromium")
    table = Table("part", "result", "load of the machine")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        clip = Path(folder) / "flute.wav"
        wav, rate = soundfile.read(CLIP, frames=SECONDS * soundfile.info(CLIP).samplerate)
        soundfile.write(clip, wav, rate, "PCM_16")
        options = ["--no-sandbox", "--use-fake-device-for-media-stream"]
        options += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={clip}"]
        for _ in range(args.runs):
            with server(folder) as (url, seconds):
                table.row("start", f"{seconds:.1f} s", load())
                browser = playwright.chromium.launch(executable_path=chromium, args=options)
                page = browser.new_page()
                page.set_default_timeout(LONGEST)
                page.goto(url)
                page.get_by_role("button", name="Play it", exact=True).wait_for()
                if "transfer" in args.only:
                    for which in ("first", "second"):
                        seconds = transfer(page, clip)
                        table.row(f"{which} transfer", f"{seconds:.1f} s", load())
                if "live" in args.only:
                    table.row("live", live(page, args.seconds, args.quality), load())
                browser.close()


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


@contextmanager
def server(folder: str) -> Iterator[tuple[str, float]]:
    """Start the page; yield its address and the seconds until it answers."""
    command = [sys.executable, str(ROOT / "app.py"), "browser=false"]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = next((m for line in process.stdout if (m := re.search(r"http://\S+", line))), None)
        if found is None:
            raise SystemExit("error: the page did not start")
        urllib.request.urlopen(found[0]).read()
        yield found[0], time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def transfer(page: Page, clip: Path) -> float:
    """Transfer the clip; return the seconds from the click to a player that has sound."""
    page.locator("#upload input[type=file]").set_input_files(str(clip))
    page.locator("#recording .recording", has_text=clip.name).wait_for()
    page.wait_for_timeout(5000)  # a server that has just started warms up
    started = time.perf_counter()
    page.locator("#start").click()
    page.wait_for_function(
        "() => document.querySelector('#results ab-player')?.sounds?.[1]?.readyState >= 2"
    )
    seconds = time.perf_counter() - started
    page.locator("#start:not([disabled])").wait_for()
    return seconds


def live(page: Page, seconds: int, quality: str) -> str:
    """Play live; return the facts that the page shows."""
    page.get_by_role("tab", name="Live", exact=True).click()
    page.get_by_label("Your instrument").click()
    page.get_by_role("option", name="Flute", exact=True).first.click()
    page.locator("#live-more").get_by_role("button", name="More settings").click()
    page.locator("#live-more").get_by_label(f"{quality}: fast").check()
    page.locator("#live-start").click()
    page.locator(".live-text", has_text="Play into the microphone").wait_for()
    page.wait_for_timeout(1000 * seconds)
    facts: list[Any] = page.locator("live-panel dd").all_inner_texts()
    page.locator("#live-stop").click()
    return f"{quality}, {seconds} s; delay {facts[0]}; dropouts {facts[1]}; load {facts[2]}"


if __name__ == "__main__":
    main()
