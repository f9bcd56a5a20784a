"""Packed latents: latents and melodies of many recordings in one file, 8 bits a value."""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.utils.safetensors_io import open_safetensors, write_safetensors

FORMAT = "audio_diffusion_pytorch.pack.1"
LOWEST = -9.25  # latent of the quantised value 0: below ln(1e-4), silence of the mel codec
STEP = 10.75 / 255  # between two quantised values; the highest latent is 1.5
_TENSORS = {  # name: type, dimensions, counted by
    "latents": (torch.uint8, 2, "frames"),
    "melody": (torch.uint8, 2, "frames"),
    "first": (torch.int64, 1, "recordings"),
    "frames": (torch.int64, 1, "recordings"),
    "instrument": (torch.int64, 1, "recordings"),
    "varied": (torch.uint8, 1, "recordings"),
    "split": (torch.uint8, 1, "recordings"),
}


def quantise(latents: Tensor) -> Tensor:
    """Round latents to uint8; values outside of [LOWEST, LOWEST + 255 STEP] are clamped."""
    return ((latents.float() - LOWEST) / STEP).round().clamp(0, 255).byte()


def dequantise(values: Tensor) -> Tensor:
    """Invert `quantise`, in float32."""
    return values.float() * STEP + LOWEST


def quantise_melody(melody: Tensor) -> Tensor:
    """Round posteriors from 0 to 1 to uint8."""
    return (melody.float() * 255).round().clamp(0, 255).byte()


def dequantise_melody(values: Tensor) -> Tensor:
    """Invert `quantise_melody`, in float32."""
    return values.float() / 255


@dataclass(frozen=True)
class PackedRecording:
    """One recording of a pack.

    Args:
        latents: latents of a codec [L, D], or their quantised values in uint8.
        melody: posteriors of the pitches [L, M] from 0 to 1, or their quantised values in uint8.
        instrument: name of the instrument.
        varied: whether the recording is a varied copy.
        valid: whether the recording belongs to the validation set.
        peak: highest absolute sample value of each frame [L]; None: unknown.
    """

    latents: Tensor
    melody: Tensor
    instrument: str
    varied: bool = False
    valid: bool = False
    peak: Tensor | None = None


@dataclass(frozen=True)
class PackMetadata:
    """Origin of a pack.

    Args:
        codec: name of the codec.
        codec_fingerprint: `Codec.fingerprint` of the codec.
        sample_rate: sample rate of the codec in Hz.
        hop_length: samples of one frame.
        instruments: names of the instruments, in the order of their numbers.
        level: RMS of the active parts of the recordings; 1 is full scale.
        sources: description of the recordings and their licences.
    """

    codec: str
    codec_fingerprint: str
    sample_rate: int
    hop_length: int
    instruments: tuple[str, ...]
    level: float
    sources: str = ""


@dataclass(frozen=True)
class Pack:
    """Content of a pack of N frames and R recordings.

    Recording r consists of the rows first[r] to first[r] + frames[r] - 1.

    Args:
        path: the file.
        metadata: origin of the pack.
        digest: checksum of the tensors.
        latents: quantised latents [N, D].
        melody: quantised posteriors of the pitches [N, M].
        first: first row of each recording [R].
        frames: number of frames of each recording [R].
        instrument: index in `metadata.instruments` of each recording [R].
        varied: 1 for each varied copy [R].
        split: 0 for training, 1 for validation [R].
        peak: highest absolute sample value of each frame [N]; None: unknown.
    """

    path: Path
    metadata: PackMetadata
    digest: str
    latents: Tensor
    melody: Tensor
    first: Tensor
    frames: Tensor
    instrument: Tensor
    varied: Tensor
    split: Tensor
    peak: Tensor | None = None


def write_pack(
    path: str | Path, recordings: Iterable[PackedRecording], metadata: PackMetadata
) -> None:
    """Write a pack atomically.

    Args:
        path: the file, *.safetensors.
        recordings: at least one recording; `peak` is known of all recordings or of none.
        metadata: origin of the recordings.

    Raises:
        InputError: the file cannot be written.
        ValueError: there is no recording, an instrument is not in `metadata.instruments`, or the
            numbers of frames of a recording differ.
    """
    recordings = list(recordings)
    if not recordings:
        raise ValueError("a pack needs at least one recording")
    for one in recordings:
        frames = {len(x) for x in (one.latents, one.melody, one.peak) if x is not None}
        if len(frames) != 1 or 0 in frames:
            raise ValueError("latents, melody and peak of a recording must have equal lengths")
    lengths = torch.tensor([len(one.latents) for one in recordings])
    number = metadata.instruments.index
    tensors = {
        "latents": torch.cat([_bytes(one.latents, quantise) for one in recordings]),
        "melody": torch.cat([_bytes(one.melody, quantise_melody) for one in recordings]),
        "first": lengths.cumsum(0) - lengths,
        "frames": lengths,
        "instrument": torch.tensor([number(one.instrument) for one in recordings]),
        "varied": torch.tensor([one.varied for one in recordings]).byte(),
        "split": torch.tensor([one.valid for one in recordings]).byte(),
    }
    peaks = [one.peak.half() for one in recordings if one.peak is not None]
    if len(peaks) == len(recordings):
        tensors["peak"] = torch.cat(peaks)
    header = {
        "format": FORMAT,
        "codec": metadata.codec,
        "codec_fingerprint": metadata.codec_fingerprint,
        "sample_rate": str(metadata.sample_rate),
        "hop_length": str(metadata.hop_length),
        "instruments": json.dumps(metadata.instruments),
        "level": repr(float(metadata.level)),
        "sources": json.dumps(metadata.sources),
        "crc32": _checksum(tensors),
    }
    write_safetensors(path, tensors, header)


