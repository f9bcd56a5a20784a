"""Transfers of the page: open a recording, bridge it with progress, and write its files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.app.recipes import FORMATS, Request, output_name
from audio_diffusion_pytorch.app.storage import safe_stem, shown_name
from audio_diffusion_pytorch.app.worker import Ticket
from audio_diffusion_pytorch.errors import InputError

if TYPE_CHECKING:
    from audio_diffusion_pytorch.audio import AudioInfo
    from audio_diffusion_pytorch.bridge.bridge import Bridge
    from audio_diffusion_pytorch.transfer.jobs import Job
    from audio_diffusion_pytorch.transfer.listening import Analysis
    from audio_diffusion_pytorch.transfer.run import TransferRun

_BRIDGES = 8  # bridges that stay in memory
_PLAYED_RATE = 48000  # Hz at most in the browser


@dataclass
class Recording:
    """A recording of a visitor.

    Args:
        path: the file, under a name of the server.
        name: name for display; not trusted.
        info: properties of the file.
        analysis: analysis of the first minute.
        folder: folder of the file, of its player's file and of its picture.
    """

    path: Path
    name: str
    info: AudioInfo
    analysis: Analysis
    folder: Path
    player: Path | None = None
    picture: Path | None = None

    @property
    def source(self) -> str | None:
        """Model of the most probable instrument; None for silent or short recordings."""
        return self.analysis.source()

    @property
    def probability(self) -> float:
        """Probability of the most probable instrument."""
        return next(iter(self.analysis.instruments.values()), 0.0)


@dataclass
class Result:
    """A finished transfer.

    Args:
        request: the transfer, with its chosen source.
        stem: name of the files without the ending.
        files: ending without dot -> file.
        missing: ending without dot -> reason for which the format cannot hold the sound.
        facts: facts of the transfer, as in a report of `transfer.py`.
        warning: sentence about an unsuitable source; None without a reason.
        recording: the input.
        picture: spectrogram with pitch track, once drawn.
        scores: scores of a sweep.
    """

    request: Request
    stem: str
    files: dict[str, Path]
    missing: dict[str, str]
    facts: dict[str, Any]
    warning: str | None
    recording: Recording
    picture: Path | None = None
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def player(self) -> Path:
        """File for the browser's player."""
        return self.files.get("flac", self.files["wav"])


def open_recording(path: Path, name: str, max_minutes: float) -> Recording:
    """Check and analyse a recording.

    Args:
        path: file in a folder of its own.
        name: name as the visitor gave it.
        max_minutes: longest recording.

    Raises:
        InputError: the file cannot be used; the message names the recording as the visitor does.
    """
    from audio_diffusion_pytorch.audio import AudioReader
    from audio_diffusion_pytorch.transfer.listening import analyse

    name = shown_name(name)
    with naming(path, name), AudioReader(path) as file:
        if file.info.seconds > 60 * max_minutes:
            raise InputError(
                f"{name} lasts {file.info.seconds / 60:.1f} minutes, and this page accepts "
                f"{max_minutes:g}: cut it, or use the command line, which has no limit"
            )
        analysis = analyse(file)
        recording = Recording(path, name, file.info, analysis, path.parent)
        recording.player = _write_player(file, path.parent / "input.flac")
    return recording


def _write_player(file: Any, path: Path) -> Path:
    """Write a copy that every browser plays: FLAC with one or two channels, up to 48 kHz."""
    from audio_diffusion_pytorch.audio import Resampler, writing

    rate = min(file.info.sample_rate, _PLAYED_RATE)
    is_stereo = file.info.channels == 2
    channels = 2 if is_stereo else 1
    blocks = file.blocks() if is_stereo else file.mono_blocks()
    convert = Resampler(file.info.sample_rate, rate, channels)
    with writing(path, rate, channels, "PCM_16") as write_block:
        for block in blocks:
            write_block(convert(block.clamp(-1, 1), False))
        write_block(convert(block[:channels, :0], True))
    return path


@contextmanager
def naming(path: Path, name: str, output: Path | None = None) -> Iterator[None]:
    """Name files in errors and warnings as a visitor names them.

    Args:
        path: file of the server.
        name: name of the recording.
        output: output of the server, which keeps only its name.
    """
    try:
        yield
    except InputError as error:
        raise InputError(renamed(str(error), path, name, output)) from error


def renamed(text: str, path: Path, name: str, output: Path | None = None) -> str:
    """Replace the server's paths in a sentence, see `naming`."""
    if output is not None:
        text = text.replace(str(output), output.name)
    return text.replace(str(path), name)


