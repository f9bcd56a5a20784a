"""Folders of training runs."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def losses(run: Path) -> dict[int, list[float]]:
    """Training losses by step, of all the event files in a run folder."""
    found: dict[int, list[float]] = {}
    for file in sorted((run / "tensorboard").glob("events*")):
        events = EventAccumulator(str(file)).Reload()
        for event in events.Scalars("train_loss"):
            found.setdefault(event.step, []).append(event.value)
    return found


# The commands as they are typed.
