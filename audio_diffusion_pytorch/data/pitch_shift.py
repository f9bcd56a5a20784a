"""Pitch-shift augmentation: recordings shifted by semitones at the same tempo, cached on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch
from audio_diffusion_pytorch.utils.hashing import content_digest
from audio_diffusion_pytorch.utils.settings import check_number, wrong

_VERSION = 2  # in the names of cached files: raise it when their content changes
_HIGHEST = 36  # semitones
_OFF = (None, 0, "", "0", "none", "null", "false")


def make_pitch_shift(sign: int | str | None, **settings: Any) -> "PitchShift | None":
    """Make a `PitchShift`, or None if the sign is null, 0 or the string "None".

    Args:
        sign: 1 shifts up, -1 shifts down.
        **settings: further arguments of `PitchShift`.

    Raises:
        InputError: a setting is wrong.
    """
    given = sign.strip().lower() if isinstance(sign, str) else sign
    if given in _OFF:
        return None
    if str(given) not in ("1", "+1", "-1"):
        raise InputError(
            f"sign={sign!r}: use 1 to shift up, -1 to shift down, null for no pitch shift"
        )
    return PitchShift(int(given), **settings)


class PitchShift:
    """Pitch shift of some crops of a data set, in one direction.

    Shifting is slower than reading and would delay the training. So each whole recording is shifted
    once, by `variants` intervals, and training reads crops of the shifted files. The intervals of a
    recording are spread over the range and keyed by its content; over all recordings, each semitone
    of the range is equally likely.

    Args:
        sign: 1 up, -1 down.
        cache: folder of the shifted recordings (16-bit FLAC), shared by all runs. You may delete it
            between runs. Its size is about `variants` times that of the recordings.
        probability: share of the crops that are shifted.
        semitones: lowest and highest interval.
        variants: intervals of each recording; None uses every semitone of the range.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        sign: int,
        cache: str | Path,
        probability: float = 0.35,
        semitones: Sequence[int] = (1, 25),
        variants: int | None = 5,
    ):
        low, high = semitones if len(semitones) == 2 else (0, 0)
        if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high <= _HIGHEST):
            expected = f"[low, high] with 1 <= low <= high <= {_HIGHEST}"
            raise wrong("pitch_shift.semitones", semitones, expected)
        check_number("pitch_shift.probability", probability, least=0, most=1)
        check_number("pitch_shift.variants", variants, whole=True, least=1, allowed=(None,))
        self.sign = sign
        self.cache = Path(cache)
        self.probability = probability
        self.low = low
        self.range = high - low + 1
        self.variants = min(variants or self.range, self.range)
        self.keys: dict[str, str] = {}  # file -> hash of its content

    def remember(self, file: str, key: str) -> None:
        """Store the hash of a file's content, unless it is known."""
        self.keys.setdefault(file, key)

    def draw(self, file: str, rng: np.random.Generator) -> int | None:
        """Draw the signed interval of a crop of `file`, in semitones; None for no shift."""
        shifted = rng.random() < self.probability
        number = rng.integers(self.variants)
        return self.intervals(file)[number] if shifted else None

    def intervals(self, file: str) -> list[int]:
        """Return the signed intervals of `file`, in semitones.

        Each of `variants` equal parts of the range contains one random interval.
        """
        rng = np.random.default_rng(int(self._key(file), 16))
        parts = (np.arange(self.variants) + rng.random(self.variants)) / self.variants
        return [self.sign * (self.low + int(part * self.range)) for part in parts]

    def shifted(self, file: str, semitones: int, sample_rate: int, mono: bool) -> Path:
        """Shift a recording, unless the cache contains the result.

        Args:
            file: the recording.
            semitones: signed interval.
            sample_rate: rate of the shifted recording in Hz.
            mono: average the channels.

        Returns:
            Path of the shifted recording.

        Raises:
            InputError: `file` is unreadable.
            OSError: the cache is not writable.
        """
        channels = "_mono" if mono else ""
        name = f"{self._key(file)}_{semitones:+d}_{sample_rate}{channels}_v{_VERSION}.flac"
        path = self.cache / name[:2] / name
        if not path.is_file():
            wav, rate = (audio.read_mono if mono else audio.read)(file)
            wav = audio.resample(wav, rate, sample_rate)
            wav = torch.from_numpy(shift_pitch(wav.numpy(), semitones, sample_rate))
            wav = wav / max(1.0, float(wav.abs().max()))  # prevents clipping
            try:
                audio.write(path, wav, sample_rate)
            except InputError as error:  # the recording is not the cause
                raise OSError(f"cache of pitch-shifted recordings: {error}") from error
        return path

    def prepare(self, file: str, sample_rate: int, mono: bool) -> str:
        """Create all shifted variants of a recording.

        Args:
            file: the recording.
            sample_rate: rate of the shifted recordings in Hz.
            mono: average the channels.

        Returns:
            Hash of the recording's content; "" for an unreadable one, which `draw` reports.

        Raises:
            OSError: the cache is not writable.
        """
        try:
            for semitones in self.intervals(file):
                self.shifted(file, semitones, sample_rate, mono)
            return self._key(file)
        except InputError:
            return ""

    def _key(self, file: str) -> str:
        if file not in self.keys:
            self.keys[file] = content_digest(file)
        return self.keys[file]
