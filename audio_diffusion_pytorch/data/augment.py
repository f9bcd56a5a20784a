"""Imitate other recordings of the same music: vary level, tuning, tone, room and noise floor.

Models that train on clean renders only turn the noise floor of a real recording into broadband
noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft


@dataclass(frozen=True)
class RecordingAugment:
    """Random changes of a recording.

    Each change applies with `probability`. Ranges are half-widths or [low, high].

    Args:
        probability: probability of each change.
        level_db: gain, +- dB.
        tuning_cents: playback speed, and with it pitch, +- cents.
        tone_db: gain of each of `tone_points` points of an equaliser curve over log frequency,
            +- dB.
        tone_points: number of points of the curve.
        tilt_db: difference between the ends of a straight line that is added to the curve, +- dB.
        room_seconds: [low, high] reverberation time; the room is exponentially decaying noise.
        room_level: [low, high] amplitude of the room relative to the direct sound.
        noise_db: [low, high] RMS of the noise floor relative to the recording's peak, in dB.
        noise_slope: [low, high] exponent of the noise, which falls as 1 / frequency^slope above
            30 Hz: 0 is white noise, 2 is rumble.
    """

    probability: float = 0.5
    level_db: float = 9.0
    tuning_cents: float = 25.0
    tone_db: float = 8.0
    tone_points: int = 6
    tilt_db: float = 0.0
    room_seconds: tuple[float, float] = (0.1, 0.8)
    room_level: tuple[float, float] = (0.05, 0.5)
    noise_db: tuple[float, float] = (-80.0, -40.0)
    noise_slope: tuple[float, float] = (0.0, 2.0)

    def margin(self, length: int) -> int:
        """Return the samples that the input needs beyond `length`: higher tuning plays faster."""
        return int(np.ceil(length * (2 ** (self.tuning_cents / 1200) - 1))) + 1

    def __call__(
        self, wav: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Vary a recording.

        Args:
            wav: [C, length + margin(length)], or longer.
            length: samples of the result.
            sample_rate: rate in Hz.
            rng: source of all random numbers.

        Returns:
            [C, length], float32, within -1 to 1.
        """
        chosen = rng.random(5) < self.probability
        speed = 2 ** (rng.uniform(-1, 1) * self.tuning_cents / 1200) if chosen[0] else 1.0
        frames = min(fft.next_fast_len(round(length * speed)), wav.shape[-1])
        peak = max(float(np.abs(wav).max()), 1e-6)

        # Work in the frequency domain; circular wrap-around affects one room's tail at the edges.
        spectrum = fft.rfft(wav[:, :frames].astype(np.float32))
        frequencies = fft.rfftfreq(frames, 1 / sample_rate).astype(np.float32)
        if chosen[1]:
            spectrum = spectrum * self._tone(frequencies, rng)
        if chosen[2]:
            spectrum = spectrum * self._room(frames, sample_rate, rng)
        gain = 10 ** (rng.uniform(-1, 1) * self.level_db / 20) if chosen[3] else 1.0
        # An inverse transform of another length resamples from `frames` to `length` samples.
        bins = length // 2 + 1
        missing = max(0, bins - len(frequencies))
        spectrum = np.pad(spectrum[:, :bins], ((0, 0), (0, missing)))
        if chosen[4]:
            level = peak * 10 ** (rng.uniform(*self.noise_db) / 20)
            spectrum = spectrum + self._noise(wav.shape[0], frequencies, bins, level, rng)
        out = fft.irfft(spectrum, n=length) * np.float32(length / frames * gain)
        clipping = max(1.0, float(np.abs(out).max()))
        return (out / clipping).astype(np.float32)

    def _tone(self, frequencies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        points = np.geomspace(60, 12000, self.tone_points)
        gains = rng.uniform(-self.tone_db, self.tone_db, self.tone_points)
        if self.tilt_db:
            gains += rng.uniform(-0.5, 0.5) * self.tilt_db * np.linspace(-1, 1, self.tone_points)
        decibels = np.interp(np.log(np.maximum(frequencies, 20)), np.log(points), gains)
        return np.exp(decibels * (np.log(10) / 20)).astype(np.float32)

    def _room(self, frames: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        decay = rng.uniform(*self.room_seconds)
        tail = min(int(decay * sample_rate), frames)
        time = np.arange(tail, dtype=np.float32) / sample_rate
        response = rng.standard_normal(tail, dtype=np.float32)
        rate = np.float32(-3 * np.log(10) / decay)  # -60 dB after `decay` seconds
        response *= np.exp(rate * time)
        response *= rng.uniform(*self.room_level) / np.sqrt((response**2).sum())
        response[0] += 1.0
        return fft.rfft(response, n=frames)

    def _noise(
        self,
        channels: int,
        frequencies: np.ndarray,
        bins: int,
        level: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        frames = 2 * (len(frequencies) - 1)
        slope = rng.uniform(*self.noise_slope)
        shape = np.maximum(np.arange(bins, dtype=np.float32) * frequencies[1], 30) ** -slope
        shape *= level / np.sqrt((shape**2).mean())
        pairs = rng.standard_normal((channels, bins, 2), dtype=np.float32)
        noise = pairs.view(np.complex64)[..., 0]
        return noise * (shape * np.sqrt(frames / 2)).astype(np.float32)
