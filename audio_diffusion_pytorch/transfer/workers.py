"""Jobs done by this process or by several, and what they tell."""

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from queue import Empty
from typing import Any

import torch

from audio_diffusion_pytorch.bridge.bridge import VERSION, Bridge
from audio_diffusion_pytorch.cli import plain_warnings
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.models.instrument import InstrumentModel
from audio_diffusion_pytorch.models.loading import (
    load_instrument,
    shared_codec,
    shipped_instruments,
)
from audio_diffusion_pytorch.paths import ASSETS
from audio_diffusion_pytorch.pitch.octaves import Octaves
from audio_diffusion_pytorch.transfer.batch import Tell, TransferBatches
from audio_diffusion_pytorch.transfer.file_transfer import FileOptions, analysis_of, octaves_of
from audio_diffusion_pytorch.transfer.jobs import Job
from audio_diffusion_pytorch.transfer.listening import Analysis
from audio_diffusion_pytorch.utils.devices import choose_device
from audio_diffusion_pytorch.utils.iterables import batches
from audio_diffusion_pytorch.utils.registry import import_plugins
from audio_diffusion_pytorch.utils.threads import ThreadGuard, set_threads

AUTO = "auto"  # the source that the classifier chooses for each recording
_AHEAD = 8  # recordings that are analysed before the first of them is bridged


