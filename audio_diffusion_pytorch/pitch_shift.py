"""Pitch-shift augmentation: whole recordings moved by semitones at their own tempo, made once and kept on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import fft

from audio_diffusion_pytorch import audio
from audio_diffusion_pytorch.digest import content_digest
from audio_diffusion_pytorch.errors import InputError

_WINDOW = 0.085  # s: a Hann window that separates partials 50 Hz apart
_BLOCK = 512  # frames that are transformed together
_VERSION = 2  # in the names of cached files: raise it when what they hold changes
_OFF = (None, 0, "", "0", "none", "null", "false")


def make_pitch_shift(sign: int | str | None, **settings) -> "PitchShift | None":
    """A `PitchShift` for sign 1 or -1; None for the values that mean off: null, 0, and the string "None"."""
    plain = sign.strip().lower() if isinstance(sign, str) else sign
    if plain in _OFF:
        return None
    if str(plain) not in ("1", "+1", "-1"):
        raise InputError(f"sign={sign!r}: use 1 to shift up, -1 to shift down, null for no pitch shift")
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
            raise InputError(f"pitch_shift.semitones must be [low, high] with 1 <= low <= high <= 36, not {semitones}")
        if not 0 <= probability <= 1:
            raise InputError(f"pitch_shift.probability must lie between 0 and 1, not {probability}")
        if variants is not None and not (isinstance(variants, int) and variants >= 1):
            raise InputError(f"pitch_shift.variants must be a whole number above 0, or null, not {variants!r}")
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
                audio.write(path, wav / max(1.0, float(wav.abs().max())), sample_rate)  # never clips
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


def shift_pitch(wav: np.ndarray, semitones: float, sample_rate: int) -> np.ndarray:
    """Move all frequencies by `semitones` and keep the duration: wav [C, T] float32 -> [C, T] float32.

    A phase vocoder with identity phase locking (Laroche and Dolson 1999, section IV): the spectrum of a window of n
    samples is brought back as one of m = n / ratio samples at the same place, which moves every frequency by the ratio;
    each spectral peak takes the phase that its new frequency has reached since the last window, and the bins around
    it turn with it. Channels keep their phase difference; peaks are those of their average, in which channels out of
    phase are turned over. What would lie above half the sample rate is dropped.
    """
    ratio = 2 ** (semitones / 12)
    n, m = _windows(ratio, sample_rate)
    ratio, hop, bins = n / m, min(n, m) // 4, min(n, m) // 2
    window, fade = _hann(n), _hann(m) * np.float32(m / n)
    loudest = wav[np.square(wav).sum(-1).argmax()]
    polarity = np.where((wav * loudest).sum(-1) < 0, np.float32(-1), np.float32(1))[:, None, None]
    length, count = wav.shape[-1], -(-wav.shape[-1] // hop) + 1
    padded = np.pad(wav.astype(np.float32), ((0, 0), (n // 2, hop + n)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, n, axis=-1)[:, ::hop]
    out = np.zeros((len(wav), (count - 1) * hop + m), np.float32)
    weight = np.full(out.shape[-1], 1e-6, np.float32)

    # Phase by which a bin's centre advances in a hop; what the shift adds to it.
    advance = 2 * np.pi * (np.arange(bins) * hop % n) / n
    added = (ratio - 1) * 2 * np.pi * np.arange(bins) * hop / n % (2 * np.pi)
    last, turn = np.zeros((1, bins), np.complex64), np.ones(bins, np.complex64)
    for start in range(0, count, _BLOCK):
        spectrum = fft.rfft(frames[:, start : min(start + _BLOCK, count)] * window)[..., :bins]
        mix = (spectrum * polarity).mean(0)
        moved = np.angle(mix * np.conj(np.concatenate([last, mix[:-1]]))) - advance.astype(np.float32)
        moved -= np.float32(2 * np.pi) * np.round(moved / np.float32(2 * np.pi))
        steps = _unit(added.astype(np.float32) + np.float32(ratio - 1) * moved)
        nearest = _nearest_peaks(np.abs(mix))
        turns = np.empty_like(mix)
        for index in range(len(mix)):
            turn = turns[index] = (turn * steps[index])[nearest[index]]
        last = mix[-1:]
        pieces = fft.irfft(spectrum * turns, n=m) * fade
        for index in range(len(mix)):
            at = (start + index) * hop
            out[:, at : at + m] += pieces[:, index]
            weight[at : at + m] += fade * fade * np.float32((n / m) ** 2)
    begin = m // 2
    return out[:, begin : begin + length] / weight[begin : begin + length]


def _windows(ratio: float, sample_rate: int) -> tuple[int, int]:
    """Even window lengths before and after whose quotient comes nearest to `ratio` (to 0.3 cents at 24 kHz)."""
    # The window after is longer downwards and smears onsets: there both are made shorter.
    shortest = round(_WINDOW * min(1.0, ratio) ** 0.5 * sample_rate / 2)
    pairs = [(2 * half, 2 * round(half / ratio)) for half in range(shortest, shortest * 3 // 2)]
    quick = [pair for pair in pairs if all(fft.next_fast_len(length) == length for length in pair)]
    return min(quick or pairs, key=lambda pair: abs(pair[0] / pair[1] / ratio - 1))


def _unit(angle: np.ndarray) -> np.ndarray:
    """exp(i angle), complex64."""
    out = np.empty(angle.shape, np.complex64)
    np.cos(angle, out=out.real)
    np.sin(angle, out=out.imag)
    return out


def _hann(length: int) -> np.ndarray:
    return np.square(np.sin(np.pi * np.arange(length) / length)).astype(np.float32)


def _nearest_peaks(magnitude: np.ndarray) -> np.ndarray:
    """magnitude [frames, bins] -> index [frames, bins] of the nearest peak: a bin above two neighbours each side."""
    bins = magnitude.shape[1]
    around = np.pad(magnitude, ((0, 0), (2, 2)), constant_values=-1.0)
    peak = np.ones(magnitude.shape, bool)
    for offset, strictly in ((0, True), (1, True), (3, False), (4, False)):
        other = around[:, offset : offset + bins]
        peak &= magnitude > other if strictly else magnitude >= other
    index = np.arange(bins, dtype=np.int32)
    before = np.maximum.accumulate(np.where(peak, index, -bins), axis=1)
    after = np.minimum.accumulate(np.where(peak, index, 3 * bins)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.where(index - before <= after - index, before, after)
    return np.clip(nearest, 0, bins - 1)
