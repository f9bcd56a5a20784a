"""What an evaluation consists of: pairs, models, excerpts, systems. What cannot be used is named, the rest goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.codecs.loading import load_codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import (
    Excerpt,
    Recording,
    choose_excerpts,
    find_recordings,
    pairs_of,
    real_excerpts,
)
from audio_diffusion_pytorch.evaluation.embeddings import embed_real
from audio_diffusion_pytorch.evaluation.outputs import find_outputs
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.runner import EvaluationRunner, ScoringTask, pair_name
from audio_diffusion_pytorch.evaluation.systems import (
    BridgeSystem,
    CodecOnly,
    Finished,
    Identity,
    Moved,
    System,
    Truth,
    WarmStart,
)
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.metrics.frechet import Embedder, Moments
from audio_diffusion_pytorch.models.instrument import InstrumentModel, pitch_range
from audio_diffusion_pytorch.models.loading import load_instrument, shared_codec

Models = str | Path | Mapping[str, str] | None
SAMPLE_RATE = 24000  # in Hz, of everything that is compared where no codec tells another


@dataclass(frozen=True)
class Settings:
    """What `configs/evaluate.yaml` says of each.

    bridges: name in the tables -> models; none where finished `outputs` are scored, under the name `system`.
    sigmas: hand-off levels; none: each pair's default.
    """

    pairs: str | Sequence[str]
    data: Path
    output: Path
    outputs: Path | None = None
    system: str = "outputs"
    bridges: Mapping[str, Models] = field(default_factory=dict)
    references: Sequence[str] = ("identity", "codec", "warm", "truth")
    sigmas: Sequence[float] = ()
    quality: str = "normal"
    num_steps: int | None = None
    solver: str | None = None
    handoff: str = "auto"
    transpose: str | int = "auto"
    clips: int = 40
    seconds: float = 12.0
    cycle_clips: int = 4
    batch_size: int = 8
    seed: int = 0
    device: str | torch.device = "cpu"
    codec: Mapping[str, Any] = field(default_factory=dict)


class EvaluationSetup:
    """The items to be scored, for `evaluation.run`.

    Attributes: `items`, `evaluation`, `recordings`, `problems`.

    Raises:
        InputError: there is nothing to evaluate; the message says why.
    """

    def __init__(self, settings: Settings, classifier: Any = None):
        self.settings, self.problems = settings, Problems()
        self.recordings = find_recordings(settings.data, self.problems, settings.output)
        self._models: dict[tuple[str, str], InstrumentModel | InputError] = {}
        self._codecs: dict[str, Codec] = {}
        everything = str(settings.pairs).lower() == "all"
        self.pairs = pairs_of(settings.pairs, self._instruments() if everything else ())
        if settings.outputs is not None and everything:
            self.pairs = [
                p for p in self.pairs if (settings.outputs / pair_name(p)).is_dir()
            ] or self.pairs
        rate = self._sample_rate()
        roots = [settings.data] + ([settings.outputs] if settings.outputs is not None else [])
        self.evaluation = EvaluationRunner(
            settings.output, rate, classifier, settings.batch_size, self.problems, roots
        )
        self.items: list[ScoringTask] = []
        for pair in self.pairs:
            try:
                self.items += self._items_of(pair)
            except InputError as error:
                self.problems.add(f"{pair_name(pair)}: {error}", pair_name(pair))
        if not self.items:
            raise InputError(f"nothing to evaluate: {self.problems.short()}")

    def _instruments(self) -> list[str]:
        """Those with recordings, and with a model of every bridge or a folder of outputs."""
        there = list(dict.fromkeys(r.instrument for r in self.recordings))
        usable = []
        for instrument in there:
            try:
                for name in self.settings.bridges:
                    self._model(name, instrument)
                usable.append(instrument)
            except InputError as error:
                self.problems.add(f"{instrument}: {error}", instrument)
        return usable

    def _sample_rate(self) -> int:
        rates = {}
        for name in self.settings.bridges:
            for pair in self.pairs:
                try:
                    codec = self._codec(self._model(name, pair[0]), self._model(name, pair[1]))
                except InputError:
                    continue  # named when the pair's turn comes
                rates[name] = codec.sample_rate
                break
        if len(set(rates.values())) > 1:
            raise InputError(
                f"models of different sample rates cannot be compared in one table: {rates}"
            )
        return next(iter(rates.values()), SAMPLE_RATE)

    def _items_of(self, pair: tuple[str, str]) -> list[ScoringTask]:
        settings, usable = self.settings, self.recordings
        sources = [r for r in self.recordings if r.instrument == pair[0]]
        if not sources:
            raise InputError(f"no recording of {pair[0]} in data={settings.data}")
        systems, limits = self._bridges(pair), PITCH_RANGES.get(pair[1])
        if settings.outputs is not None:
            outputs = find_outputs(
                settings.outputs, pair, settings.data, sources, len(self.pairs) == 1, self.problems
            )
            systems = [Finished(settings.system, outputs, self.evaluation.sample_rate)]
            usable = [r for r in self.recordings if r.instrument != pair[0] or r.path in outputs]
        elif not systems:
            raise InputError("no bridge could be made")
        else:
            limits = pitch_range(systems[0].bridge.target.spec)

        def octaves(recording: Recording) -> int | None:
            try:
                return self.evaluation.octaves(recording, settings.transpose, limits)
            except InputError as error:
                self.problems.add(str(error), recording.path)
                return None

        broken: set[Recording] = set()
        while True:  # only what is chosen is listened to
            usable = [recording for recording in usable if recording not in broken]
            excerpts = choose_excerpts(
                usable, pair, settings.clips, settings.seconds, octaves, self.problems
            )
            broken = {
                excerpt.recording for excerpt in excerpts if octaves(excerpt.recording) is None
            }
            if not broken:
                break
        if not excerpts:
            raise InputError("no clip to score")
        moved = [octaves(excerpt.recording) for excerpt in excerpts]
        elsewhere = sum(
            e.truth is not None and e.truth_octaves != o
            for e, o in zip(excerpts, moved, strict=True)
        )
        if elsewhere:
            name = f"{pair_name(pair)}, {elsewhere} of {len(excerpts)} clips"
            self.problems.add(
                f"{name}: the true performance lies in another register than the output: no log-mel distance to it",
                name,
            )
        return self.evaluation.plan(
            pair, [*self._references(systems, excerpts, moved), *systems], excerpts, moved
        )

    def _references(
        self, systems: Sequence[System], excerpts: Sequence[Excerpt], octaves: Sequence[int]
    ) -> list[System]:
        wanted, found = self.settings.references, []
        first = systems[0].bridge if isinstance(systems[0], BridgeSystem) else None
        if "identity" in wanted:
            found.append(Identity())
            if any(octaves):
                found.append(Moved())
        if "codec" in wanted:
            found.append(CodecOnly(self._codec_named("small") if first is None else first.codec))
        if "warm" in wanted and first is not None:
            # those that a bridge could be made for
            levels = dict.fromkeys(s.sigma for s in systems if s.name == systems[0].name)
            for level in levels:
                options = {**self._options(level, first.codec), "handoff": "plain"}
                found.append(
                    WarmStart(
                        first.target, self.settings.seed, len(self.settings.sigmas) > 1, **options
                    )
                )
        if "truth" in wanted and any(excerpt.truth is not None for excerpt in excerpts):
            found.append(Truth(self.evaluation.sample_rate))
        return found

    def _bridges(self, pair: tuple[str, str]) -> list[System]:
        """
        Raises:
            InputError: a model is missing.
        """
        systems: list[System] = []
        swept = len(self.settings.sigmas) > 1
        for name in self.settings.bridges:
            source, target = (self._model(name, instrument) for instrument in pair)
            codec = self._codec(source, target)
            for sigma in self.settings.sigmas or [None]:
                options = self._options(sigma, codec)
                try:
                    systems.append(
                        BridgeSystem(
                            name, source, target, self.settings.cycle_clips, swept, **options
                        )
                    )
                except InputError as error:
                    self.problems.add(f"{pair_name(pair)}: {error}", pair_name(pair))
        return systems

    def _options(self, sigma: float | None, codec: Codec) -> dict[str, Any]:
        settings = self.settings
        return {
            **{"sigma": sigma, "quality": settings.quality},
            **{
                "num_steps": settings.num_steps,
                "solver": settings.solver,
                "handoff": settings.handoff,
            },
            **{"batch_size": settings.batch_size, "codec": codec, "device": settings.device},
        }

    def _model(self, bridge: str, instrument: str) -> InstrumentModel:
        key = bridge, instrument
        if key not in self._models:
            try:
                self._models[key] = load_model(
                    self.settings.bridges[bridge], instrument, self.settings.device
                )
            except InputError as error:
                self._models[key] = error
        found = self._models[key]
        if isinstance(found, InputError):
            raise found
        return found

    def _codec(self, source: InstrumentModel, target: InstrumentModel) -> Codec:
        if source.codec is not None or target.codec is not None:
            return shared_codec(source, target, **self.settings.codec)
        return self._codec_named(source.spec.codec)

    def _codec_named(self, name: str) -> Codec:
        if name not in self._codecs:
            self._codecs[name] = load_codec(name, **self.settings.codec).to(self.settings.device)
        return self._codecs[name]

    def real_moments(
        self,
        targets: Sequence[str],
        embedder: Embedder,
        progress: Callable[[], None] = lambda: None,
    ) -> dict[str, list[Moments]]:
        """Moments of real clips of each target, twice as many as are scored: each half is as large as a pair's.

        Silent and damaged ones are left out and named. `progress` is called after each target.
        """
        real, settings = {}, self.settings
        for target in targets:
            excerpts = real_excerpts(self.recordings, target, 2 * settings.clips, settings.seconds)
            real[target] = []
            for excerpt in excerpts:
                try:
                    real[target].append(embed_real(excerpt, self.evaluation.sample_rate, embedder))
                except InputError as error:
                    self.problems.add(str(error), excerpt.recording.path)
            progress()
        return real


def load_model(models: Models, instrument: str, device: str | torch.device) -> InstrumentModel:
    """One instrument's model out of what `models=` may be.

    Args:
        models: None: what ships; a mapping instrument -> what `load_instrument` takes; a folder of
            INSTRUMENT.safetensors; else a model of several instruments.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    name = instrument.replace(" ", "_")
    if models is None:
        return load_instrument(name, device)
    if isinstance(models, Mapping):
        given = {str(key).replace("_", " "): value for key, value in models.items()}
        if instrument not in given:
            raise InputError(f"models names no model of {instrument}, only of {', '.join(given)}")
        return load_instrument(given[instrument], device)
    if Path(models).is_dir():
        for file in (
            Path(models) / f"{name}.safetensors",
            Path(models) / f"{instrument}.safetensors",
        ):
            if file.is_file():
                return load_instrument(file, device)
        if not (Path(models) / "checkpoints").is_dir():
            raise InputError(f"no {name}.safetensors in the folder {models}")
    for label in dict.fromkeys((instrument, name)):
        try:
            return load_instrument(f"{models}:{label}", device)
        except InputError as error:
            reason = error
    raise reason
