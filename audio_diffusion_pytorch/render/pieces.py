"""Pieces of a rendering run, parsed in parallel and cached in the output folder."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from audio_diffusion_pytorch.render.chorales import read_piece, split_of
from audio_diffusion_pytorch.render.clips import write_file
from audio_diffusion_pytorch.render.options import RenderOptions

CACHE = ".pieces.json"
T = TypeVar("T")
Result = TypeVar("Result")


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
        missing = [name for name in paths if name not in known]
        files = [paths[name] for name in missing]
        parsed = parallel(read_piece, files, options.workers, "reading the corpus", "piece")
        known.update(zip(missing, parsed, strict=True))
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


def parallel(
    function: Callable[[T], Result], items: Sequence[T], workers: int, title: str, unit: str
) -> list[Result]:
    """Map a function over items in several processes, with a progress bar.

    Args:
        function: function that can be pickled.
        items: its arguments.
        workers: number of processes; up to one: this process.
        title: title of the progress bar.
        unit: unit of the progress bar.

    Returns:
        The results in the order of the items.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    from tqdm import tqdm

    progress = partial(
        tqdm, total=len(items), desc=title, unit=unit, dynamic_ncols=True, disable=not items
    )
    processes = min(workers, len(items))
    if processes <= 1:
        return [function(item) for item in progress(items)]
    executor = ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # only the parent handles Ctrl-C
    )
    try:
        futures = [executor.submit(function, item) for item in items]
        for future in progress(as_completed(futures)):
            future.result()
        return [future.result() for future in futures]
    finally:
        executor.shutdown(cancel_futures=True)
