"""A server of the page in a process of its own, and a browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT

from audio_diffusion_pytorch.app.service import example

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
READY = re.compile(r"ready: (http://\S+)")
OTHER_HOST = "studio.test"  # leads to this machine, but is another one for the browser
LIMIT = 90  # seconds until a start counts as failed


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    seconds: float
    temporary: Path
    lines: list[str] = field(default_factory=list)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory) -> Iterator[Callable[..., Server]]:
    """Starts `python app.py` as a user does; `temporary`: its folder for temporary files."""
    if find_spec("gradio") is None:
        pytest.skip("Gradio is not installed: pip install -e '.[app]'")
    servers: list[Server] = []

    def start(*arguments: str, temporary: Path | None = None) -> Server:
        temporary = temporary or tmp_path_factory.mktemp("server")
        environment = {**os.environ, "TMPDIR": str(temporary), "PROJECT_ROOT": str(ROOT)}
        environment.pop("HYDRA_FULL_ERROR", None)
        command = [sys.executable, str(ROOT / "app.py"), "browser=false", *arguments]
        begin = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=temporary,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines: list[str] = []
        ready = threading.Event()

        def read() -> None:
            for line in process.stdout:
                lines.append(line)
                if READY.search(line):
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        assert ready.wait(LIMIT), lines
        seconds = time.monotonic() - begin
        found = READY.search("".join(lines))
        assert found, "".join(lines)
        server = Server(process, found[1], seconds, temporary, lines)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@contextmanager
def behind_proxy(server: Server) -> Iterator[str]:
    """Serve a page with root_path=/timbre by a reverse proxy; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("proxy.py")
    with subprocess.Popen([sys.executable, script, server.url, str(port)]) as proxy:
        try:
            wait_for(port)
            yield f"http://127.0.0.1:{port}/timbre/"
        finally:
            proxy.kill()


def wait_for(port: int) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"nothing answers on port {port}")


@pytest.fixture(scope="session")
def server(start_server, tmp_path_factory) -> Server:
    """One server for most tests, with an own model, small limits and a training."""
    models = tmp_path_factory.mktemp("logs")
    assets = ROOT / "audio_diffusion_pytorch" / "assets" / "instruments"
    shutil.copy(assets / "violin.safetensors", models / "my_violin.safetensors")
    make_run(models / "my_flute")
    return start_server(f"models={models}", f"logs={models}", "max_minutes=31", "max_megabytes=90")


def make_run(folder: Path) -> None:
    """A run folder with logs."""
    from torch.utils.tensorboard import SummaryWriter

    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("exp_name: flute_small\ntotal_steps: 1000\n")
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for step in range(0, 400, 10):
            writer.add_scalar("train_loss", 0.4 + 2 / (1 + step / 20), step)
        for step in range(0, 400, 100):
            writer.add_scalar("valid_loss", 0.5 + 2 / (1 + step / 20), step)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory) -> Iterator:
    """Chromium whose microphone plays a shipped clip again and again."""
    if find_spec("playwright") is None:
        pytest.skip("Playwright is not installed: pip install -e '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    from playwright.sync_api import sync_playwright

    microphone = tmp_path_factory.mktemp("microphone") / "flute.wav"
    wav, rate = soundfile.read(example("flute"))
    soundfile.write(microphone, wav, rate, "PCM_16")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
                f"--host-resolver-rules=MAP {OTHER_HOST} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()
