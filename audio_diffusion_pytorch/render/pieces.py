"""Pieces of a rendering run, parsed by the engine and cached in the output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audio_diffusion_pytorch.engine.task import Calls
from audio_diffusion_pytorch.render.chorales import read_piece, split_of
from audio_diffusion_pytorch.render.clips import write_file
from audio_diffusion_pytorch.render.options import RenderOptions

CACHE = ".pieces.json"


def load_pieces(options: RenderOptions) -> dict[str, dict[str, Any]]:
    """Load the pieces of the requested splits; cache parsed chorales in the output folder.

    Returns:
        Name of each piece -> its content as in `chorales.read_piece`, and its "split".
    """
    if options.pieces == 0:
        return {}
    paths, version = _corpus()
    cache = options.output / CACHE
    known = _read_cache(cache, version)
    before = len(known)
    if options.pieces is None:
        task = Calls(read_piece, {name: paths[name] for name in paths if name not in known})
        parse = options.engine.results
        known |= parse(task, [*task.items], "reading the corpus", "piece", options.output)
    pieces: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        if len(pieces) == options.pieces:
            break
        known[name] = known.get(name) or read_piece(path)
        split = split_of(options.seed, known[name]["melody"])
        if split in options.splits and known[name]["parts"]:
            pieces[name] = {**known[name], "split": split}
    if len(known) > before and not options.dry_run:
        write_file(cache, json.dumps({"version": version, "pieces": known}).encode())
    return pieces


def _corpus() -> tuple[dict[str, str], str]:
    """Return the path of each chorale by name, and the version of the cache."""
    import music21

    files = sorted(music21.corpus.getComposer("bach"))
    paths = {path.stem: str(path) for path in files if path.suffix != ".rntxt"}
    return paths, f"1, music21 {music21.__version__}"


def _read_cache(cache: Path, version: str) -> dict[str, dict[str, Any]]:
    if not cache.is_file():
        return {}
    stored = json.loads(cache.read_text(encoding="utf-8"))
    return stored["pieces"] if stored["version"] == version else {}