def open_pack(path: str | Path) -> Pack:
    """Read a pack into memory and check it.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, damaged, or not a pack.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is not a file of packed latents: set dataset_path=FILE.safetensors, or choose "
            "datamodule=small for a folder of recordings"
        )
    with open_safetensors(path, "packed latents", FORMAT) as (header, tensors):
        metadata = PackMetadata(
            codec=header["codec"],
            codec_fingerprint=header["codec_fingerprint"],
            sample_rate=int(header["sample_rate"]),
            hop_length=int(header["hop_length"]),
            instruments=tuple(json.loads(header["instruments"])),
            level=float(header["level"]),
            sources=json.loads(header["sources"]),
        )
        _check(tensors, len(metadata.instruments))
        digest = _checksum(tensors)
        if digest != header["crc32"]:
            raise ValueError("its checksum differs: copy or make the file again")
        known = {name: tensors[name] for name in (*_TENSORS, "peak") if name in tensors}
        return Pack(path, metadata, digest, **known)


def open_packs(path: str | Path | Sequence[str | Path]) -> Pack:
    """Read one pack, or several packs as one.

    Args:
        path: the file or files.

    Raises:
        InputError: a file is unusable, or the packs have different codecs or melodies.
    """
    if isinstance(path, str | Path):
        return open_pack(path)
    if not path:
        raise InputError("dataset_path is empty: set it to one or more packs")
    packs = [open_pack(one) for one in path]
    if len(packs) == 1:
        return packs[0]
    names = tuple(dict.fromkeys(name for one in packs for name in one.metadata.instruments))
    first = packs[0]
    for one in packs[1:]:
        same = one.metadata.codec_fingerprint == first.metadata.codec_fingerprint
        if not same or one.melody.shape[1] != first.melody.shape[1]:
            raise InputError(
                f"{one.path} and {first.path} have different codecs or melodies: make them again "
                "in one way"
            )
    sizes = torch.tensor([len(one.latents) for one in packs])
    moved = [
        {
            "first": one.first + offset,
            "instrument": torch.tensor([names.index(name) for name in one.metadata.instruments])[
                one.instrument
            ],
        }
        for one, offset in zip(packs, (sizes.cumsum(0) - sizes).tolist(), strict=True)
    ]
    tensors = {
        name: torch.cat(
            [new.get(name, getattr(one, name)) for one, new in zip(packs, moved, strict=True)]
        )
        for name in _TENSORS
    }
    peaks = [one.peak for one in packs if one.peak is not None]
    return Pack(
        Path(", ".join(str(one.path) for one in packs)),
        replace(
            first.metadata,
            instruments=names,
            level=median(one.metadata.level for one in packs),
            sources="\n".join(dict.fromkeys(one.metadata.sources for one in packs)),
        ),
        " ".join(one.digest for one in packs),
        **tensors,
        peak=torch.cat(peaks) if len(peaks) == len(packs) else None,
    )


def _bytes(values: Tensor, convert: Callable[[Tensor], Tensor]) -> Tensor:
    return values if values.dtype == torch.uint8 else convert(values)


def _check(tensors: Mapping[str, Tensor], instruments: int) -> None:
    """Raise ValueError unless types, shapes and values of a pack's tensors are consistent."""
    sizes = {"frames": len(tensors["latents"]), "recordings": len(tensors["first"])}
    for name, (dtype, dimensions, counted) in _TENSORS.items():
        tensor = tensors[name]
        fits = tensor.dtype == dtype and tensor.ndim == dimensions
        if not fits or len(tensor) != sizes[counted]:
            raise ValueError(f"its tensor {name} has a wrong type or shape")
    if "peak" in tensors and tensors["peak"].shape != (sizes["frames"],):
        raise ValueError("its tensor peak has a wrong shape")
    first, frames, instrument = (tensors[name] for name in ("first", "frames", "instrument"))
    outside = (first < 0) | (frames < 1) | (first + frames > sizes["frames"])
    if outside.any() or not ((instrument >= 0) & (instrument < instruments)).all():
        raise ValueError("its recordings lie outside of its frames or instruments")


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].contiguous().cpu().numpy(), value)
    return f"{value:08x}"
