"""Store finished sounds and scores in the folder `.evaluate`, so that an evaluation resumes."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.sound_names import publish
from audio_diffusion_pytorch.evaluation.tasks import ScoringTask
from audio_diffusion_pytorch.utils.files import atomic_write

Scores = dict[str, Any]


class ResultStore:
    """Read and write sounds and scores by the keys of their tasks.

    Args:
        folder: folder of the evaluation; the store is its subfolder `.evaluate`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.kept = folder / ".evaluate"

    def adopt_earlier_layout(self) -> None:
        """Move sounds and scores of an earlier version, which kept them beside the results."""
        if not (self.folder / "scores").is_dir() or self.kept.exists():
            return
        self.kept.mkdir()
        for name in ("scores", "sounds"):
            with suppress(OSError):
                (self.folder / name).rename(self.kept / name)

    def load_scores(self, task: ScoringTask) -> Scores | None:
        """Load the scores of a task; None if they are missing or damaged."""
        return _load(self._scores(task))

    def save_scores(self, task: ScoringTask, scores: Scores) -> None:
        """Save the scores of a task.

        Raises:
            InputError: the file cannot be written.
        """
        _save(self._scores(task), scores)

    def load_output(self, task: ScoringTask) -> tuple[Tensor, Scores] | None:
        """Load an output [T] and its facts; None if either is missing or damaged."""
        facts = _load(self._sound(task).with_suffix(".json"))
        wav = self.load_sound(task)
        return None if facts is None or wav is None else (wav, facts)

    def load_sound(self, task: ScoringTask) -> Tensor | None:
        """Load an output [T]; None if it is missing or damaged."""
        try:
            return audio.read(self._sound(task))[0][0]
        except InputError:
            return None

    def save_output(
        self, task: ScoringTask, wav: Tensor, sample_rate: int, facts: Scores
    ) -> Tensor:
        """Save an output and its facts; an output above full scale is scaled down.

        Args:
            task: task of the output.
            wav: output [1, T].
            sample_rate: rate of `wav` in Hz.
            facts: facts of the output.

        Returns:
            The output [T] as read back from the file, so that a later run scores the same samples.

        Raises:
            InputError: a file cannot be written.
        """
        path = self._sound(task)
        audio.write(path, wav / max(1.0, float(wav.abs().max())), sample_rate)
        _save(path.with_suffix(".json"), facts)
        return audio.read(path)[0][0]

    def publish(self, task: ScoringTask) -> None:
        """Give a stored output a second, readable name.

        Raises:
            InputError: the file cannot be written.
        """
        if task.system.stored:
            publish(self._sound(task), self.folder / task.sound_name)

    def _scores(self, task: ScoringTask) -> Path:
        return self.kept / "scores" / f"{task.score_key}.json"

    def _sound(self, task: ScoringTask) -> Path:
        return self.kept / "sounds" / f"{task.key}.flac"


def _load(path: Path) -> Scores | None:
    """Load scores, null as NaN; None for a missing or damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    return {
        key: math.nan if value is None and key != "taken_for" else value
        for key, value in content.items()
    }


def _save(path: Path, scores: Scores) -> None:
    content = {key: finite_or_none(value) for key, value in scores.items()}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def finite_or_none(value: Any) -> Any:
    """Return the value, or None for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
