"""Serve the page: a local server without any request to other hosts."""

from __future__ import annotations

import logging
import os
import sys
import time
import webbrowser
from typing import Any

from audio_diffusion_pytorch.app.settings import AppSettings, choose_port
from audio_diffusion_pytorch.cli import ending_on_terminate

# Forbid the browser to load anything from other hosts. Gradio needs inline scripts and `eval`.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'"
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Headers:
    """Add headers to every response.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def serve(settings: AppSettings) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        settings: settings of the page.

    Raises:
        InputError: the port cannot be used.
    """
    port = choose_port(settings.host, settings.port)
    from audio_diffusion_pytorch.app.service import Service
    from audio_diffusion_pytorch.app.storage import Storage

    service = Service(settings, Storage(settings.keep_minutes))
    try:
        # Gradio reads these when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = str(service.storage.uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_OFFLINE"] = "1"
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks its own server
        url = launch(service, port)
        with ending_on_terminate():
            print(_ready(settings, url), flush=True)
            service.warm_up()
            while True:
                time.sleep(3600)
    finally:
        service.close()


def launch(service: Any, port: int) -> str:
    """Build the page and start its server in a thread.

    Args:
        service: the service.
        port: free port.

    Returns:
        The address of the page.
    """
    from starlette.middleware import Middleware

    from audio_diffusion_pytorch.app import page
    from audio_diffusion_pytorch.app.live_socket import live_route

    settings = service.settings
    blocks = page.build(service)
    _, local, shared = blocks.queue(default_concurrency_limit=None).launch(
        server_name=settings.host,
        server_port=port,
        share=settings.share,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        auth=list(settings.users) or None,
        root_path=settings.root_path or None,
        max_file_size=round(settings.max_megabytes * 1_000_000),
        allowed_paths=[str(service.storage.visitors_folder)],
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        app_kwargs={"middleware": [Middleware(Headers)], "routes": [live_route(service)]},
        **page.looks(),
    )
    return shared or local


def _ready(settings: AppSettings, url: str) -> str:
    """Open the browser, and describe the page."""
    url = url.rstrip("/") + "/"
    opened = settings.browser and has_browser() and webbrowser.open(url)
    place = "opened in the browser" if opened else "open it in a browser"
    return f"ready: {url} ({place}; Ctrl-C ends the page)"


def has_browser() -> bool:
    """Return whether a browser with windows can open; a browser of the terminal would block it."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
