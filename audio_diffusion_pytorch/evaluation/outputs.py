"""Finished files of other systems: which output belongs to which input."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.evaluation.clips import _LENGTHS_APART, Recording, _audio_files
from audio_diffusion_pytorch.evaluation.problems import Problems


def find_outputs(
    folder: str | Path,
    pair: tuple[str, str],
    data: str | Path,
    recordings: Sequence[Recording],
    single: bool,
    problems: Problems,
) -> dict[Path, Path]:
    """Finished outputs of a pair: path of the input -> path of the output.

    They lie in `folder/SOURCE-TARGET`, or where only one pair is evaluated in the folder itself, and carry their
    input's name, in its subfolder where several inputs have one name. One output for one input matches whatever its
    name.

    Args:
        data: folder of the recordings.
        recordings: of the source instrument.
        single: one pair is evaluated.
    """
    folder = Path(folder)
    name = "-".join(part.replace(" ", "_") for part in pair)
    place = folder / name if (folder / name).is_dir() else folder
    if not place.is_dir() or (place == folder and not single):
        problems.add(f"{name}: no folder of outputs of this name in {folder}", name)
        return {}
    files, outputs = _audio_files(place), {}
    inputs = [recording.path for recording in recordings]
    found = dict(zip(inputs, files, strict=True)) if len(files) == len(inputs) == 1 else {}
    found = found or _same_place(inputs, Path(data), files, place)
    for recording in recordings:
        path = found.get(recording.path)
        if path is None:
            name = recording.name or recording.path.name
            problems.add(
                f"{name}: no output of this name in {place}, or several and none in the input's subfolder",
                name,
            )
            continue
        try:
            header = audio.info(path)
        except InputError as error:
            problems.add(str(error), path)
            continue
        if abs(header.seconds - recording.seconds) > _LENGTHS_APART:
            lengths = f"{header.seconds:.2f} s, its input {recording.seconds:.2f} s"
            problems.add(
                f"{path} ({lengths}): not as long as its input, left out", f"{path} ({lengths})"
            )
            continue
        outputs[recording.path] = path
    return outputs


def _same_place(
    inputs: Sequence[Path], data: Path, files: Sequence[Path], place: Path
) -> dict[Path, Path]:
    """Inputs and outputs at one place of their trees, then those whose name appears once on either side.

    The inputs' tree begins at `data` or at the folder that they share: whichever fits more outputs.
    """
    outs = {path: path.relative_to(place) for path in files}

    def fitting(root: Path) -> dict[Path, Path]:
        ins = {path: path.relative_to(root) for path in inputs}
        found = _alike(_bare(ins), _bare(outs))
        found |= _alike(ins, _bare(outs))  # a.mp3 -> a.mp3.flac, where there is an a.wav as well
        return found | _alike(ins, outs)

    shared = Path(os.path.commonpath([path.parent for path in inputs]))
    found = max(fitting(data), fitting(shared), key=len)
    named = _alike({path: path.stem for path in inputs}, {path: path.stem for path in files})
    return {**{a: b for a, b in named.items() if b not in found.values()}, **found}


def _bare(paths: Mapping[Path, Path]) -> dict[Path, Path]:
    return {path: relative.with_suffix("") for path, relative in paths.items()}


def _alike(inputs: Mapping[Path, Any], files: Mapping[Path, Any]) -> dict[Path, Path]:
    """Inputs and files, each with a key, by the keys that one input and one file have."""
    once = (
        {key for key, count in Counter(side.values()).items() if count == 1}
        for side in (inputs, files)
    )
    by_key = {key: path for path, key in files.items()}
    both = set.intersection(*once)
    return {path: by_key[key] for path, key in inputs.items() if key in both}
