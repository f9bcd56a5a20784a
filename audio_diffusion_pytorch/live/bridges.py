"""Bridges of a live session, loaded and ready to play."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.bridge.frozen import FrozenDenoiser, with_frozen_networks
from audio_diffusion_pytorch.bridge.hop_sizes import HopSizes
from audio_diffusion_pytorch.bridge.hop_stream import HopTransfer
from audio_diffusion_pytorch.bridge.schedules import STUDENT
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.live.engine import LiveEngine, Transfer
from audio_diffusion_pytorch.live.listener import Listener
from audio_diffusion_pytorch.live.settings import AUTO, LiveSettings
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import load_instrument, shipped_instruments
from audio_diffusion_pytorch.pitch.octaves import Octaves
from audio_diffusion_pytorch.utils.devices import choose_device

Load = Callable[[str], Bridge]  # from the name of a source model to its bridge


class LiveBridges:
    """Bridges of live sessions. Their first calls, which take longer, are done.

    Args:
        settings: checked settings.
        rate: sample rate in Hz.
        used: seconds of the delay that blocks and audio devices use.
        load: function from the name of a source model to its bridge; None: `load_bridge`.

    Attributes:
        sizes: sizes of the hops.

    Raises:
        InputError: a model cannot be used, or the delay is too short.
    """

    def __init__(self, settings: LiveSettings, rate: int, used: float, load: Load | None = None):
        self._settings = settings
        self._rate = rate
        self._load = load or partial(load_bridge, settings, load_instrument(settings.target))
        self._recorded: dict[nn.Module, FrozenDenoiser] = {}  # the bridges share the target
        sources = shipped_instruments() if settings.source == AUTO else [settings.source]
        first = self._load(sources[0])
        self._budget = settings.latency - used
        least = HopSizes.least_latency(first.framing)
        if self._budget < least:
            raise InputError(
                f"latency={settings.latency:g} must be at least {used + least:.2f} s with "
                f"block={settings.block}"
            )
        self.sizes = first.hop_sizes(self._budget)
        self._makers = {sources[0]: self._prepare(first)}
        for source in sources[1:]:
            self._makers[source] = self._prepare(self._load(source))

    def engine(self, tell: Callable[[str], None], wet: float = 1.0) -> LiveEngine:
        """Return an engine of one channel for a new session, not yet started.

        Args:
            tell: callback for the chosen source, as a sentence.
            wet: share of the bridged sound.
        """
        transfer = self._transfer(tell)
        return LiveEngine(transfer, self.sizes, self._rate, wet=wet, block=self._settings.block)

    def _transfer(
        self, tell: Callable[[str], None]
    ) -> Transfer | Callable[[torch.Tensor], Transfer | None]:
        """Return the bridge, or a listener that chooses it."""

        def choose(source: str) -> HopTransfer:
            if source not in self._makers:  # one of the model of thirteen instruments
                self._makers[source] = self._prepare(self._load(source))
            return self._makers[source]()

        if self._settings.source == AUTO:
            return Listener(choose, self._rate, tell)
        return self._makers[self._settings.source]()

    def _prepare(self, bridge: Bridge) -> Callable[[], HopTransfer]:
        """Return a maker of a bridge for blocks, whose first calls are done."""
        if bridge.hop_sizes(self._budget) != self.sizes:
            raise InputError(
                f"source=auto: the windows of {bridge.source.spec.name} differ: name a source"
            )
        pair = with_frozen_networks(bridge, self.sizes.window, self._recorded)
        octaves = cast(Octaves, self._settings.transpose)
        make = partial(HopTransfer, pair, self._rate, 1, self.sizes, octaves=octaves)
        seconds = self.sizes.latency_seconds + self.sizes.hop_seconds
        noise = torch.rand(1, round(seconds * self._rate)) - 0.5
        make().add(0.1 * noise)
        return make


def load_bridge(settings: LiveSettings, target: InstrumentModel, source: str) -> Bridge:
    """Load the bridge from a source model to a target model.

    Args:
        settings: settings of the session. quality=auto is instant between models with students,
            which need fewer network evaluations than draft, else draft.
        target: model of the output's instrument.
        source: name of the source model.
    """
    options = {**settings.bridge, "device": choose_device(settings.device), "batch_size": 1}
    models = load_instrument(source), target
    if options["quality"] != AUTO:
        return Bridge(*models, **options)
    bridge = Bridge(*models, **{**options, "quality": "instant"})
    if bridge.schedules.path != STUDENT:
        bridge = Bridge(*models, **{**options, "quality": "draft"})
    return bridge
