"""A live session of the page: the browser exchanges sound with an engine on a worker."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_diffusion_pytorch.app.recipes import defaults
from audio_diffusion_pytorch.app.transfers import files_state
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.live.settings import AUTO, LiveSettings
from audio_diffusion_pytorch.utils.settings import check_choice, check_number

if TYPE_CHECKING:
    from audio_diffusion_pytorch.live.bridges import LiveBridges
    from audio_diffusion_pytorch.live.engine import LiveEngine

BLOCK = 1024  # samples of a message
# Seconds from a sample in the browser's audio thread to the moment when its answer must be there:
# the rest of its block, and the way to the server and back.
MARGIN = 0.12
KEYS = ("source", "target", "quality", "latency", "wet", "transpose", "rate")
QUALITIES = ("auto", "instant", "draft", "normal", "high")
_KEPT = 2  # sets of bridges that stay in memory
_SILENCE = 5.0  # seconds without a message until a session counts as gone
_AHEAD = 2.0  # seconds of sound that may arrive too early
_MANY = 10  # dropouts after which the page names remedies
_TICK = 0.05  # seconds between two looks at the session


def live_settings(message: Any) -> LiveSettings:
    """Check the settings of a session.

    Args:
        message: `KEYS`, all or some; as the browser sends them, not trusted.

    Raises:
        InputError: a setting is missing or wrong.
    """
    if not isinstance(message, Mapping) or not message.keys() <= set(KEYS):
        raise InputError(f"the settings of a live session are {', '.join(KEYS)}")
    values = {**defaults("live"), "block": BLOCK, "rate": 48000, **message}
    check_choice("quality", values["quality"], QUALITIES)
    check_number("rate", values["rate"], whole=True, least=8000)
    return LiveSettings.from_arguments(values)


class LiveCache:
    """Keep the bridges of the last sessions, which take seconds to prepare."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, LiveBridges] = OrderedDict()
        self._lock = threading.Lock()

    def bridges(self, settings: LiveSettings, ticket: Ticket) -> LiveBridges:
        """Return the bridges of some settings, and show the progress.

        Args:
            settings: settings of the session; `wet` is ignored.
            ticket: receives the progress; may cancel.

        Raises:
            InputError: a model cannot be used, or the delay is too short.
        """
        from audio_diffusion_pytorch.live.bridges import LiveBridges, load_bridge
        from audio_diffusion_pytorch.models.loading import load_instrument, shipped_instruments

        models = tuple((name, files_state(name)) for name in (settings.source, settings.target))
        options = (settings.latency, settings.transpose, settings.rate, settings.device)
        key = (models, tuple(settings.bridge.items()), options)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        count = len(shipped_instruments()) if settings.source == AUTO else 1
        ticket.start_stage("Loading the models", count)
        target = load_instrument(settings.target)

        def load(source: str) -> Any:
            bridge = load_bridge(settings, target, source)
            ticket.advance()
            return bridge

        rate = settings.rate or 48000
        bridges = LiveBridges(settings, rate, settings.block / rate + MARGIN, load)
        with self._lock:
            self._kept[key] = bridges
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return bridges


class LivePlay:
    """Play one session: `work` runs on a worker, `exchange` on the server's thread.

    Args:
        settings: checked settings.
        cache: bridges of the last sessions.
        check_turn: function of the seconds played; raises `InputError` if the session must end.

    Attributes:
        engine: the engine; None: not ready.
        source: choice of the source model, as a sentence; empty: not yet, or chosen by the visitor.
    """

    def __init__(
        self, settings: LiveSettings, cache: LiveCache, check_turn: Callable[[float], None]
    ):
        self.engine: LiveEngine | None = None
        self.source = ""
        self._settings = settings
        self._cache = cache
        self._check_turn = check_turn
        self._warning = ""
        self._started = self._heard = 0.0
        self._received = 0

    def work(self, ticket: Ticket, device: str) -> None:
        """Load the models, and compute until the session ends.

        Args:
            ticket: receives the progress; its cancel ends the session.
            device: name of the device.

        Raises:
            InputError: a model cannot be used, or the session must end.
            Cancelled: the visitor stopped or left.
        """
        import torch

        from audio_diffusion_pytorch.utils.threads import set_threads

        threads = torch.get_num_threads()
        set_threads(spare=True)  # the page needs a core
        try:
            bridges = self._cache.bridges(replace(self._settings, device=device), ticket)
            ticket.start_stage("Starting the sound")
            with bridges.engine(self._tell, self._settings.wet) as engine:
                self._started = self._heard = time.monotonic()
                self.engine = engine
                while True:
                    ticket.check()
                    self._check(engine)
                    time.sleep(_TICK)
        finally:
            torch.set_num_threads(threads)

    def exchange(self, data: bytes) -> bytes:
        """Add the sound of a message, and return the sound that is due.

        Args:
            data: `BLOCK` samples, little-endian float32; not trusted.

        Raises:
            InputError: the message has another length, or comes too early.
        """
        if self.engine is None or len(data) != 4 * BLOCK:
            raise InputError(f"live sound must come in blocks of {BLOCK} samples")
        self._heard = time.monotonic()
        self._received += BLOCK
        seconds = self._received / self.engine.sample_rate
        if seconds > 1.1 * (self._heard - self._started) + _AHEAD:
            raise InputError("the page sends sound faster than it is played: start again")
        block = np.frombuffer(data, "<f4").astype(np.float32)[:, None]
        return self.engine.exchange(block).astype("<f4").tobytes()

    def change(self, message: Any) -> None:
        """Change the share of the bridged sound while it plays.

        Args:
            message: `{"wet": SHARE}`; not trusted.

        Raises:
            InputError: the message is another one.
        """
        wet = message.get("wet") if isinstance(message, Mapping) else None
        check_number("wet", wet, least=0, most=1)
        self._settings = replace(self._settings, wet=float(wet or 0))
        if self.engine is not None:
            self.engine.wet = self._settings.wet

    @property
    def state(self) -> dict[str, Any]:
        """Load, dropouts, source and warning of a ready session, for the page."""
        assert self.engine is not None
        state = self.engine.state
        gaps = state.load > 0 and state.dropouts > _MANY
        if (state.too_slow or gaps) and not self._warning:
            self._warning = self.engine.advice()
        return {
            "load": round(state.load, 3),
            "dropouts": state.dropouts,
            "source": self.source,
            "warning": self._warning,
        }

    def _tell(self, sentence: str) -> None:
        self.source = sentence.removeprefix("source: ")

    def _check(self, engine: LiveEngine) -> None:
        if engine.failure is not None:
            raise engine.failure
        now = time.monotonic()
        if now - self._heard > _SILENCE:
            raise InputError(f"no sound came from the page for {_SILENCE:.0f} s: start again")
        self._check_turn(now - self._started)
