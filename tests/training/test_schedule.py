"""The validation schedule: by the length of a run, early at first, equal after a resume."""

import math

import pytest
import pytorch_lightning as pl
from conftest import TINY_SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_monitor import fit

from audio_diffusion_pytorch.training.schedule import (
    ScheduledValidation,
    first_validation,
    validation_interval,
)


@pytest.mark.parametrize(
    ("batches", "interval", "first"),
    [
        (1, 1, 1),
        (20, 4, 4),
        (100, 20, 10),
        (200, 40, 10),
        (500, 100, 10),
        (2000, 400, 40),
        (10_000, 1000, 100),
        (math.inf, 1000, 100),
    ],
)
def test_short_runs_validate_several_times_and_long_ones_every_thousand_batches(
    batches, interval, first
):
    assert (validation_interval(batches), first_validation(interval)) == (interval, first)


class Validations(pl.Callback):
    def __init__(self):
        self.after: list[int] = []

    def on_validation_epoch_end(self, trainer, *args) -> None:
        self.after.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)


@pytest.mark.filterwarnings("ignore")
def test_the_first_validation_comes_before_the_interval(codec):
    """Four batches an epoch; the placeholder that the trainer was given counts for nothing."""
    schedule, seen = ScheduledValidation(6), Validations()
    schedule.first = 2
    fit(
        codec,
        schedule,
        seen,
        steps=13,
        data=None,
        val_check_interval=1,
        check_val_every_n_epoch=None,
    )
    assert seen.after == []  # `fit` switches validation off
    settings = {"limit_val_batches": 1, "val_check_interval": 1, "check_val_every_n_epoch": None}
    fit(codec, schedule, seen, steps=13, **settings)
    assert seen.after == [2, 6, 12]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [4, 8, 12, 16, 20]),
        pytest.param(["log_every_n_steps=15"], [15], marks=pytest.mark.long),
        (["trainer.val_check_interval=7"], [7, 14]),
    ],
)
def test_charts_of_a_short_run(arguments, expected, command, recordings, tmp_path):
    """... unless the user says how often."""
    settings = (
        "exp=flute_small",
        *TINY_SMALL,
        f"dataset_path={recordings}",
        "datamodule.batch_size=2",
        "exp_tag=a",
    )
    result = command(
        "train.py", *settings, "total_steps=20", "datamodule.max_valid_items=2", *arguments
    )
    assert result.code == 0, result.err
    events = EventAccumulator(str(next((tmp_path / "logs/a/tensorboard").glob("events*")))).Reload()
    assert [event.step for event in events.Scalars("valid_loss")] == [step - 1 for step in expected]
    assert [event.step for event in events.Scalars("train_loss")] == list(range(20))
