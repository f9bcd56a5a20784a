"""A player for render_dataset.py: how a part is performed, and how the performance sounds through a SoundFont."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio_diffusion_pytorch.instruments import PITCH_RANGES
from audio_diffusion_pytorch.pitch.octaves import STRAYS, nearest_octaves

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 24_000  # Hz, of the clips
RENDER_RATE = (
    48_000  # Hz: FluidSynth does not low-pass what it transposes, so render above and decimate
)
BLOCK = 64  # samples at RENDER_RATE: FluidSynth acts on events once per block, so all times are whole blocks
PEAK = 10 ** (-6 / 20)  # every clip's peak, of full scale
TAIL = 0.6  # seconds after the last note-off

# General MIDI programs, counted from 0.
PROGRAMS = {
    "violin": 40,
    "viola": 41,
    "cello": 42,
    "double_bass": 43,
    "flute": 73,
    "oboe": 68,
    "clarinet": 71,
    "bassoon": 70,
    "saxophone": 65,
    "trumpet": 56,
    "horn": 60,
    "trombone": 57,
    "tuba": 58,
}
# name: (program, lowest and highest sounding MIDI pitch)
INSTRUMENTS = {
    name: (program, *PITCH_RANGES[name.replace("_", " ")]) for name, program in PROGRAMS.items()
}


class SoundFontError(Exception):
    """A SoundFont that cannot play what it is asked to."""


@dataclass
class Performance:
    """What a player does, in seconds from the start of the clip and apart from any instrument."""

    notes: list[tuple[float, float, int, int]]  # onset, offset, MIDI pitch as written, velocity
    controls: list[
        tuple[float, str, int]
    ]  # time, "expression" (0 to 127) or "bend" (8192 = two semitones), value
    duration: float
    bpm: float  # before rubato


def perform(part: list[list[float]], rng: np.random.Generator) -> Performance:
    """Draw one performance of a part: tempo and its drift, timing, articulation, dynamics, swells, vibrato."""
    import numpy as np

    onset, length, pitch, held = (
        np.array(column, dtype=float) for column in zip(*part, strict=True)
    )
    n, end = len(onset), onset[-1] + length[-1]
    held[-1] = 1

    # Beats to seconds: a slow drift, slower into a fermata, slower still on it.
    bpm = rng.uniform(60, 110)
    grid = np.linspace(0, end, 16 * math.ceil(end) + 1)
    pace = 1 + rng.uniform(0, 0.06) * np.sin(
        2 * np.pi * (grid / rng.uniform(12, 32) + rng.uniform())
    )
    slowing, hold = rng.uniform(0.02, 0.15), rng.uniform(1.0, 1.6)
    for k in np.flatnonzero(held):
        pace *= 1 - slowing * np.clip(1 - (onset[k] - grid) / 2, 0, 1) * (
            grid < onset[k] + length[k]
        )
        pace /= np.where((grid >= onset[k]) & (grid < onset[k] + length[k]), hold, 1.0)
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(grid) * 60 / bpm / pace[:-1])])
    start = np.interp(onset, grid, seconds) + rng.normal(0, 0.01, n).clip(-0.025, 0.025)
    start = np.maximum.accumulate(start - 0.05 * np.arange(n)) + 0.05 * np.arange(
        n
    )  # in order, 50 ms apart or more
    start += rng.uniform(0.1, 0.3) - start[0]

    # Note-offs: from detached to slightly overlapping; a breath after fermatas; a gap before a repeated pitch.
    sounding = np.diff(np.interp(np.stack([onset, onset + length]), grid, seconds), axis=0)[0]
    articulation = rng.uniform(0.75, 1.06)
    gap = np.clip((1 - articulation) * sounding, -0.05, 0.25) + rng.normal(0, 0.008, n)
    gap = np.where(held > 0, np.maximum(gap, rng.uniform(0.05, 0.2)), gap)
    stop = start + np.maximum(sounding - gap, 0.06)
    latest = start[1:] + np.where(pitch[1:] == pitch[:-1], -0.02, 0.05)
    stop[:-1] = np.maximum(np.minimum(stop[:-1], latest), start[:-1] + 0.02)

    # Phrases run from fermata to fermata, at most some bars; each swells and falls.
    position = np.zeros(n)
    breaks, longest = [0], rng.uniform(10, 18)
    for k in range(1, n):
        if held[k - 1] or onset[k] - onset[breaks[-1]] > longest:
            breaks.append(k)
    for a, b in zip(breaks, [*breaks[1:], n], strict=True):
        position[a:b] = (np.arange(a, b) - a + 0.5) / (b - a)
    arc = np.sin(np.pi * position ** rng.uniform(0.7, 1.3))
    loudness = (
        rng.uniform(50, 100) + rng.uniform(4, 18) * (arc - 0.5) + 0.3 * (pitch - pitch.mean())
    )
    velocity = np.rint(loudness + rng.normal(0, 4, n)).clip(25, 120).astype(int)

    # Expression and pitch bend, on a grid of 8 ms.
    duration = stop.max() + TAIL
    time = np.arange(0, duration, 0.008)
    now = np.searchsorted(start, time, side="right").clip(1) - 1
    inside = ((time - start[now]) / (stop - start)[now]).clip(0, 1)
    swell = np.interp(time, start, arc)
    single = np.sin(np.pi * inside ** rng.uniform(0.5, 1.0)) * ((stop - start)[now] > 0.5)
    expression = 127 - rng.uniform(0, 35) * (1 - swell) - rng.uniform(0, 18) * (1 - single)
    depth = rng.choice([0.0, rng.uniform(5, 30)], p=[0.35, 0.65])  # cents
    delay = rng.uniform(0.1, 0.35, n)
    ramp = ((time - start[now] - delay[now]) / 0.25).clip(0, 1)
    rate = rng.uniform(4.6, 6.3) * (1 + 0.06 * np.interp(time, start, rng.normal(0, 1, n)))
    vibrato = depth * ramp * np.sin(2 * np.pi * np.cumsum(rate) * 0.008)
    controls = [
        *changes(time[::3], "expression", expression[::3]),
        *changes(time, "bend", vibrato * 8192 / 200),
    ]

    played = zip(start, stop, pitch, velocity, strict=True)
    notes = [(whole_blocks(a), whole_blocks(b), int(p), int(v)) for a, b, p, v in played]
    return Performance(notes, sorted(controls), whole_blocks(duration), bpm)


def changes(time: np.ndarray, kind: str, values: np.ndarray) -> Iterator[tuple[float, str, int]]:
    """The controls that say something new, values rounded."""
    last = None
    for t, value in zip(time.tolist(), values.round().astype(int).tolist(), strict=True):
        if value != last:
            yield whole_blocks(t), kind, value
        last = value


def whole_blocks(seconds: float) -> float:
    return round(seconds * RENDER_RATE / BLOCK) * BLOCK / RENDER_RATE


def octaves_into(instrument: str, pitches: list[int]) -> int | None:
    """Octaves that bring a part nearest the middle of the instrument's range; None where over 2 % stay outside it."""
    _, low, high = INSTRUMENTS[instrument]
    octaves, outside = nearest_octaves(pitches, low, high)
    return octaves if outside <= STRAYS else None


