"""Pack recordings: vary them, encode them, and track their melodies."""

from __future__ import annotations

import hashlib
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.codecs.base import Codec
from audio_diffusion_pytorch.data.augment import RecordingAugment
from audio_diffusion_pytorch.data.melody_features import MelodyFeatures
from audio_diffusion_pytorch.data.packed import PackedRecording, quantise, quantise_melody
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.octaves import shift_octaves

_SECTION = 12.0  # seconds of a recording that are varied in one way
_SHIFTED = 0.5  # share of the varied sections that move by octaves
_LEAST = 0.5  # seconds of the shortest section


@dataclass(frozen=True)
class Preparation:
    """Read and vary one recording.

    Args:
        sample_rate: rate of the codec in Hz.
        variants: number of varied copies of each recording.
        octaves: octaves by which half of the varied sections move; empty: none.
        augment: changes of the varied sections.
        seed: key of the variations, with the name of the file.
    """

    sample_rate: int
    variants: int
    octaves: tuple[int, ...]
    augment: RecordingAugment
    seed: int

    def __call__(self, path: str) -> tuple[list[tuple[np.ndarray, bool]], float] | str:
        """Read and vary a recording.

        Returns:
            Pairs of sound [T] and whether it is varied, and the RMS of the active parts;
            or the reason why the recording is skipped.
        """
        torch.set_num_threads(1)
        try:
            wav, rate = audio.read_mono(path)
        except InputError as error:
            return str(error)
        wav = audio.resample(wav, rate, self.sample_rate)
        found = [(wav[0].numpy(), False)]
        name = hashlib.sha256(Path(path).name.encode()).digest()
        size = round(_SECTION * self.sample_rate)
        for variant in range(self.variants):
            rng = np.random.default_rng([self.seed, variant, int.from_bytes(name[:8], "big")])
            for start in range(0, wav.shape[1], size):
                section = wav[:, start : start + size]
                if section.shape[1] >= _LEAST * self.sample_rate:
                    found.append((self._varied(section, rng), True))
        return found, audio.active_rms(wav, self.sample_rate)

    def _varied(self, wav: Tensor, rng: np.random.Generator) -> np.ndarray:
        if self.octaves and rng.random() < _SHIFTED:
            wav = shift_octaves(wav, int(rng.choice(self.octaves)), self.sample_rate)
        length = wav.shape[1]
        margin = self.augment.margin(length)
        padded = np.pad(wav.numpy(), ((0, 0), (0, margin)))
        return self.augment(padded, length, self.sample_rate, rng)[0]


def pack_recordings(
    files: Sequence[str],
    instrument: str,
    codec: Codec,
    preparation: Preparation,
    valid_share: float = 0.05,
    workers: int = 1,
    device: str = "cpu",
) -> tuple[list[PackedRecording], float]:
    """Encode recordings for a pack; unreadable ones are named and skipped.

    Args:
        files: paths of the recordings.
        instrument: their instrument.
        codec: codec of the latents.
        preparation: variations of the recordings.
        valid_share: share of the files for validation; the name of a file decides.
        workers: processes that read and vary.
        device: device that encodes and tracks melodies.

    Returns:
        The recordings as they are and sections of their varied copies; median RMS of the active
        parts.

    Raises:
        InputError: no recording can be read.
    """
    features = MelodyFeatures(codec.to(device))
    packed, levels = [], []
    context = get_context("spawn")
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=ignore) as executor:
        prepared = executor.map(preparation, files, chunksize=4)
        for path, found in zip(files, tqdm(prepared, total=len(files), unit="file"), strict=True):
            if isinstance(found, str):
                warnings.warn(f"skipped: {found}", stacklevel=2)
                continue
            sounds, level = found
            levels.append(level)
            digest = hashlib.sha256(Path(path).name.encode()).digest()
            valid = int.from_bytes(digest[:4], "big") / 2**32 < valid_share
            for sound, varied in sounds:
                if not (valid and varied):
                    packed.append(_packed(features, sound, device, instrument, varied, valid))
    if not packed:
        raise InputError(f"none of {len(files)} recordings can be read")
    return packed, float(np.median(levels))


@torch.no_grad()
def _packed(
    features: MelodyFeatures,
    sound: np.ndarray,
    device: str,
    instrument: str,
    varied: bool,
    valid: bool,
) -> PackedRecording:
    wav = torch.from_numpy(sound).to(device)[None, None]
    channels = features.codec.latent_channels
    encoded = features.encode(wav)[0]
    hop = features.hop_length
    padded = torch.nn.functional.pad(wav[0, 0], (0, -wav.shape[-1] % hop))
    return PackedRecording(
        quantise(encoded[:channels]).T.cpu(),
        quantise_melody(encoded[channels:]).T.cpu(),
        instrument,
        varied,
        valid,
        padded.unflatten(0, (-1, hop)).abs().amax(1).cpu(),
    )
