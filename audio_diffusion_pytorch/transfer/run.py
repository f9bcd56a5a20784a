"""Transfer run: models, bridge and options that all jobs of a command share."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from audio_diffusion_pytorch.bridge.bridge import VERSION, Bridge
from audio_diffusion_pytorch.cli import plain_warnings
from audio_diffusion_pytorch.engine.task import Task
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.fitted_schedules import ENDING
from audio_diffusion_pytorch.models.instrument import InstrumentModel, pitch_range
from audio_diffusion_pytorch.models.loading import (
    load_instrument,
    shared_codec,
    shipped_instruments,
)
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.pitch.octaves import Octaves
from audio_diffusion_pytorch.transfer.batch import Report, Tell, TransferBatches
from audio_diffusion_pytorch.transfer.file_transfer import FileOptions, analysis_of, octaves_of
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis
from audio_diffusion_pytorch.utils.devices import choose_device
from audio_diffusion_pytorch.utils.iterables import batches
from audio_diffusion_pytorch.utils.registry import import_plugins
from audio_diffusion_pytorch.utils.threads import set_threads

AUTO = "auto"  # source that lets the classifier choose a model for each recording
BRIDGE_KEYS = (
    *("quality", "num_steps", "solver", "handoff", "batch_size", "precision", "compile"),
    *("melody", "melody_guidance", "vibrato"),
)
_AHEAD = 8  # recordings that are analysed before the first of them is bridged


@dataclass(frozen=True)
class TransferRun(Task):
    """Settings that all jobs of a command share; pickled for worker processes.

    Args:
        source: name or file for `load_instrument`; "auto" chooses a model for each recording.
        target: name or file for `load_instrument`.
        device: name of a torch device; "auto": the GPU if there is one.
        bridge: arguments of `Bridge`.
        codec: arguments of the codec that the models name.
        mid: see `FileOptions`, likewise `transpose` and `listen`.
        transpose: octaves by which recordings move first, or "auto".
        overwrite: repeat finished files.
        report: write pictures and a line of facts for each file.
        listen: analyse the source, for a warning.
        plugins: modules that worker processes import first, see `import_plugins`.
        parts: folder for split recordings; None: every recording stays whole.
    """

    source: str
    target: str
    device: str = "auto"
    bridge: Mapping[str, Any] = field(default_factory=dict)
    codec: Mapping[str, Any] = field(default_factory=dict)
    mid: bool = False
    transpose: Octaves = "auto"
    overwrite: bool = False
    report: bool = False
    listen: bool = True
    plugins: tuple[str, ...] = ()
    parts: Path | None = None

    @classmethod
    def from_arguments(cls, values: Mapping[str, Any], plugins: tuple[str, ...]) -> "TransferRun":
        """Make a run from the checked arguments of `transfer.py`.

        Args:
            values: argument -> value, as in `configs/transfer.yaml`.
            plugins: imported modules.
        """
        return cls(
            source=AUTO if values["source"].lower() == AUTO else values["source"],
            target=values["target"],
            device=values["device"],
            bridge={key: values[key] for key in BRIDGE_KEYS},
            codec={key: value for key, value in values["codec"].items() if value is not None},
            mid=values["channels"] == "mid",
            transpose=values["transpose"],
            overwrite=values["overwrite"],
            report=values["report"],
            listen=values["listen"],
            plugins=plugins,
        )

    def load(self, worker: int = 0, processes: int = 1) -> Bridge:
        """Load the models and make the bridge at its default sigma.

        Args:
            worker: index of this process; workers use the GPUs in turn.
            processes: processes that share the CPU's threads.

        Raises:
            InputError: a model, the codec, the device or a setting cannot be used.
        """
        device = choose_device(self.device, worker)
        # With source=auto the first model plans the run and transfers silent recordings.
        source = load_instrument(shipped_instruments()[0] if self.source == AUTO else self.source)
        target = load_instrument(self.target)
        if self.source == AUTO and source.spec.codec != target.spec.codec:
            raise InputError(
                "source=auto chooses among models with another codec than that of "
                f"{target.spec.name}: name a source"
            )
        codec = shared_codec(source, target, **self.codec)
        if self.codec and codec.name != "encodec":
            raise InputError(
                f"codec.{', codec.'.join(self.codec)} needs models trained on EnCodec; "
                f"{source.spec.name} and {target.spec.name} are not"
            )
        set_threads(processes=processes)
        return Bridge(source, target, codec=codec, device=device, **self.bridge)

    def start(self, worker: int, workers: int) -> Bridge:
        """Load the models in a worker process, see `load`."""
        plain_warnings()
        import_plugins(self.plugins)
        return self.load(worker, workers)

    def versions(self, bridge: Bridge) -> dict[str, str]:
        """Return the versions of package, models and settings; see `Task.versions`."""
        settings = {key: str(value) for key, value in self.settings(bridge).items()}
        return {**super().versions(bridge), **settings}

    def notice(self, bridge: Bridge) -> str | None:
        """Describe an option without effect on this target; None if every option applies."""
        if self.transpose == "auto" and pitch_range(bridge.target.spec) is None:
            return (
                f"the range of {bridge.target.spec.name} is unknown: transpose=auto has no effect"
            )
        return None

    def settings(self, bridge: Bridge, sigma: float | None = None) -> dict[str, Any]:
        """Return the settings that an output depends on besides its input, as JSON values.

        With source=auto, settings that the bridge derives from its source keep their requested
        values, since the source differs between files.

        Args:
            bridge: bridge of the outputs.
            sigma: requested sigma.
        """
        models = {"source": bridge.source, "target": bridge.target}
        digests = {key: f"{model.spec.name} {_digest(model)}" for key, model in models.items()}
        digests["codec"] = f"{bridge.codec.name} {_digest(bridge.codec)}"
        settings: dict[str, Any] = {**digests, **bridge.settings, "version": VERSION}
        if self.source == AUTO:
            requested = {"sigma": sigma, "sigma_min": None, "handoff": self.bridge.get("handoff")}
            settings |= {"source": f"{AUTO} {_shipped_digest()}", **requested}
            melody = self.bridge.get("melody", "auto")
            # Models without a melody input keep their records.
            if melody != "auto" or "melody" in settings:
                settings["melody"] = melody
        settings |= {"mid": self.mid, "transpose": self.transpose}
        # As requested: "auto" may differ between machines that share a folder.
        return {**settings, "precision": self.bridge.get("precision")}

    def do(self, bridge: Bridge, jobs: Iterable[Job], tell: Tell) -> None:
        """Transfer jobs in this process; jobs of one sigma follow one another.

        Args:
            bridge: bridge at its default sigma.
            jobs: inputs and outputs.
            tell: callback for events.
        """
        for sigma, group in groupby(jobs, lambda job: job.sigma):
            here = bridge if sigma is None else bridge.with_sigma(sigma)
            if self.source == AUTO:
                self._do_by_source(here, group, sigma, tell)
            else:
                self._transfer(here, group, tell, self.settings(here, sigma))

    def _do_by_source(
        self, bridge: Bridge, jobs: Iterable[Job], sigma: float | None, tell: Tell
    ) -> None:
        """Choose a source for each job and transfer the jobs of one source together."""
        settings = self.settings(bridge, sigma)
        bridges: dict[str | None, Bridge] = {None: bridge}
        for part in batches(jobs, _AHEAD):
            for source, analyses in self._by_source(part).items():
                if source is not None and source not in bridges:
                    bridges[source] = self.with_source(bridge, source, sigma)
                self._transfer(bridges[source], list(analyses), tell, settings, analyses)

    def _transfer(
        self,
        bridge: Bridge,
        jobs: Iterable[Job],
        tell: Tell,
        settings: Mapping[str, Any],
        analyses: Mapping[Job, Analysis | None] | None = None,
    ) -> None:
        report: Report | None = None
        if self.report:
            from audio_diffusion_pytorch.transfer import report as pictures  # slow: matplotlib

            report = pictures.report
        options = FileOptions(self.mid, self.transpose, self.listen)
        given = settings, options, self.overwrite, report, analyses, self.parts
        TransferBatches(bridge, jobs, tell, *given).run()

    def examine(self, bridge: Bridge, job: Job) -> dict[str, Any]:
        """Analyse a job's input and return the facts of a report, for a dry run.

        Args:
            bridge: bridge of the run.
            job: the job.

        Raises:
            InputError: the input cannot be read.
        """
        analysis = analysis_of(job, self.mid)
        chosen = analysis.source() if self.source == AUTO else None
        octaves = octaves_of(analysis, self.transpose, bridge)
        warning = None
        if self.listen:
            source = None if self.source == AUTO else bridge.source.spec.name
            warning = analysis.warning(source, bridge.target.spec, octaves)
        facts: dict[str, Any] = {"octaves": octaves, "warning": warning, **analysis.facts()}
        return facts if chosen is None else {**facts, "source": chosen, "chosen": True}

    def with_source(self, bridge: Bridge, source: str, sigma: float | None) -> Bridge:
        """Return a bridge from another source to the same target.

        Args:
            bridge: bridge of the run.
            source: name of the source model.
            sigma: requested sigma.
        """
        options = {**self.bridge, "sigma": sigma, "codec": bridge.codec, "device": bridge.device}
        return Bridge(load_instrument(source), bridge.target, **options)

    def _by_source(self, jobs: Sequence[Job]) -> dict[str | None, dict[Job, Analysis | None]]:
        """Group jobs, with their analyses, by source; None for silent or unreadable inputs."""
        found: dict[str | None, dict[Job, Analysis | None]] = {}
        for job in jobs:
            try:
                analysis = job.split.analysis if job.split else analysis_of(job, self.mid)
            except Exception:  # the transfer of the file reports the error
                analysis = None
            source = None if analysis is None else analysis.source()
            found.setdefault(source, {})[job] = analysis
        return found


def _digest(module: torch.nn.Module) -> str:
    """Hash the start of each tensor of a model: training changes every tensor."""
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(module, InstrumentModel):
        digest.update(repr(module.spec).encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.flatten()[:1024].float().cpu().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _shipped_digest() -> str:
    """Hash the classifier, and the models from which source=auto chooses with their schedules."""
    digest = hashlib.blake2b(digest_size=8)
    folder = ASSETS / "instruments"
    models = sorted([*folder.rglob("*.safetensors"), *folder.glob(f"*{ENDING}")])
    for path in (ASSETS / "classifier.safetensors", *models):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
