"""Match the finished files of another system to their inputs."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import Recording, audio_files
from audio_diffusion_pytorch.evaluation.problems import Problems

_LENGTHS_APART = 0.1  # seconds by which the length of an output may differ from its input's


def find_outputs(
    folder: str | Path,
    pair: tuple[str, str],
    data: str | Path,
    recordings: Sequence[Recording],
    single: bool,
    problems: Problems,
) -> dict[Path, Path]:
    """Find the finished outputs of a pair.

    An output has the name of its input. If several inputs share a name, the output also has the
    input's subfolder. A single output of a single input matches under any name.

    Args:
        folder: folder of the outputs; outputs of several pairs have subfolders SOURCE-TARGET.
        pair: source and target instrument.
        data: folder of the recordings.
        recordings: recordings of the source instrument.
        single: whether the evaluation has one pair only.
        problems: collects missing, unreadable and too short or long outputs.

    Returns:
        The path of each input -> the path of its output.
    """
    folder = Path(folder)
    name = "-".join(part.replace(" ", "_") for part in pair)
    place = folder / name if (folder / name).is_dir() else folder
    if not place.is_dir() or (place == folder and not single):
        problems.add(f"{name}: no folder of outputs of this name in {folder}", name)
        return {}
    files = audio_files(place)
    inputs = [recording.path for recording in recordings]
    found = _match(inputs, Path(data), files, place)
    outputs = {}
    for recording in recordings:
        path = found.get(recording.path)
        if path is None:
            name = recording.name or recording.path.name
            problems.add(
                f"{name}: no output of this name in {place}, or several and none in the input's "
                "subfolder",
                name,
            )
        elif _is_usable(path, recording, problems):
            outputs[recording.path] = path
    return outputs


def _is_usable(path: Path, recording: Recording, problems: Problems) -> bool:
    """Whether an output can be read and is as long as its input."""
    try:
        header = audio.info(path)
    except InputError as error:
        problems.add(str(error), path)
        return False
    if abs(header.seconds - recording.seconds) > _LENGTHS_APART:
        name = f"{path} ({header.seconds:.2f} s, its input {recording.seconds:.2f} s)"
        problems.add(f"{name}: not as long as its input, left out", name)
        return False
    return True


def _match(
    inputs: Sequence[Path], data: Path, files: Sequence[Path], place: Path
) -> dict[Path, Path]:
    """Match inputs and outputs by relative paths, then by names that occur once on each side.

    Paths of inputs are relative to `data` or to the common folder of the inputs, whichever matches
    more outputs.
    """
    if len(inputs) == len(files) == 1:
        return {inputs[0]: files[0]}
    outs = {path: path.relative_to(place) for path in files}

    def matches(root: Path) -> dict[Path, Path]:
        ins = {path: path.relative_to(root) for path in inputs}
        found = _by_key(_without_suffix(ins), _without_suffix(outs))
        found |= _by_key(ins, _without_suffix(outs))  # a.mp3 -> a.mp3.flac beside a.wav
        return found | _by_key(ins, outs)

    common = Path(os.path.commonpath([path.parent for path in inputs]))
    found = max(matches(data), matches(common), key=len)
    named = _by_key({path: path.stem for path in inputs}, {path: path.stem for path in files})
    free = {a: b for a, b in named.items() if b not in found.values()}
    return {**free, **found}


def _without_suffix(paths: Mapping[Path, Path]) -> dict[Path, Path]:
    return {path: relative.with_suffix("") for path, relative in paths.items()}


def _by_key(inputs: Mapping[Path, Any], files: Mapping[Path, Any]) -> dict[Path, Path]:
    """Match inputs and files by keys that one input and one file have."""
    unique = _unique(inputs) & _unique(files)
    by_key = {key: path for path, key in files.items()}
    return {path: by_key[key] for path, key in inputs.items() if key in unique}


def _unique(side: Mapping[Path, Any]) -> set[Any]:
    return {key for key, count in Counter(side.values()).items() if count == 1}