class Transfers:
    """Load bridges and run transfers, for one device at a time in each thread."""

    def __init__(self) -> None:
        self._bridges: OrderedDict[tuple, tuple[TransferRun, Bridge]] = OrderedDict()
        self._lock = threading.Lock()

    def warm_up(self, device: str) -> None:
        """Load one pair of shipped models, so that the first transfer need not import torch."""
        from audio_diffusion_pytorch.models.loading import shipped_instruments

        names = shipped_instruments()
        if len(names) > 1:
            self._bridge(Request(names[0], names[-1]), device)

    def run(
        self,
        ticket: Ticket,
        device: str,
        recording: Recording,
        request: Request,
        folder: Path,
        several: bool = False,
    ) -> Result:
        """Transfer a recording and write its files.

        Args:
            ticket: receives the progress; may cancel.
            device: name of the device.
            recording: the recording.
            request: the transfer.
            folder: folder of the outputs.
            several: whether outputs differ in sigma.

        Raises:
            InputError: a setting is wrong, or the transfer failed; as in `transfer.py`.
            Cancelled: the ticket was cancelled.
        """
        from audio_diffusion_pytorch.transfer.file_transfer import octaves_of

        if request.source == "auto":
            request = replace(request, source=recording.source or _any_source())
        stem = output_name(safe_stem(recording.name), request, several)
        output = folder / f"{stem}.wav"
        with naming(recording.path, recording.name, output):
            job, missing = self._job(recording, request, output)
            run, bridge = self._bridge(request, device)
            octaves = octaves_of(recording.analysis, request.octaves, bridge)
            # The analysis of the upload replaces that of the transfer.
            run = replace(run, transpose=octaves, listen=False)
            facts = self._transfer(ticket, run, bridge, job, recording.info)
        warning = recording.analysis.warning(bridge.source.spec.name, bridge.target.spec, octaves)
        files = {path.suffix[1:]: path for path in (output, *job.copies)}
        facts = {**facts, **recording.analysis.facts()}
        return Result(request, stem, files, missing, facts, warning, recording)

    def _job(
        self, recording: Recording, request: Request, output: Path
    ) -> tuple[Job, dict[str, str]]:
        """Resolve a job as the command does, with a copy in every format that can hold it."""
        from audio_diffusion_pytorch import audio
        from audio_diffusion_pytorch.transfer.arguments import check_arguments
        from audio_diffusion_pytorch.transfer.resolve import resolve_jobs

        values = request.arguments(str(recording.path), str(output))
        check_arguments(values)
        (job,) = resolve_jobs(values["input"], values["output"], values["sigma"]).jobs
        missing = {}
        copies = []
        for ending in FORMATS[1:]:
            try:
                audio.check_format(
                    f".{ending}", recording.info.sample_rate, recording.info.channels
                )
                copies.append(output.with_suffix(f".{ending}"))
            except InputError as error:
                missing[ending] = str(error)
        # `with_suffix` cuts a name with a dot, as in `take 1.2_as_violin`.
        copies = [path.with_name(f"{output.stem}{path.suffix}") for path in copies]
        return replace(job, output=output, copies=tuple(copies)), missing

    def _transfer(
        self, ticket: Ticket, run: TransferRun, bridge: Bridge, job: Job, info: AudioInfo
    ) -> dict[str, Any]:
        """Run one job, and return its facts."""
        outcome: dict[str, Any] = {}

        def tell(event: str, _: Job, value: Any) -> None:
            ticket.check()
            outcome[event] = value

        if job.sigma is not None:
            bridge = bridge.with_sigma(job.sigma)
        windows = bridge.num_windows(info.frames, info.sample_rate) * info.channels
        ticket.start_stage(f"Playing it on {bridge.target.spec.name}")
        ticket.total = windows * bridge.num_evaluations
        with self._at_work(bridge, ticket):
            run.do(bridge, [replace(job, sigma=None)], tell)
        if "failed" in outcome:
            raise InputError(outcome["failed"])
        return outcome["done"]

    @contextmanager
    def _at_work(self, bridge: Bridge, ticket: Ticket) -> Iterator[None]:
        """Count the network calls of a bridge for a ticket; a cancelled one ends the next call."""

        def count(_: Any, inputs: Sequence[Any]) -> None:
            ticket.advance(len(inputs[0]))

        hooks = [denoiser.register_forward_pre_hook(count) for denoiser in bridge.networks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _bridge(self, request: Request, device: str) -> tuple[TransferRun, Bridge]:
        """Return the run and the bridge of a request; files are loaded anew after a change."""
        from audio_diffusion_pytorch.transfer.run import TransferRun

        models = tuple((name, files_state(name)) for name in (request.source, request.target))
        key = (*models, request.quality, device)
        with self._lock:
            if key in self._bridges:
                self._bridges.move_to_end(key)
                return self._bridges[key]
        values = {**request.arguments("", ""), "device": device}
        run = TransferRun.from_arguments(values, ())
        loaded = run, run.load()
        with self._lock:
            self._bridges[key] = loaded
            while len(self._bridges) > _BRIDGES:
                self._bridges.popitem(last=False)
        return loaded


def _any_source() -> str:
    """Source of a recording without sound, as for source=auto."""
    from audio_diffusion_pytorch.models.loading import shipped_instruments

    return shipped_instruments()[0]


def files_state(model: str) -> tuple[int, ...]:
    """Times of a model's files, which change when training saves newer weights."""
    path = Path(model)
    if path.is_dir():
        files = [*path.glob("*.safetensors"), *path.glob("checkpoints/*.ckpt")]
        return tuple(sorted(file.stat().st_mtime_ns for file in files))
    return (path.stat().st_mtime_ns,) if path.is_file() else ()
