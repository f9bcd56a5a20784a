"""Open recordings, transfer them and compare amounts of change, independent of the page's looks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_diffusion_pytorch.app.catalog import Catalog
from audio_diffusion_pytorch.app.live_play import LiveCache, LivePlay, live_settings
from audio_diffusion_pytorch.app.pictures import SECONDS, draw_spectrogram, draw_trade_off
from audio_diffusion_pytorch.app.recipes import Request
from audio_diffusion_pytorch.app.settings import AppSettings
from audio_diffusion_pytorch.app.storage import Storage, Visitor, take_upload
from audio_diffusion_pytorch.app.transfers import Recording, Result, Transfers, open_recording
from audio_diffusion_pytorch.app.worker import Ticket, Work, Workers
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.paths import CLIPS

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = ("flute", "violin", "trumpet", "bassoon", "cello")
SIGMAS = (1.0, 2.0, 4.0, 6.0, 9.0)  # of a comparison
MOST_RESULTS = 50  # in the history of a visitor
MOST_TARGETS = 13


def example(instrument: str) -> Path:
    """Return the shipped clip of an instrument."""
    return min(
        path for path in CLIPS.glob(f"bwv307*_{instrument}.*") if path.suffix in (".flac", ".ogg")
    )


class Service:
    """Recordings, transfers and files of all visitors.

    Args:
        settings: settings of the page.
        storage: folders of the visitors.
    """

    def __init__(self, settings: AppSettings, storage: Storage):
        self.settings = settings
        self.storage = storage
        self.catalog = Catalog(settings.models)
        self.workers = Workers(settings.devices, settings.max_waiting)
        self.transfers = Transfers()
        self._live = LiveCache()

    def warm_up(self) -> None:
        """Load torch, one pair of models and the analysis before a visitor needs them."""

        def work(_: Ticket, device: str) -> None:
            self.transfers.warm_up(device)
            folder = self.storage.visitor("warm-up").new_folder()
            path = take_upload(example(EXAMPLES[0]), folder)
            recording = open_recording(path, "warm-up", self.settings.max_minutes)
            draw_spectrogram(recording.path, folder / "picture.png")
            self.storage.forget("warm-up")

        self.workers.submit(work)

    def close(self) -> None:
        """End all work and delete all files."""
        self.workers.close()
        self.storage.close()

    def open(self, session: str, path: Path, name: str | None = None) -> Recording:
        """Open a recording in place of the visitor's previous one, whose upload is deleted.

        Args:
            session: the visitor.
            path: file that Gradio wrote, or a shipped clip.
            name: name for display; None: the name of the file.

        Raises:
            InputError: the recording cannot be used.
        """
        visitor = self.storage.visitor(session)
        self.drop(visitor)
        folder = visitor.new_folder()
        visitor.opening += 1
        try:
            limit = self.settings.max_megabytes
            if path.stat().st_size > limit * 1_000_000:
                raise InputError(
                    f"{path.name} is larger than {limit:g} MB, the limit of this page: cut it, or "
                    "use the command line, which has no limit"
                )
            kept = take_upload(path, folder)
            recording = open_recording(kept, name or path.name, self.settings.max_minutes)
            self.drop(visitor)  # another one may have been opened meanwhile
            visitor.recording = recording
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            visitor.opening -= 1
        return recording

    def drop(self, visitor: Visitor) -> None:
        """Cancel the visitor's work, and delete the upload."""
        visitor.cancel()
        if visitor.recording is not None:
            shutil.rmtree(visitor.recording.folder, ignore_errors=True)
            visitor.recording = None

    def transfer(self, session: str, requests: Sequence[Request]) -> Ticket:
        """Queue transfers of the visitor's recording.

        Args:
            session: the visitor.
            requests: one for each target.

        Raises:
            InputError: there is no recording or no target, a model is not offered, or too many
                visitors wait.
        """
        visitor = self.storage.visitor(session)
        recording = self._recording(visitor)
        if not requests:
            raise InputError("choose an instrument that shall play your recording")
        if len(requests) > MOST_TARGETS:
            raise InputError(f"choose at most {MOST_TARGETS} instruments at once")
        for request in requests:
            self.catalog.check(request.source)
            self.catalog.check(request.target)

        def work(ticket: Ticket, device: str) -> None:
            for request in requests:
                folder = visitor.new_folder()
                result = self.transfers.run(ticket, device, recording, request, folder)
                self._add(visitor, ticket, result)
            self._draw(ticket, recording)

        return self._submit(visitor, work)

    def compare(self, session: str, request: Request, picture_of: str) -> Ticket:
        """Queue transfers of the visitor's recording at several amounts of change, with scores.

        Args:
            session: the visitor.
            request: the transfer; its sigma is ignored.
            picture_of: name of the target in the plot.

        Raises:
            InputError: as for `transfer`.
        """
        visitor = self.storage.visitor(session)
        recording = self._recording(visitor)
        for model in (request.source, request.target):
            self.catalog.check(model)

        def work(ticket: Ticket, device: str) -> None:
            for sigma in SIGMAS:
                one = replace(request, sigma=sigma)
                folder = visitor.new_folder()
                result = self.transfers.run(ticket, device, recording, one, folder, several=True)
                result.scores = scores(result)
                self._add(visitor, ticket, result)
            points = [{"sigma": r.request.sigma, **r.scores} for r in ticket.results]
            folder = ticket.results[-1].files["wav"].parent
            ticket.picture = draw_trade_off(points, picture_of, folder / "trade_off.png")
            self._draw(ticket, recording)

        return self._submit(visitor, work)

    def play_live(self, session: str, message: Any) -> tuple[LivePlay, Ticket]:
        """Queue a live session of the visitor.

        Args:
            session: the visitor.
            message: settings as the browser sends them, see `live_settings`; not trusted.

        Returns:
            The session, which exchanges sound once its ticket runs, and its ticket.

        Raises:
            InputError: a setting is wrong, a model is not offered, the visitor's last work still
                runs, or too many visitors wait.
        """
        visitor = self.storage.visitor(session)
        settings = live_settings(message)
        for model in (settings.source, settings.target):
            self.catalog.check(model)
        minutes = self.settings.live_minutes

        def check_turn(seconds: float) -> None:
            if seconds > 60 * minutes and self.workers.waiting:
                raise InputError(
                    f"another visitor waits, and you have played for {minutes:g} minutes: press "
                    "Start to queue again"
                )

        play = LivePlay(settings, self._live, check_turn)
        return play, self._submit(visitor, play.work, is_live=True)

    def _recording(self, visitor: Visitor) -> Recording:
        if visitor.recording is None:
            raise InputError("choose a recording first: drop a file, record, or take an example")
        return visitor.recording

    def _submit(self, visitor: Visitor, work: Work, is_live: bool = False) -> Ticket:
        if visitor.ticket is not None and visitor.ticket.is_open:
            if visitor.ticket.is_live:
                raise InputError("you are playing live: press Stop in the tab Live first")
            raise InputError("your last transfer is still running: cancel it, or wait for its end")

        def work_and_leave(ticket: Ticket, device: str) -> None:
            try:
                work(ticket, device)
            finally:
                if visitor.is_gone:  # cancelled work may create its folder once more
                    shutil.rmtree(visitor.folder, ignore_errors=True)

        visitor.ticket = self.workers.submit(work_and_leave, is_live)
        return visitor.ticket

    def _add(self, visitor: Visitor, ticket: Ticket, result: Result) -> None:
        ticket.results.append(result)
        visitor.history.append(result)
        while len(visitor.history) > MOST_RESULTS:
            old = visitor.history.pop(0)
            shutil.rmtree(old.files["wav"].parent, ignore_errors=True)

    def _draw(self, ticket: Ticket, recording: Recording) -> None:
        """Draw the pictures, after all sounds: those can be played meanwhile."""
        ticket.start_stage("Drawing pictures", len(ticket.results) + 1)
        if recording.picture is None:
            picture = recording.folder / "input.png"
            recording.picture = draw_spectrogram(recording.path, picture)
        ticket.advance()
        for result in ticket.results:
            sound = result.files["wav"]
            result.picture = draw_spectrogram(sound, sound.with_name("picture.png"))
            ticket.advance()


