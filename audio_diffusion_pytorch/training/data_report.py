"""Describe the data of a run: files, rates, defective and silent recordings, and the split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.data.crops import WHOLE
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.training.timing import duration

_LEAST_PROBES = 20
_MOST_PROBES = 200
_PROBES_PER_FILE = 4
_MOST_NAMES = 3


def data_report(datamodule: pl.LightningDataModule) -> list[str]:
    """Describe the recordings, and read some crops of them.

    Args:
        datamodule: data of the run.

    Returns:
        Lines of text.

    Raises:
        InputError: all crops are silent or unreadable.
    """
    train = datamodule.train_set
    valid = whole_valid_set(datamodule)
    if not isinstance(train, InstrumentDataset):
        items = f"{len(train)} items for training, {len(datamodule.valid_set)} for validation"
        return [f"data:       {type(train).__name__}, {items}"]
    recordings = train.recordings
    headers = recordings.headers
    probe = probe_crops(train)
    if probe.silent + len(probe.unreadable) == probe.total:
        raise InputError(
            f"nothing to train on in {train.paths}: of {probe.total} probed crops, "
            f"{probe.silent} are silent (peak below {train.silence_db} dB) and "
            f"{len(probe.unreadable)} are unreadable{_names(probe.unreadable)}"
        )
    suffixes = Counter(Path(file).suffix.lower()[1:] for file in headers)
    rates = Counter(header.sample_rate for header in headers.values())
    seconds = [header.seconds for header in headers.values()]
    crop = train.length / train.sample_rate
    lines = [
        f"files:      {len(headers)} ({_counts(suffixes)}), {duration(sum(seconds))} in total, "
        f"{duration(min(seconds))} to {duration(max(seconds))} each"
    ]
    if others := recordings.left_out:
        lines.append(f"left out:   {len(others)} of other instruments, by name{_names(others)}")
    lines += [
        f"rates:      {_counts(rates, ' Hz')}; training uses {train.sample_rate} Hz",
        f"unreadable: {len(recordings.unreadable)} by header, "
        f"{len(probe.unreadable)} of {probe.total} probed crops{_names(probe.unreadable)}",
        f"silent:     {probe.silent / (probe.total - len(probe.unreadable)):.0%} of the readable "
        f"crops of {crop:.3g} s (peak below {train.silence_db} dB); training redraws them",
    ]
    copies = sum(file != first for file, first in recordings.originals().items())
    if copies:
        lines.append(f"copies:     {copies} files are exact copies; the split keeps them together")
    short = sum(value < crop for value in seconds)
    if short:
        lines.append(f"short:      {short} files are shorter than a crop; silence pads them")
    return [*lines, f"split:      {_split(train, valid)}"]


def whole_valid_set(datamodule: pl.LightningDataModule) -> Any:
    """Return the validation set without the limit of its items."""
    return getattr(datamodule.valid_set, "dataset", datamodule.valid_set)


@dataclass
class Probe:
    """Results of reading some crops.

    Args:
        total: number of crops.
        silent: number of silent crops.
        unreadable: file of each unreadable crop.
    """

    total: int
    silent: int = 0
    unreadable: list[str] = field(default_factory=list)


def probe_crops(dataset: InstrumentDataset) -> Probe:
    """Read random crops, spread over the recordings."""
    rng = np.random.default_rng(dataset.seed)
    files = list(dataset.headers)
    probe = Probe(min(_MOST_PROBES, max(_LEAST_PROBES, _PROBES_PER_FILE * len(files))))
    chosen = np.arange(probe.total) * len(files) // probe.total
    read = audio.read_mono if dataset.channels == 1 else audio.read  # as training reads
    for index in tqdm(chosen, desc="reading some crops", unit="crop", delay=2):
        file = files[index]
        header = dataset.headers[file]
        length = round(dataset.length * header.sample_rate / dataset.sample_rate)
        frames = min(length, header.frames)
        start = int(rng.integers(header.frames - frames + 1))
        try:
            wav, _ = read(file, start, frames)
        except InputError:
            probe.unreadable.append(file)
            continue
        probe.silent += not dataset.is_audible(float(wav.abs().max()))
    return probe


def _split(train: InstrumentDataset, valid: InstrumentDataset) -> str:
    if valid.span != WHOLE:
        return f"one recording: the first {train.span[1]:.0%} for training, the rest for validation"
    train_time, valid_time = (
        duration(part.recordings.seconds(part.wavs)) for part in (train, valid)
    )
    return (
        f"{len(train.wavs)} files ({train_time}) for training, "
        f"{len(valid.wavs)} ({valid_time}) for validation"
    )


def _names(files: Sequence[str]) -> str:
    names = list(dict.fromkeys(Path(file).name for file in files))
    if not names:
        return ""
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f": {', '.join(names[:_MOST_NAMES])}{rest}"


def _counts(counter: Counter, unit: str = "") -> str:
    return ", ".join(f"{count} x {value}{unit}" for value, count in counter.most_common())
