"""Pitch-shift augmentation: whole recordings moved by semitones at their own tempo, made once and kept on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.errors import InputError
from audio_diffusion_pytorch.pitch.phase_vocoder import shift_pitch
from audio_diffusion_pytorch.utils.hashing import content_digest

_VERSION = 2  # in the names of cached files: raise it when what they hold changes
_OFF = (None, 0, "", "0", "none", "null", "false")


def make_pitch_shift(sign: int | str | None, **settings) -> "PitchShift | None":
    """A `PitchShift` for sign 1 or -1; None for the values that mean off: null, 0, and the string "None"."""
    plain = sign.strip().lower() if isinstance(sign, str) else sign
    if plain in _OFF:
        return None
    if str(plain) not in ("1", "+1", "-1"):
        raise InputError(
            f"sign={sign!r}: use 1 to shift up, -1 to shift down, null for no pitch shift"
        )
    return PitchShift(int(plain), **settings)


class PitchShift:
    """Gives some crops of a data set another pitch, in one direction.

    Shifting takes longer than reading and would starve the training: each recording is shifted once, as a whole, by
    `variants` intervals, and a shifted crop is read from there. The intervals of one recording are spread over the
    range and keyed by its content; over all recordings each semitone of the range is equally likely.

    Args:
        sign: 1 up, -1 down.
        cache: folder of the shifted recordings (FLAC, 16 bits), shared by all runs; may be deleted at any time between
            runs. Takes about `variants` times the room of the recordings.
        probability: share of the crops that are shifted.
        semitones: lowest and highest interval.
        variants: intervals for each recording; null is every semitone of the range.

    Raises:
        InputError: a setting is out of its range.
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
        if not (isinstance(low, int) and isinstance(high, int) and 1 <= low <= high <= 36):
            raise InputError(
                f"pitch_shift.semitones must be [low, high] with 1 <= low <= high <= 36, not {semitones}"
            )
        if not 0 <= probability <= 1:
            raise InputError(f"pitch_shift.probability must lie between 0 and 1, not {probability}")
        if variants is not None and not (isinstance(variants, int) and variants >= 1):
            raise InputError(
                f"pitch_shift.variants must be a whole number above 0, or null, not {variants!r}"
            )
        self.sign, self.cache, self.probability, self.low = sign, Path(cache), probability, low
        self.range = high - low + 1
        self.variants = min(variants or self.range, self.range)
        self.keys: dict[str, str] = {}  # file -> digest of its content

    def draw(self, file: str, rng: np.random.Generator) -> int | None:
        """Semitones, with their sign, by which a crop of `file` is shifted; None: not at all."""
        chosen, which = rng.random() < self.probability, rng.integers(self.variants)
        return self.intervals(file)[which] if chosen else None

    def intervals(self, file: str) -> list[int]:
        """The semitones of `file`, with their sign: one at random in each of `variants` equal parts of the range."""
        rng = np.random.default_rng(int(self._key(file), 16))
        parts = (np.arange(self.variants) + rng.random(self.variants)) / self.variants
        return [self.sign * (self.low + int(part * self.range)) for part in parts]

    def shifted(self, file: str, semitones: int, sample_rate: int, mono: bool) -> Path:
        """Path of the recording moved by `semitones`, at `sample_rate` Hz; made if it is not there yet.

        Raises:
            InputError: `file` cannot be read.
            OSError: the cache cannot be written to.
        """
        name = f"{self._key(file)}_{semitones:+d}_{sample_rate}{'_mono' if mono else ''}_v{_VERSION}.flac"
        path = self.cache / name[:2] / name
        if not path.is_file():
            wav, rate = (audio.read_mono if mono else audio.read)(file)
            wav = audio.resample(wav, rate, sample_rate)
            wav = torch.from_numpy(shift_pitch(wav.numpy(), semitones, sample_rate))
            try:
                audio.write(
                    path, wav / max(1.0, float(wav.abs().max())), sample_rate
                )  # never clips
            except InputError as error:  # not the recording's fault
                raise OSError(f"cache of pitch-shifted recordings: {error}") from error
        return path

    def prepare(self, file: str, sample_rate: int, mono: bool) -> str:
        """Make all variants of a recording -> its key, or "" where it cannot be read (those who draw say why)."""
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
