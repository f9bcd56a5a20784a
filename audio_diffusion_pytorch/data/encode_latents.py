"""Fill the latent cache."""

import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.cli import plain_warnings
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.dataset import InstrumentDataset
from audio_diffusion_pytorch.data.latent_cache import (
    _CONTEXT,
    _SECTION,
    _TAIL,
    CachedVariant,
    LatentCache,
    _checksum,
)
from audio_diffusion_pytorch.engine.engine import Engine
from audio_diffusion_pytorch.engine.task import Task
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.devices import device_of, device_of_worker
from audio_diffusion_pytorch.utils.files import atomic_write
from audio_diffusion_pytorch.utils.hashing import DigestMemory
from audio_diffusion_pytorch.utils.threads import set_threads

_BLOCK = 3000  # frames (40 s) that the codec encodes together
_STALE = 86400  # seconds after which the writer of a temporary file is presumed dead
_REMEDY = (
    "choose another folder with datamodule.cache_dir=FOLDER, or encode while training with "
    "datamodule.cache=false"
)


@dataclass(frozen=True)
class _Job:
    """One file of latents to write."""

    dataset: InstrumentDataset
    file: str
    variant: CachedVariant


@dataclass(frozen=True)
class _Encoding(Task):
    """Encode the missing files of a cache; a job is the path of one, its result an error."""

    cache: LatentCache
    jobs: Mapping[Path, _Job]
    codec: Codec
    device: str

    def start(self, worker: int, workers: int) -> Codec:
        plain_warnings()
        set_threads(processes=workers)
        return self.codec.to(device_of_worker(self.device, worker))

    def versions(self, codec: Codec) -> dict[str, str]:
        return {**super().versions(codec), "codec": codec.fingerprint()}

    def do_job(self, codec: Codec, path: Path) -> str | None:
        job = self.jobs[path]
        if self.cache.is_intact(path):  # another process has encoded it
            return None
        try:
            tensors = _encode(self.cache, job, codec, device_of(codec))
        except InputError as error:  # headers do not reveal NaN or damage
            return str(error)
        recording = Path(job.file).name
        metadata = {"recording": recording, "take": str(job.variant), "codec": codec.name}
        _write(path, tensors, metadata)
        return None


def build(
    cache: LatentCache,
    datasets: Sequence[InstrumentDataset],
    codec: Codec,
    device: torch.device | str,
    engine: Engine | None = None,
) -> None:
    """Encode the recordings that the cache lacks or holds damaged.

    Args:
        cache: the cache; its `digests` are filled.
        datasets: data sets that read from the cache.
        codec: the codec, which moves to `device` if this process encodes.
        device: device of the encoder; workers with "cuda" use the GPUs in turn.
        engine: executor; None: this process.

    Raises:
        InputError: the cache is not writable, the disk is too small, or see `Engine.run`.
    """
    engine = engine or Engine()
    _remove_stale(cache.folder)
    jobs = _missing(cache, datasets)
    if not jobs:
        return
    _check_space(cache, sum(job.dataset.headers[job.file].seconds for job in jobs.values()))
    if engine.is_this_process:
        codec.to(device)
    # A random order: processes that fill the same cache rarely encode the same recording.
    paths = random.Random(os.urandom(8)).sample(sorted(jobs), len(jobs))
    task = _Encoding(cache, jobs, codec, str(device))
    title = f"encoding with {Path(codec.name).stem}"
    with tqdm(desc=title, unit="file", total=len(paths)) as bar:

        def tell(event: str, path: Path, error: str | None) -> None:
            bar.update()
            job = jobs[path]
            if event == "failed":
                raise InputError(error)
            if error is not None and job.file in cache.digests:
                del cache.digests[job.file]
                job.dataset.recordings.warn_once(job.file, error)

        engine.run(task, codec, paths, tell, cache.root, [Path(jobs[paths[0]].file)])


def _missing(cache: LatentCache, datasets: Sequence[InstrumentDataset]) -> dict[Path, _Job]:
    """Hash all recordings into `cache.digests`; return the missing and damaged files of latents."""
    memory = DigestMemory(cache.root / "digests.json")
    jobs: dict[Path, _Job] = {}
    files = [(dataset, file) for dataset in datasets for file in dataset.wavs]
    for dataset, file in tqdm(files, desc="checking the latent cache", unit="file", delay=2):
        try:
            cache.digests[file] = memory(file)
            variants = dataset.cached_variants(file)
        except InputError as error:
            dataset.recordings.warn_once(file, str(error))
            cache.digests.pop(file, None)
            continue
        for variant, _ in variants:
            path = cache.path(cache.digests[file], variant)
            if path not in jobs and not cache.is_intact(path):
                jobs[path] = _Job(dataset, file, variant)
    memory.save()
    return jobs