@dataclass(frozen=True)
class TransferRun:
    """What every job of a command has in common; goes to worker processes.

    Args:
        source, target: what `load_instrument` takes; the source may be "auto", which chooses one for each recording.
        device: name of torch's; `auto`: the GPU where there is one.
        bridge: arguments of `Bridge`.
        codec: arguments of the codec that the models name.
        mid, transpose, listen: see `recordings.Recording`.
        overwrite: make also what is done already.
        report: write pictures and a line of facts for each file.
        plugins: modules that worker processes import first, see `import_plugins`.
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

    def load(self, worker: int = 0, processes: int = 1) -> Bridge:
        """The bridge at its default sigma; GPUs are dealt out to workers in turn, and the processors' threads shared.

        Raises:
            InputError: a model, the codec, the device or a setting cannot be used.
        """
        device = _device(self.device, worker)
        name = (
            shipped_instruments()[0] if self.source == AUTO else self.source
        )  # for silence, and to plan with
        source, target = load_instrument(name), load_instrument(self.target)
        if self.source == AUTO and source.spec.codec != target.spec.codec:
            raise InputError(
                f"source=auto chooses among models of another codec than {target.spec.name}'s: name one"
            )
        codec = shared_codec(source, target, **self.codec)
        if self.codec and codec.name != "encodec":
            raise InputError(
                f"codec.{', codec.'.join(self.codec)}: these are for models trained on EnCodec; "
                f"{source.spec.name} and {target.spec.name} are not"
            )
        set_threads(processes=processes)
        bridge = Bridge(source, target, codec=codec, device=device, **self.bridge)
        if device.type == "cpu":
            ThreadGuard().watch(
                bridge.source.denoiser, bridge.target.denoiser, *bridge.codec.children()
            )
        return bridge

    def settings(self, bridge: Bridge, sigma: float | None = None) -> dict[str, Any]:
        """What an output depends on besides its input; as it can be written as JSON.

        Args:
            sigma: as it was asked for. With source=auto, the settings of a bridge that follow from its source are as
                they were asked for, too.
        """
        precision = self.bridge.get(
            "precision"
        )  # as given: machines that share a folder may choose differently
        models = {"source": bridge.source, "target": bridge.target}
        digests = {key: f"{model.spec.name} {_digest(model)}" for key, model in models.items()}
        digests["codec"] = f"{bridge.codec.name} {_digest(bridge.codec)}"
        settings = {**digests, **bridge.settings, "version": VERSION}
        if self.source == AUTO:
            asked = {"sigma": sigma, "sigma_min": None, "handoff": self.bridge.get("handoff")}
            settings |= {"source": f"{AUTO} {_shipped_digest()}", **asked}
        return {**settings, "mid": self.mid, "transpose": self.transpose, "precision": precision}

    def do(self, bridge: Bridge, jobs: Iterable[Job], tell: Tell) -> None:
        """Make the jobs in this process."""
        report = None
        if self.report:
            from audio_diffusion_pytorch.transfer.report import report
        options = FileOptions(self.mid, self.transpose, self.listen)
        shared = options, self.overwrite, report
        for sigma, group in groupby(jobs, lambda job: job.sigma):
            here = bridge if sigma is None else bridge.with_sigma(sigma)
            settings = self.settings(here, sigma)
            if self.source != AUTO:
                TransferBatches(here, group, tell, settings, *shared).run()
                continue
            bridges: dict[str | None, Bridge] = {None: here}
            for part in batches(group, _AHEAD):
                for source, analyses in self._by_source(part).items():
                    if source not in bridges:
                        bridges[source] = self.with_source(here, source, sigma)
                    chosen = bridges[source]
                    jobs_of = list(analyses)
                    TransferBatches(chosen, jobs_of, tell, settings, *shared, analyses).run()

    def examine(self, bridge: Bridge, job: Job) -> dict[str, Any]:
        """What the analysis of a job's input says, as facts of a report.

        Raises:
            InputError: it cannot be read.
        """
        analysis = analysis_of(job, self.mid)
        chosen = analysis.source() if self.source == AUTO else None
        warning = (
            analysis.warning(None if self.source == AUTO else bridge.source.spec.name)
            if self.listen
            else None
        )
        facts = {
            "octaves": octaves_of(analysis, self.transpose, bridge),
            "warning": warning,
            **analysis.facts(),
        }
        return facts if chosen is None else {**facts, "source": chosen, "chosen": True}

    def with_source(self, bridge: Bridge, source: str, sigma: float | None) -> Bridge:
        """A bridge from another source, `source`, to the same target."""
        options = {**self.bridge, "sigma": sigma, "codec": bridge.codec, "device": bridge.device}
        return Bridge(load_instrument(source), bridge.target, **options)

    def _by_source(self, jobs: Sequence[Job]) -> dict[str | None, dict[Job, Analysis | None]]:
        """Source -> the jobs that it suits, with their analyses; None for silence and what cannot be read."""
        found: dict[str | None, dict[Job, Analysis | None]] = {}
        for job in jobs:
            try:
                analysis = analysis_of(job, self.mid)
            except Exception:  # told when its turn comes
                analysis = None
            source = None if analysis is None else analysis.source()
            found.setdefault(source, {})[job] = analysis
        return found

    def do_in_processes(self, workers: int, jobs: Sequence[Job], tell: Tell) -> None:
        """Make the jobs in several processes; each takes the next job when it has room for it.

        Raises:
            InputError: no process can be started, or one ended before its jobs did.
        """
        context = multiprocessing.get_context("spawn")
        try:
            taken, events = context.Value("l", 0), context.Queue()
        except OSError as error:
            raise InputError(
                f"several workers need shared memory, and /dev/shm cannot be used ({error.strerror}): use workers=1"
            ) from error
        with (
            suppress(OSError),
            jobs[0].claimed(),
        ):  # a folder without locks is told of here, once for all workers
            pass
        processes = [
            context.Process(
                target=_work, args=(self, index, workers, jobs, taken, events), daemon=True
            )
            for index in range(workers)
        ]
        for process in processes:
            process.start()
        try:
            while any(process.is_alive() for process in processes) or not events.empty():
                try:
                    what, index, value = events.get(timeout=0.5)
                except Empty:
                    continue
                tell(what, jobs[index], value)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
        codes = [process.exitcode for process in processes if process.exitcode]
        if codes:
            killed = "; where memory ran out, use fewer" if -9 in codes else ": see above"
            raise InputError(
                f"{len(codes)} of {workers} workers ended early (exit status {codes[0]}){killed}"
            )


def _work(run: TransferRun, index: int, workers: int, jobs: Sequence[Job], taken, events) -> None:
    """A worker process."""

    def stop(*_) -> None:
        """Leave by the way of `finally`, which cleans up; what is not told yet may have no reader any more."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        events.cancel_join_thread()
        sys.exit(128 + signal.SIGTERM)

    def follow() -> None:
        """The command was killed: stop also in the middle of a job."""
        multiprocessing.parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)

    plain_warnings()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the command ends its workers
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=follow, daemon=True).start()
    import_plugins(run.plugins)
    positions = {job: position for position, job in enumerate(jobs)}

    def next_jobs() -> Iterator[Job]:
        while multiprocessing.parent_process().is_alive():
            with taken.get_lock():
                position, taken.value = taken.value, taken.value + 1
            if position >= len(jobs):
                return
            yield jobs[position]

    run.do(
        run.load(index, workers),
        next_jobs(),
        lambda what, job, value: events.put((what, positions[job], value)),
    )


def _device(name: str, worker: int) -> torch.device:
    if name in ("auto", "cuda") and torch.cuda.device_count() > 1:
        name = f"cuda:{worker % torch.cuda.device_count()}"
    return choose_device(name)


def _digest(module: torch.nn.Module) -> str:
    """Of a model's weights, some of each tensor: training goes on in all of them."""
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(module, InstrumentModel):
        digest.update(repr(module.spec).encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.flatten()[:1024].float().cpu().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _shipped_digest() -> str:
    """Of the classifier and the models that it chooses from."""
    digest = hashlib.blake2b(digest_size=8)
    for path in (
        ASSETS / "classifier.safetensors",
        *sorted((ASSETS / "instruments").glob("*.safetensors")),
    ):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
