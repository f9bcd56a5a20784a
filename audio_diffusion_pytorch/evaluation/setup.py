"""Set up an evaluation: choose pairs, excerpts and systems; unusable ones become problems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation import judge
from audio_diffusion_pytorch.evaluation.catalog import ModelCatalog
from audio_diffusion_pytorch.evaluation.clips import (
    Excerpt,
    Recording,
    choose_excerpts,
    find_recordings,
    pairs_of,
)
from audio_diffusion_pytorch.evaluation.extensions import own_parts_key
from audio_diffusion_pytorch.evaluation.outputs import find_outputs
from audio_diffusion_pytorch.evaluation.problems import Problems
from audio_diffusion_pytorch.evaluation.settings import EvaluationSettings
from audio_diffusion_pytorch.evaluation.system_factory import SystemFactory
from audio_diffusion_pytorch.evaluation.systems import Finished, System
from audio_diffusion_pytorch.evaluation.tasks import (
    ScoringTask,
    TaskKeys,
    pair_name,
    tasks_of_pair,
)
from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.models.instrument import pitch_range
from audio_diffusion_pytorch.pitch.octaves import heard_pitches, octaves_for
from audio_diffusion_pytorch.utils.hashing import digest

Pair = tuple[str, str]
Limits = tuple[int, int] | None


@dataclass(frozen=True)
class EvaluationSetup:
    """What an evaluation consists of.

    Attributes:
        settings: settings of the evaluation.
        recordings: recordings of the data.
        tasks: tasks in the order in which they run.
        keys: keys of the tasks.
        problems: everything that was left out so far.
        registers: MIDI pitches at the beginning of recordings without notes.
    """

    settings: EvaluationSettings
    recordings: list[Recording]
    tasks: list[ScoringTask]
    keys: TaskKeys
    problems: Problems
    registers: dict[Path, list[float]]


def set_up(
    settings: EvaluationSettings,
    classifier: Any = None,
    registers: Mapping[Path, list[float]] | None = None,
) -> EvaluationSetup:
    """Find recordings, load models, and choose the tasks.

    Args:
        settings: settings of the evaluation.
        classifier: classifier of the timbre scores, or None.
        registers: known registers, see `EvaluationSetup`.

    Returns:
        The setup.

    Raises:
        InputError: no task is left; the message gives the reasons.
    """
    problems = Problems()
    recordings = find_recordings(settings.data, problems, settings.output)
    catalog = ModelCatalog(settings.bridges, settings.codec, settings.device)
    pairs = _choose_pairs(settings, recordings, catalog, problems)
    sample_rate = catalog.sample_rate(pairs)
    own_parts = own_parts_key(settings.tracker, settings.metrics)
    if settings.tracker == judge.CREPE:
        own_parts = digest(own_parts, judge.VERSION, "codec" in settings.references)
    keys = TaskKeys(sample_rate, classifier, own_parts)
    factory = SystemFactory(settings, catalog, sample_rate, problems)
    chooser = _TaskChooser(
        settings, recordings, factory, keys, problems, len(pairs) == 1, dict(registers or {})
    )
    tasks: list[ScoringTask] = []
    for pair in pairs:
        try:
            tasks += chooser.tasks(pair)
        except InputError as error:
            problems.add(f"{pair_name(pair)}: {error}", pair_name(pair))
    if not tasks:
        raise InputError(f"nothing to evaluate: {problems.short()}")
    return EvaluationSetup(settings, recordings, tasks, keys, problems, chooser.registers)


def _choose_pairs(
    settings: EvaluationSettings,
    recordings: Sequence[Recording],
    catalog: ModelCatalog,
    problems: Problems,
) -> list[Pair]:
    if str(settings.pairs).lower() != "all":
        return pairs_of(settings.pairs, ())
    pairs = pairs_of(settings.pairs, _usable_instruments(recordings, catalog, problems))
    if settings.outputs is None:
        return pairs
    finished = [pair for pair in pairs if (settings.outputs / pair_name(pair)).is_dir()]
    return finished or pairs


def _usable_instruments(
    recordings: Sequence[Recording], catalog: ModelCatalog, problems: Problems
) -> list[str]:
    """Instruments with recordings and with a model of every bridge."""
    usable = []
    for instrument in dict.fromkeys(recording.instrument for recording in recordings):
        try:
            for bridge in catalog.bridges:
                catalog.model(bridge, instrument)
        except InputError as error:
            problems.add(f"{instrument}: {error}", instrument)
            continue
        usable.append(instrument)
    return usable


@dataclass
class _TaskChooser:
    """Choose the excerpts and systems of pairs."""

    settings: EvaluationSettings
    recordings: Sequence[Recording]
    factory: SystemFactory
    keys: TaskKeys
    problems: Problems
    single: bool  # whether the evaluation has one pair only
    registers: dict[Path, list[float]]  # see `EvaluationSetup`

    def tasks(self, pair: Pair) -> list[ScoringTask]:
        """Choose the tasks of a pair.

        Raises:
            InputError: the pair has no recording, no system or no excerpt.
        """
        systems, usable, limits = self._systems(pair)
        excerpts = self._excerpts(pair, usable, limits)
        if not excerpts:
            raise InputError("no clip to score")
        octaves = [self._octaves(excerpt.recording, limits) for excerpt in excerpts]
        self._report_other_registers(pair, excerpts, octaves)
        references = self.factory.references(systems, excerpts, octaves)
        everything = [*references, *systems]
        batch_size = self.settings.batch_size
        return tasks_of_pair(self.keys, pair, everything, excerpts, octaves, batch_size)

    def _systems(self, pair: Pair) -> tuple[Sequence[System], list[Recording], Limits]:
        """Systems of a pair, recordings that they can use, and the pitch range of their outputs."""
        settings = self.settings
        recordings = list(self.recordings)
        sources = [r for r in recordings if r.instrument == pair[0]]
        if not sources:
            raise InputError(f"no recording of {pair[0]} in data={settings.data}")
        if settings.outputs is None:
            bridges = self.factory.bridges(pair)
            if not bridges:
                raise InputError("no bridge can be built")
            return bridges, recordings, pitch_range(bridges[0].bridge.target.spec)
        outputs = find_outputs(
            settings.outputs, pair, settings.data, sources, self.single, self.problems
        )
        finished = Finished(settings.system, outputs, self.keys.sample_rate)
        usable = [r for r in recordings if r.instrument != pair[0] or r.path in outputs]
        return [finished], usable, PITCH_RANGES.get(pair[1])

    def _excerpts(self, pair: Pair, usable: list[Recording], limits: Limits) -> list[Excerpt]:
        """Choose excerpts, again without recordings in which no register can be found."""
        settings = self.settings
        octaves = self._octaves_or_none(limits)
        while True:  # analyses chosen recordings only: an analysis decodes the file
            excerpts = choose_excerpts(
                usable, pair, settings.clips, settings.seconds, octaves, self.problems
            )
            broken = {e.recording for e in excerpts if octaves(e.recording) is None}
            if not broken:
                return excerpts
            usable = [recording for recording in usable if recording not in broken]

    def _octaves_or_none(self, limits: Limits) -> Callable[[Recording], int | None]:
        """Make a function that returns None for an unreadable recording and adds a problem."""

        def octaves(recording: Recording) -> int | None:
            try:
                return self._octaves(recording, limits)
            except InputError as error:
                self.problems.add(str(error), recording.path)
                return None

        return octaves

    def _octaves(self, recording: Recording, limits: Limits) -> int:
        """Octaves by which a recording moves: `transpose`, or for `auto` those into the limits."""
        transpose = self.settings.transpose
        if transpose != "auto":
            return int(transpose)
        return 0 if limits is None else octaves_for(self._pitches(recording), *limits)

    def _pitches(self, recording: Recording) -> list[float]:
        """MIDI pitches of a recording: its known notes, or the pitches tracked at its beginning."""
        if recording.notes is not None:
            return recording.notes[:, 2].tolist()
        if recording.path not in self.registers:
            with audio.AudioReader(recording.path) as file:
                self.registers[recording.path] = heard_pitches(file)
        return self.registers[recording.path]

    def _report_other_registers(
        self, pair: Pair, excerpts: Sequence[Excerpt], octaves: Sequence[int]
    ) -> None:
        elsewhere = sum(
            excerpt.truth is not None and excerpt.truth_octaves != moved
            for excerpt, moved in zip(excerpts, octaves, strict=True)
        )
        if elsewhere:
            name = f"{pair_name(pair)}, {elsewhere} of {len(excerpts)} clips"
            self.problems.add(
                f"{name}: the true performance lies in another register than the output: "
                "no log-mel distance to it",
                name,
            )