@torch.no_grad()
def _encode(
    cache: LatentCache, job: _Job, codec: Codec, device: torch.device | str
) -> dict[str, Tensor]:
    """Encode one variant of a recording: latents [L, D], peak [L] and RMS [L], in float16."""
    variation = job.dataset.variation
    variant = job.variant
    source: str | Path = job.file
    if variation.pitch_shift is not None and variant.semitones is not None:
        source = variation.pitch_shift.shifted(
            job.file, variant.semitones, cache.sample_rate, mono=True
        )
    augment = variation.augment if variant.variant is not None else None
    hop, rate = cache.hop, cache.sample_rate
    latents, peaks, levels = [], [], []
    for number, (wav, before, frames) in enumerate(_sections(source, rate, hop, augment)):
        length = (before + frames + _CONTEXT) * hop
        if augment is not None:
            key = [int(cache.digests[job.file], 16), int(variant.variation, 16)]
            rng = np.random.default_rng([*key, variant.variant, number])
            wav = torch.from_numpy(augment(wav.numpy(), length, rate, rng))
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
            f"{job.file}: its latents exceed the range of float16; use datamodule.cache=false"
        )
    return tensors


def _encode_blocks(codec: Codec, wav: Tensor, device: torch.device | str) -> Tensor:
    """Encode wav [1, T] of whole frames to latents [L, D] in float16, in bounded memory."""
    hop = codec.hop_length
    frames = wav.shape[1] // hop
    pieces = []
    for start in range(0, frames, _BLOCK):
        first = max(0, start - _CONTEXT)
        last = min(frames, start + _BLOCK + _CONTEXT)
        z = codec.encode(wav[None, :, first * hop : last * hop].to(device))[0]
        pieces.append(z[:, start - first :][:, :_BLOCK].T.half().cpu())
    return torch.cat(pieces)


def _sections(
    path: str | Path, rate: int, hop: int, augment: RecordingAugment | None
) -> Iterator[tuple[Tensor, int, int]]:
    """Cut a recording, with a tail of silence, into sections.

    Yields:
        wav [1, T] at `rate` Hz; number of its frames before the section; number of frames in the
        section. `_CONTEXT` frames, and the margin of `augment`, follow the section.
    """
    sound = torch.zeros(1, 0)
    first = 0  # frame at which `sound` starts
    start = 0  # frame at which the section starts

    def needed(frames: int) -> int:
        length = (start + frames + _CONTEXT - first) * hop
        return length + (augment.margin(length) if augment is not None else 0)

    def section(frames: int) -> tuple[Tensor, int, int]:
        wav = sound[:, : needed(frames)]
        wav = torch.nn.functional.pad(wav, (0, needed(frames) - wav.shape[1]))
        return wav, start - first, frames

    for block in _resampled_blocks(path, rate):
        sound = torch.cat([sound, block], 1)
        while sound.shape[1] >= needed(_SECTION):
            yield section(_SECTION)
            start += _SECTION
            sound = sound[:, (start - _CONTEXT - first) * hop :]
            first = start - _CONTEXT
    end = first + math.ceil(sound.shape[1] / hop) + _TAIL
    while start < end:
        yield section(min(_SECTION, end - start))
        start += _SECTION
        sound = sound[:, (start - _CONTEXT - first) * hop :]
        first = start - _CONTEXT


def _resampled_blocks(path: str | Path, rate: int) -> Iterator[Tensor]:
    """Read a recording as blocks [1, T] of mono audio at `rate` Hz."""
    with audio.AudioReader(path) as file:
        resample = audio.Resampler(file.info.sample_rate, rate, 1)
        yield from map(resample, file.mono_blocks())
        yield resample(torch.zeros(1, 0), last=True)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    content = save(tensors, {**metadata, "crc32": _checksum(tensors)})
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except InputError as error:
        raise InputError(
            f"latent cache: {error.__cause__ or error}: free space, {_REMEDY}"
        ) from error


def _check_space(cache: LatentCache, seconds: float) -> None:
    candidates = (cache.folder, *cache.folder.absolute().parents)
    existing = next(folder for folder in candidates if folder.exists())
    free = shutil.disk_usage(existing).free
    needed = cache.bytes_for(seconds)
    if needed > free:
        raise InputError(
            f"the latent cache in {cache.root} needs {needed / 1e6:.0f} MB more, "
            f"{free / 1e6:.0f} MB are free: {_REMEDY}"
        )


def _remove_stale(folder: Path) -> None:
    """Remove temporary files of dead processes."""
    for temporary in folder.glob("*/.*.tmp.safetensors"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > _STALE:
                temporary.unlink()
