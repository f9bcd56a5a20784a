"""Build the systems of a pair: bridges, and reference points for comparison."""

from collections.abc import Sequence
from typing import Any

from audio_diffusion_pytorch.bridge.bridge import Bridge
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.catalog import ModelCatalog
from audio_diffusion_pytorch.evaluation.clips import Excerpt
from audio_diffusion_pytorch.evaluation.melody_alone import MelodyAlone
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.settings import EvaluationSettings
from audio_diffusion_pytorch.evaluation.systems import (
    BridgeSystem,
    CodecOnly,
    Identity,
    Moved,
    System,
    Truth,
    WarmStart,
)
from audio_diffusion_pytorch.evaluation.tasks import pair_name


class SystemFactory:
    """Build systems from the settings.

    Args:
        settings: settings of the evaluation.
        catalog: loads models and codecs.
        sample_rate: rate of the evaluation in Hz.
        problems: collects bridges that cannot be built.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        catalog: ModelCatalog,
        sample_rate: int,
        problems: Problems,
    ):
        self.settings = settings
        self.catalog = catalog
        self.sample_rate = sample_rate
        self.problems = problems

    def bridges(self, pair: tuple[str, str]) -> list[BridgeSystem]:
        """Build a bridge for each set of models and each noise level.

        Args:
            pair: source and target instrument.

        Returns:
            The bridges; a noise level that the models do not support becomes a problem.

        Raises:
            InputError: a model is missing.
        """
        settings = self.settings
        systems = []
        levels: Sequence[float | None] = settings.sigmas or [None]
        for name in settings.bridges:
            source, target = (self.catalog.model(name, instrument) for instrument in pair)
            codec = self.catalog.shared_codec(source, target)
            for sigma in levels:
                try:
                    system = BridgeSystem(
                        name,
                        source,
                        target,
                        settings.cycle_clips,
                        settings.sweeps_sigma,
                        **self._options(sigma, codec, settings.handoff, settings.melody),
                    )
                except InputError as error:
                    self.problems.add(f"{pair_name(pair)}: {error}", pair_name(pair))
                    continue
                systems.append(system)
        return systems

    def references(
        self, systems: Sequence[System], excerpts: Sequence[Excerpt], octaves: Sequence[int]
    ) -> list[System]:
        """Build the reference points of a pair.

        Args:
            systems: systems of the pair.
            excerpts: excerpts of the pair.
            octaves: octaves by which each excerpt moves.

        Returns:
            The reference points that the settings name and that apply to the pair.
        """
        wanted = self.settings.references
        bridges = [system for system in systems if isinstance(system, BridgeSystem)]
        found: list[System] = []
        if "identity" in wanted:
            found.append(Identity())
            if any(octaves):
                found.append(Moved())
        if "codec" in wanted:
            codec = bridges[0].bridge.codec if bridges else self.catalog.codec("small")
            found.append(CodecOnly(codec))
        if "warm" in wanted and bridges:
            found += self._warm_starts(bridges)
        if "melody" in wanted and bridges and bridges[0].bridge.target.spec.melody_channels:
            found.append(self._melody_alone(bridges[0].bridge))
        if "truth" in wanted and any(excerpt.truth is not None for excerpt in excerpts):
            found.append(Truth(self.sample_rate))
        return found

    def _warm_starts(self, bridges: Sequence[BridgeSystem]) -> list[System]:
        """One warm start for each noise level of the first bridge."""
        first = bridges[0].bridge
        levels = dict.fromkeys(b.sigma for b in bridges if b.name == bridges[0].name)
        melody = first.melody.given[1]
        return [
            WarmStart(
                first.target,
                self.settings.seed,
                self.settings.sweeps_sigma,
                **self._options(level, first.codec, "plain", melody),
            )
            for level in levels
        ]

    def _melody_alone(self, bridge: Bridge) -> System:
        """Start at the highest noise level, with as many steps as both halves of the bridge."""
        options = self._options(bridge.target.spec.sigma_max, bridge.codec, "plain", melody=True)
        options["num_steps"] = 2 * len(bridge.sigmas) - 1
        return MelodyAlone(bridge.target, self.settings.seed, **options)

    def _options(
        self, sigma: float | None, codec: Codec, handoff: str, melody: bool | str
    ) -> dict[str, Any]:
        settings = self.settings
        return {
            "sigma": sigma,
            "quality": settings.quality,
            "num_steps": settings.num_steps,
            "solver": settings.solver,
            "handoff": handoff,
            "melody": melody,
            "melody_guidance": settings.melody_guidance,
            "vibrato": settings.vibrato,
            "batch_size": settings.batch_size,
            "codec": codec,
            "device": settings.device,
        }
