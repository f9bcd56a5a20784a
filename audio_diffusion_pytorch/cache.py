"""Latents of whole recordings, encoded once and kept on disk; training reads its crops from there.

One .safetensors file for each recording and each way of hearing it (`Take`), named by the recording's content and the
codec, so that experiments share them and a change of either makes new ones. Files appear when they are complete:
several processes may build one cache at once, and one that is cut off goes on where it was.
"""

import math
import os
import random
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codec import Codec
from audio_diffusion_pytorch.digest import DigestMemory
from audio_diffusion_pytorch.errors import InputError, replacing

if TYPE_CHECKING:
    from audio_diffusion_pytorch.dataset import InstrumentDataset

_VERSION = "2"  # raise it when what is stored changes
_SECTION = 22500  # frames (300 s at 75/s) that are read, varied and encoded as one; the last one may be shorter
_BLOCK = 3000  # frames (40 s) that the codec takes at once
_CONTEXT = 150  # frames (2 s) that it hears before and after them
_TAIL = 75  # frames of silence after a recording, for crops that are longer than it
_STALE = 86400  # seconds after which a half-written file belongs to a process that is gone


@dataclass(frozen=True)
class Take:
    """One way in which a recording is heard.

    Args:
        semitones: interval by which it is shifted; None: not at all.
        variant: number of its variation; None: as it was recorded.
        variation: digest of how it is varied.
    """

    semitones: int | None = None
    variant: int | None = None
    variation: str = ""

    def __str__(self) -> str:
        shift = "" if self.semitones is None else f"_{self.semitones:+d}"
        return shift + ("" if self.variant is None else f"_{self.variation}_{self.variant}")


