"""A rendered training set: render missing clips, and describe the folder in its manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.engine.task import Calls
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.render.chorales import SPLITS
from audio_diffusion_pytorch.render.clips import (
    TEMPORARY,
    ClipRenderer,
    choose_clips,
    write_file,
)
from audio_diffusion_pytorch.render.options import RenderOptions
from audio_diffusion_pytorch.render.pieces import load_pieces
from audio_diffusion_pytorch.render.player import INSTRUMENTS, SAMPLE_RATE
from audio_diffusion_pytorch.render.sampler import SampleLibrary

Summary = dict[str, dict[str, dict[str, float]]]  # {split: {instrument: {"clips", "hours"}}}
MANIFEST = "manifest.json"
_FIXED = ("seed", "paired", "sample_rate", "soundfonts", "samples")  # of all runs in one folder


def render_dataset(options: RenderOptions, soundfonts: tuple[str, ...]) -> Summary:
    """Render the missing clips of a run.

    Args:
        options: options of the run.
        soundfonts: paths of the SoundFonts.

    Returns:
        Summary of all clips in the folder; in a dry run, of the clips to render.

    Raises:
        InputError: the folder was rendered with other settings, the engine cannot be used, or a
            clip ended two workers.
        OSError: the folder cannot be written.
        SoundFontError: a SoundFont cannot play an instrument.
    """
    renderer = ClipRenderer(
        options.output, soundfonts, options.seed, options.paired, options.samples
    )
    if options.dry_run:
        clips = choose_clips(load_pieces(options), options)
        lengths = [renderer.performance(clip)[0].duration for clip in clips]
        return summarise(
            (clip.split, clip.instrument, length)
            for clip, length in zip(clips, lengths, strict=True)
        )

    options.output.mkdir(parents=True, exist_ok=True)
    for leftover in options.output.rglob(f"{TEMPORARY}*"):
        leftover.unlink()
    manifest = _manifest(options, soundfonts)
    _write_manifest(options.output, {**manifest, "complete": False})
    clips = choose_clips(load_pieces(options), options)
    missing = [clip for clip in clips if not _is_rendered(options.output / clip.stem)]
    print(f"{len(clips)} clips, {len(clips) - len(missing)} of them already rendered", flush=True)
    task = Calls(renderer, {clip.stem: clip for clip in missing})
    options.engine.results(task, [*task.items], "rendering", "clip", options.output)
    manifest |= {"complete": True, **_contents(options.output)}
    _write_manifest(options.output, manifest)
    return manifest["clips"]


def _is_rendered(stem: Path) -> bool:
    return all(stem.with_name(f"{stem.name}.{kind}").is_file() for kind in ("flac", "json"))


def _write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    write_file(output / MANIFEST, json.dumps(manifest, indent=1).encode())


def _manifest(options: RenderOptions, soundfonts: tuple[str, ...]) -> dict[str, Any]:
    """Describe a run.

    Raises:
        InputError: the output folder has the manifest of a run with other settings.
    """
    fonts = [
        {"name": Path(font).name, "sha256": hashlib.sha256(Path(font).read_bytes()).hexdigest()}
        for font in soundfonts
    ]
    arguments = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
        if name not in ("soundfont", "engine")
    }
    manifest: dict[str, Any] = {
        "seed": options.seed,
        "paired": options.paired,
        "sample_rate": SAMPLE_RATE,
        "soundfonts": fonts,
        "samples": None if options.samples is None else _samples(options),
        "programs": {name: INSTRUMENTS[name][0] for name in options.instruments},
        "arguments": arguments,
        "versions": _versions(options),
    }
    path = options.output / MANIFEST
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for key in _FIXED:
            if stored.get(key) != manifest[key]:
                raise InputError(
                    f"{options.output} was rendered with another {key} ({stored.get(key)}): choose "
                    "another --output"
                )
        manifest["programs"] = stored["programs"] | manifest["programs"]
    return manifest


def _samples(options: RenderOptions) -> dict[str, Any]:
    """Describe the recorded notes of a run.

    Raises:
        InputError: an instrument has no recorded notes.
    """
    assert options.samples is not None
    found = {}
    for instrument in options.instruments:
        library = SampleLibrary(options.samples, instrument)
        names = sorted(note.path.name for notes in library.notes.values() for note in notes)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        found[instrument] = {"notes": len(names), "names": digest, "skipped": library.skipped}
    return {"folder": options.samples.name, "instruments": found}


def _versions(options: RenderOptions) -> dict[str, str]:
    names = ["numpy", "soundfile"] + ["music21"] * (options.pieces != 0)
    versions = {name: importlib.metadata.version(name) for name in names}
    if options.samples is not None:
        return versions
    import fluidsynth

    numbers = [fluidsynth.c_int() for _ in range(3)]
    fluidsynth.fluid_version(*numbers)
    player = {"pyfluidsynth": importlib.metadata.version("pyfluidsynth")}
    return versions | player | {"fluidsynth": ".".join(str(number.value) for number in numbers)}


def _contents(output: Path) -> dict[str, Any]:
    """Describe the clips of a folder: summary, split of each piece, digest of each file."""
    lengths = []
    pieces: dict[str, str] = {}
    files: dict[str, str] = {}
    for path in sorted(path for split in SPLITS for path in (output / split).glob("*/*.json")):
        split = path.parts[-3]
        about = json.loads(path.read_text(encoding="utf-8"))
        lengths.append((split, about["instrument"], about["duration"]))
        pieces[about["piece"]] = split
        files[path.relative_to(output).with_suffix(".flac").as_posix()] = about["sha256"]
    return {"clips": summarise(lengths), "pieces": pieces, "files": files}


def summarise(lengths: Iterable[tuple[str, str, float]]) -> Summary:
    """Count clips and hours.

    Args:
        lengths: split, instrument and seconds of each clip.
    """
    table: Summary = {}
    for split, instrument, seconds in sorted(lengths):
        cell = table.setdefault(split, {}).setdefault(instrument, {"clips": 0, "hours": 0.0})
        cell["clips"] += 1
        cell["hours"] += seconds / 3600
    return table
