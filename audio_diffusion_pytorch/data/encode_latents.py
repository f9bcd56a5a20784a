"""Fill the latent cache."""

import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import DigestMemory

if TYPE_CHECKING:
    from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_cache import (
    _CONTEXT,
    _SECTION,
    _TAIL,
    CachedVariant,
    LatentCache,
    _checksum,
)

_BLOCK = 3000  # frames (40 s) that the codec takes at once
_STALE = 86400  # seconds after which a half-written file belongs to a process that is gone


def build(
    cache: LatentCache,
    datasets: Sequence["InstrumentDataset"],
    codec: Codec,
    device: torch.device | str,
) -> None:
    """Encode what `datasets` need and is not there, or is damaged.

    Raises:
        InputError: the cache cannot be written to, or the disk is too small.
    """
    _sweep(cache.folder)
    memory, missing, seconds = DigestMemory(cache.root / "digests.json"), {}, 0.0
    files = [(dataset, file) for dataset in datasets for file in dataset.wavs]
    for dataset, file in tqdm(files, desc="checking the latent cache", unit="file", delay=2):
        try:
            cache.digests[file] = memory(file)
            takes = dataset.takes(file)
        except InputError as error:
            dataset.name_once(file, str(error))
            cache.digests.pop(file, None)
            continue
        for take, _ in takes:
            path = cache.path(cache.digests[file], take)
            if path not in missing and not cache.sound(path):
                missing[path] = dataset, file, take
                seconds += dataset.headers[file].seconds
    memory.save()
    if missing:
        _check_space(cache, seconds)
        codec.to(device)
    # In an order of this process's own: those that build the same cache seldom meet at the same recording.
    jobs = random.Random(os.urandom(8)).sample(sorted(missing), len(missing))
    for path in tqdm(
        jobs, desc=f"encoding with {Path(codec.name).stem}", unit="file", disable=not jobs
    ):
        dataset, file, take = missing[path]
        if file not in cache.digests or cache.sound(path):
            continue
        try:
            tensors = _encode(cache, dataset, file, take, codec, device)
        except (
            InputError
        ) as error:  # what a header does not tell: damage, NaN; or it changes at this moment
            dataset.name_once(file, str(error))
            del cache.digests[file]
            continue
        _write(
            path, tensors, {"recording": Path(file).name, "take": str(take), "codec": codec.name}
        )


@torch.no_grad()
def _encode(
    cache: LatentCache,
    dataset: "InstrumentDataset",
    file: str,
    take: CachedVariant,
    codec: Codec,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Latents [L, D], peak [L] and RMS [L] of a recording, in half precision."""
    source = file if take.semitones is None else dataset.shifted(file, take.semitones)
    vary = dataset.augment if take.variant is not None else None
    hop, rate = cache.hop, cache.sample_rate
    latents, peaks, levels = [], [], []
    for number, (wav, before, frames) in enumerate(_sections(source, rate, hop, vary)):
        length = (before + frames + _CONTEXT) * hop
        if vary is not None:
            rng = np.random.default_rng(
                [int(cache.digests[file], 16), int(take.variation, 16), take.variant, number]
            )
            wav = torch.from_numpy(vary(wav.numpy(), length, rate, rng))
        sound = wav[0, before * hop : (before + frames) * hop].unflatten(0, (frames, hop))
        peaks.append(sound.abs().amax(1))
        levels.append(sound.square().mean(1).sqrt())
        latents.append(_encode_blocks(codec, wav[:, :length], device)[before : before + frames])
    tensors = {
        "latents": torch.cat(latents),
        "peak": torch.cat(peaks).half(),
        "rms": torch.cat(levels).half(),
    }
    if not tensors["latents"].isfinite().all():
        raise InputError(
            f"{file}: its latents do not fit into half precision; use datamodule.cache=false"
        )
    return tensors


def _encode_blocks(codec: Codec, wav: Tensor, device: torch.device | str) -> Tensor:
    """wav [1, T], T whole frames -> latents [L, D] in half precision, block by block in bounded memory."""
    hop = codec.hop_length
    frames, pieces = wav.shape[1] // hop, []
    for start in range(0, frames, _BLOCK):
        first, last = max(0, start - _CONTEXT), min(frames, start + _BLOCK + _CONTEXT)
        z = codec.encode(wav[None, :, first * hop : last * hop].to(device))[0]
        pieces.append(z[:, start - first :][:, :_BLOCK].T.half().cpu())
    return torch.cat(pieces)


def _sections(path: str | Path, rate: int, hop: int, vary) -> Iterator[tuple[Tensor, int, int]]:
    """A recording and a tail of silence, in pieces.

    Yields:
        wav [1, T] at `rate` Hz; how many of its frames come before the piece; how many frames the piece has. After
        those come `_CONTEXT` frames more, and what `vary` wants to have beyond its output's length.
    """
    sound, first, start = (
        torch.zeros(1, 0),
        0,
        0,
    )  # the sound at hand, its first frame; the piece's first frame

    def needed(frames: int) -> int:
        length = (start + frames + _CONTEXT - first) * hop
        return length + (vary.margin(length) if vary is not None else 0)

    def piece(frames: int) -> tuple[Tensor, int, int]:
        wav = sound[:, : needed(frames)]
        return (
            torch.nn.functional.pad(wav, (0, needed(frames) - wav.shape[1])),
            start - first,
            frames,
        )

    with audio.AudioReader(path) as file:
        resample = audio.Resampler(file.info.sample_rate, rate, 1)
        blocks = map(resample, file.mono_blocks())
        for block in chain(blocks, map(partial(resample, last=True), [torch.zeros(1, 0)])):
            sound = torch.cat([sound, block], 1)
            while sound.shape[1] >= needed(_SECTION):
                yield piece(_SECTION)
                start += _SECTION
                sound, first = sound[:, (start - _CONTEXT - first) * hop :], start - _CONTEXT
    end = first + math.ceil(sound.shape[1] / hop) + _TAIL
    while start < end:
        yield piece(min(_SECTION, end - start))
        start += _SECTION
        sound, first = sound[:, (start - _CONTEXT - first) * hop :], start - _CONTEXT


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    content = save(tensors, {**metadata, "crc32": _checksum(tensors)})
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except InputError as error:
        raise InputError(
            f"latent cache: {error.__cause__ or error}: free space there, choose another folder with "
            "datamodule.cache_dir=FOLDER, or encode while training with datamodule.cache=false"
        ) from error


def _check_space(cache: LatentCache, seconds: float) -> None:
    there = next(
        folder for folder in (cache.folder, *cache.folder.absolute().parents) if folder.exists()
    )
    free, needed = shutil.disk_usage(there).free, cache.bytes_for(seconds)
    if needed > free:
        raise InputError(
            f"the latent cache in {cache.root} needs {needed / 1e6:.0f} MB more, {free / 1e6:.0f} MB are free: choose "
            "another folder with datamodule.cache_dir=FOLDER, or encode while training with datamodule.cache=false"
        )


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written."""
    for temporary in folder.glob("*/.*.tmp.safetensors"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _STALE:
                temporary.unlink()