class LatentCache:
    """The latents of one codec: reads crops of them.

    Args:
        folder: holds the caches of all codecs and experiments; may be deleted at any time between runs.
        codec: the codec, of which only name and sizes are kept.
        sample_rate: of the audio that the codec is given, in Hz.
        variants: variations of each recording, where recordings are varied.

    Attributes:
        digests: content of the recordings whose latents are there, by path; `build` fills it in.
    """

    def __init__(self, folder: str | Path, codec: Codec, sample_rate: int, variants: int = 4):
        self.root = Path(folder)
        self.folder = self.root / f"{Path(codec.name).stem}-{sample_rate}-{codec.fingerprint()}-v{_VERSION}"
        self.hop, self.channels, self.sample_rate = codec.hop_length, codec.latent_channels, sample_rate
        self.variants = variants
        self.digests: dict[str, str] = {}

    def path(self, digest: str, take: Take) -> Path:
        return self.folder / digest[:2] / f"{digest}{take}.safetensors"

    def crop(
        self, file: str, take: Take, length: int, span: tuple[float, float], rng: np.random.Generator
    ) -> tuple[Tensor, float, int]:
        """A random crop of the part `span` of a recording; where that is shorter the crop goes on in silence.

        Returns:
            Latents [D, L] float32, the frames of `length` samples; the sound's peak; the first frame.

        Raises:
            InputError: the recording has no latents, or their file went away or is damaged.
        """
        count = math.ceil(length / self.hop)
        with self._open(file, take) as entry:
            latents, peaks = entry.get_slice("latents"), entry.get_slice("peak")
            frames = peaks.get_shape()[0] - _TAIL
            first, end = (round(edge * frames) for edge in span)
            start = first + int(rng.integers(max(1, end - first - count + 1)))
            if take.variant is not None and count <= _SECTION:  # sections are varied each in their own way
                start = min(start, max(first, (start // _SECTION + 1) * _SECTION - count))
            stop = min(start + count, end)
            crop = _with_silence(latents[start:stop], latents[frames:], count)
            return crop.float().T.contiguous(), float(peaks[start:stop].max()), start

    def whole(self, file: str, take: Take, length: int, span: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
        """All that crops of `length` samples are cut from -> latents [D, L]; peak and RMS of its sound's frames."""
        with self._open(file, take) as entry:
            latents, peak, rms = (entry.get_tensor(name).float() for name in ("latents", "peak", "rms"))
        frames = len(peak) - _TAIL
        first, end = (round(edge * frames) for edge in span)
        latents = _with_silence(latents[first:end], latents[frames:], math.ceil(length / self.hop))
        return latents.T, peak[first:end], rms[first:end]

    def _open(self, file: str, take: Take):
        if file not in self.digests:
            raise InputError(f"{file} is not in the latent cache, because it could not be read")
        path = self.path(self.digests[file], take)
        try:
            return safe_open(path, "pt")
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}, the latents of {file}, went away or is damaged ({error})") from error

    def sound(self, path: Path) -> bool:
        """Whether a file of latents is there, complete and what was written."""
        try:
            with safe_open(path, "pt") as entry:
                metadata = entry.metadata() or {}
                tensors = {name: entry.get_tensor(name) for name in ("latents", "peak", "rms")}
        except (OSError, SafetensorError):
            return False
        return metadata.get("crc32") == _checksum(tensors)

    def bytes_for(self, seconds: float) -> int:
        """Disk space for recordings of so many seconds in all."""
        return math.ceil(seconds * self.sample_rate / self.hop) * (self.channels + 2) * 2


def build(
    cache: LatentCache, datasets: Sequence["InstrumentDataset"], codec: Codec, device: torch.device | str
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
    for path in tqdm(jobs, desc=f"encoding with {Path(codec.name).stem}", unit="file", disable=not jobs):
        dataset, file, take = missing[path]
        if file not in cache.digests or cache.sound(path):
            continue
        try:
            tensors = _encode(cache, dataset, file, take, codec, device)
        except InputError as error:  # what a header does not tell: damage, NaN; or it changes at this moment
            dataset.name_once(file, str(error))
            del cache.digests[file]
            continue
        _write(path, tensors, {"recording": Path(file).name, "take": str(take), "codec": codec.name})


@torch.no_grad()
def _encode(
    cache: LatentCache, dataset: "InstrumentDataset", file: str, take: Take, codec: Codec, device: torch.device | str
) -> dict[str, Tensor]:
    """Latents [L, D], peak [L] and RMS [L] of a recording, in half precision."""
    source = file if take.semitones is None else dataset.shifted(file, take.semitones)
    vary = dataset.augment if take.variant is not None else None
    hop, rate = cache.hop, cache.sample_rate
    latents, peaks, levels = [], [], []
    for number, (wav, before, frames) in enumerate(_sections(source, rate, hop, vary)):
        length = (before + frames + _CONTEXT) * hop
        if vary is not None:
            rng = np.random.default_rng([int(cache.digests[file], 16), int(take.variation, 16), take.variant, number])
            wav = torch.from_numpy(vary(wav.numpy(), length, rate, rng))
        sound = wav[0, before * hop : (before + frames) * hop].unflatten(0, (frames, hop))
        peaks.append(sound.abs().amax(1))
        levels.append(sound.square().mean(1).sqrt())
        latents.append(_encode_blocks(codec, wav[:, :length], device)[before : before + frames])
    tensors = {"latents": torch.cat(latents), "peak": torch.cat(peaks).half(), "rms": torch.cat(levels).half()}
    if not tensors["latents"].isfinite().all():
        raise InputError(f"{file}: its latents do not fit into half precision; use datamodule.cache=false")
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
    sound, first, start = torch.zeros(1, 0), 0, 0  # the sound at hand, its first frame; the piece's first frame

    def needed(frames: int) -> int:
        length = (start + frames + _CONTEXT - first) * hop
        return length + (vary.margin(length) if vary is not None else 0)

    def piece(frames: int) -> tuple[Tensor, int, int]:
        wav = sound[:, : needed(frames)]
        return torch.nn.functional.pad(wav, (0, needed(frames) - wav.shape[1])), start - first, frames

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


def statistics(dataset: "InstrumentDataset") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the latents' statistics are made of: weights [K, 1], weighted sums of the latents and of their squares
    [K, D], and RMS of the sounding parts (median over the recordings, []), for each of the K instruments that the data
    set tells apart.

    Of every frame of the recordings; each recording, and each of its takes, counts as often as training draws it.
    """
    cache, levels = dataset.cache, []
    rows = max(len(dataset.labels.instruments), 1) if dataset.labels else 1
    weight, sums, squares = torch.zeros(rows, 1).double(), 0.0, 0.0
    block = max(1, round(0.05 * cache.sample_rate / cache.hop))  # frames in 50 ms
    for file in tqdm(dataset.wavs, desc="latent statistics", unit="file", delay=2):
        if file not in cache.digests:
            continue
        of = torch.zeros(rows, 1).double()
        of[dataset.instrument_number(file)] = 1.0
        for take, share in dataset.takes(file):
            latents, peak, rms = cache.whole(file, take, dataset.length, dataset.span)
            if not dataset.audible(float(peak.max())):
                continue
            latents = latents.double()
            weight += share * of
            sums = sums + share * of * latents.mean(1)
            squares = squares + share * of * latents.square().mean(1)
            power = torch.nn.functional.pad(rms.square(), (0, -len(rms) % block)).unflatten(0, (-1, block)).mean(1)
            levels.append(power[power >= power.max() * 1e-3].mean().sqrt())
    if not levels:
        raise InputError(f"no recording in {dataset.paths} can be used: each is silent or could not be read")
    return weight, sums, squares, torch.stack(levels).median()


def _with_silence(latents: Tensor, silence: Tensor, count: int) -> Tensor:
    """[L, D] -> [at least `count`, D]: what is missing comes from `silence` [S, D], the last frame of that repeated."""
    missing = count - len(latents)
    if missing <= 0:
        return latents
    return torch.cat([latents, silence[:missing], silence[-1:].expand(max(0, missing - len(silence)), -1)])


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    content = save(tensors, {**metadata, "crc32": _checksum(tensors)})
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except InputError as error:
        raise InputError(
            f"latent cache: {error.__cause__ or error}: free space there, choose another folder with "
            "datamodule.cache_dir=FOLDER, or encode while training with datamodule.cache=false"
        ) from error


def _check_space(cache: LatentCache, seconds: float) -> None:
    there = next(folder for folder in (cache.folder, *cache.folder.absolute().parents) if folder.exists())
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


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in ("latents", "peak", "rms"):
        value = zlib.crc32(tensors[name].contiguous().numpy(), value)
    return f"{value:08x}"