def played_pitch(instrument: str, pitch: int, octaves: int) -> int:
    """The pitch that sounds: moved with its part, strays folded back into the range."""
    _, low, high = INSTRUMENTS[instrument]
    pitch += 12 * octaves
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


# Sound


def play(performance: Performance, pitches: list[int], soundfont: str, program: int) -> np.ndarray:
    """The performance with these pitches through a SoundFont: [T] float32 at SAMPLE_RATE, dry, its peak at PEAK.

    Every clip has a new synthesizer: FluidSynth's voices start from where they stopped in the clip before.
    """
    import fluidsynth
    import numpy as np

    # Float samples: the dither of the 16-bit ones depends on the past too. Only a program's own samples are loaded.
    pointer, integer = fluidsynth.c_void_p, fluidsynth.c_int
    types = (pointer, integer, pointer, integer, integer, pointer, integer, integer)
    write = fluidsynth.cfunc(
        "fluid_synth_write_float", integer, *((f"a{i}", kind, 1) for i, kind in enumerate(types))
    )
    options = {
        "synth.reverb.active": 0,
        "synth.chorus.active": 0,
        "synth.dynamic-sample-loading": 1,
    }
    synth = fluidsynth.Synth(gain=0.5, samplerate=RENDER_RATE, channels=16, **options)
    try:
        font = synth.sfload(soundfont)
        if font == -1:
            raise SoundFontError(f"{soundfont} is no SoundFont that FluidSynth can read")
        if synth.program_select(0, font, 0, program) != 0:
            raise SoundFontError(f"{soundfont} has no General MIDI program {program}")
        actions = [(time, 0, kind, value, 0) for time, kind, value in performance.controls]
        for (onset, offset, _, velocity), pitch in zip(performance.notes, pitches, strict=True):
            actions += [(offset, 1, "off", pitch, 0), (onset, 2, "on", pitch, velocity)]
        stereo = np.empty((2, round(performance.duration * RENDER_RATE)), np.float32)
        left, right = (side.ctypes.data for side in stereo)
        done = 0
        for time, _, kind, value, velocity in [
            *sorted(actions),
            (performance.duration, 3, "end", 0, 0),
        ]:
            now = round(time * RENDER_RATE)
            if now > done:
                write(synth.synth, now - done, left, done, 1, right, done, 1)
                done = now
            if kind == "expression":
                synth.cc(0, 11, value)
            elif kind == "bend":
                synth.pitch_bend(0, value)
            elif kind == "off":
                synth.noteoff(0, value)
            elif kind == "on":
                synth.noteon(0, value, velocity)
    finally:
        synth.delete()
    audio = halve(stereo.mean(axis=0))
    return audio * (PEAK / max(float(np.abs(audio).max()), 1e-9))


def halve(audio: np.ndarray) -> np.ndarray:
    """[T] at 48 kHz -> [T / 2] at 24 kHz: flat to 11 kHz, -90 dB from 12.1 kHz, linear phase, without delay.

    Overlap-save; the inverse transforms take only the lower half of each spectrum.
    """
    import numpy as np

    size, taps = 8192, 257
    t = np.arange(taps) - taps // 2
    kernel = 0.481 * np.sinc(0.481 * t) * np.kaiser(taps, 9.0)
    response = np.fft.rfft(kernel, size)[: size // 4 + 1].astype(np.complex64) / 2
    hop, half = size - taps + 1, taps // 2
    count = math.ceil(len(audio) / hop)
    padded = np.pad(audio, (half, count * hop + taps - len(audio)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:count]
    out = np.fft.irfft(np.fft.rfft(frames)[:, : size // 4 + 1] * response, size // 2)[:, half:]
    return np.ascontiguousarray(out.reshape(-1)[: (len(audio) + 1) // 2], dtype=np.float32)