def scores(result: Result) -> dict[str, float]:
    """Score an output: share of the notes that stay, and probability of the target instrument.

    The scores cover the first two minutes.

    Args:
        result: finished transfer.

    Returns:
        `melody` and `target`, from 0 to 1. `target` is 0 for instruments that the classifier does
        not have.
    """
    import math

    from audio_diffusion_pytorch.metrics.transcription import pitch_accuracy
    from audio_diffusion_pytorch.pitch.notes import f0_track
    from audio_diffusion_pytorch.pitch.tracker import note_posteriors
    from audio_diffusion_pytorch.transfer.listening import instrument_probabilities

    before, rate = _start(result.recording.path)
    after, _ = _start(result.files["wav"])
    tracks = [f0_track(note_posteriors(wav, rate)[0]) for wav in (before, after)]
    _, chroma = pitch_accuracy(*tracks)
    target = str(result.facts["target"]).rpartition(" ")[0]
    probability = instrument_probabilities(after, rate).get(target, 0.0)
    return {"melody": 0.0 if math.isnan(chroma) else chroma, "target": probability}


def _start(path: Path) -> tuple[Tensor, int]:
    """Read the first two minutes of a file."""
    from audio_diffusion_pytorch.audio import AudioReader

    with AudioReader(path) as file:
        rate = file.info.sample_rate
        return file.read_mono(0, min(file.info.frames, SECONDS * rate)), rate
